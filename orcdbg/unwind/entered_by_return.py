"""Is the word in a return slot no return address, but a function that a `ret` is about to enter?

Three things go on to a function by a return: a retpoline whose own `ret` is a jump to a return thunk; ftrace, where a
livepatch has put another function in the place of the traced one; and ftrace with a trampoline to be called directly. The
word is then exactly where the function begins, and no call stands before it.
"""

from __future__ import annotations

import re

from orcdbg.orc.rules.thunks import is_return_thunk
from orcdbg.patches.code import Code
from orcdbg.unwind.frame import Frame

# ftrace_caller and ftrace_regs_caller, their labels, and the copies of them that the kernel makes (ftrace_64.S).
_FTRACE = re.compile(r"ftrace_(regs_)?call(er)?(_\w+)?|ftrace_epilogue|ftrace_stub|ftrace_trampoline")


def enters_function(code: Code, frame: Frame, word: int) -> bool:
    """Whether the CPU, which is in `frame`, goes on to a function by returning to `word`.

    Args:
        code: the kernel.
        frame: where the CPU is: a return address of a call means that it is not at a `ret`.
        word: what is in the frame's return slot.
    """
    place = frame.location
    if not frame.exact or place is None:
        return False
    if not is_return_thunk(place) and not _FTRACE.fullmatch(place.symbol):
        return False
    entered = code.locate(word)
    return entered is not None and entered.is_text and entered.start == word and code.follows_call(word) is False

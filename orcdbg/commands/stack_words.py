"""Which words does the stack have in each frame, and what do they mean?"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.stacks import FrameKey, Stacks, with_symbol
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace

# A kernel's largest stacks have 32 KiB (with KASAN 64), and no frame lies on two.
MAX_FRAME = 64 << 10
NameWord = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class FrameWords:
    """The words of one frame from its stack pointer up, and what each is called; `names` is None where nobody asked."""

    address: int
    values: Sequence[int]
    names: Sequence[str | None] | None


def range_of(frame: Frame) -> tuple[int, int] | None:
    """Addresses of a frame's words, its return slot among them; None where its end is not known, or is no frame's."""
    if frame.kind is FrameKind.USER:
        return None
    end = frame.return_slot + 8 if frame.return_slot is not None else frame.cfa
    if end is None or not 0 < end - frame.sp <= MAX_FRAME:
        return None
    return frame.sp, end


def frame_words(
    memory: AddressSpace, traces: Sequence[StackTrace], name: NameWord | None
) -> tuple[Mapping[FrameKey, FrameWords], list[str]]:
    """The words of every frame that has some, and a line for each that cannot be read."""
    found: dict[FrameKey, FrameWords] = {}
    problems: list[str] = []
    for trace in traces:
        for frame in trace.frames:
            place = range_of(frame)
            if place is None:
                continue
            start, end = place
            try:
                values = struct.unpack(f"<{(end - start) // 8}Q", memory.read(start, (end - start) // 8 * 8))
            except MemoryFault as error:
                problems.append(f"words of frame {frame.index} of pid {trace.pid}: {error}")
                continue
            names = [name(value) for value in values] if name is not None else None
            found[trace.task, frame.index] = FrameWords(start, values, names)
    return found, problems


def with_reference(debugger: Debugger, result: Stacks, word: str) -> Stacks:
    """The stacks with a function, or with a word among those of their frames, on them; there may be none.

    Raises:
        NotFound: the word is neither a symbol nor a number.
    """
    with_function = with_symbol(result, word)
    if with_function.stacks:
        return with_function

    value = debugger.address(word)
    words, _ = frame_words(debugger.session.memory, result.stacks, None)
    with_word = {task for (task, _), one in words.items() if value in one.values}
    found = [
        trace for trace in result.stacks if trace.task in with_word or any(frame.ip == value for frame in trace.frames)
    ]
    return replace(result, stacks=found)

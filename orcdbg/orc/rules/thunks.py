"""Which rule holds inside the speculation thunks, whose ORC rows are undefined or describe something else?

A thunk is entered with a return address on top of the stack, and moves the stack pointer with calls that do not return.
Its rule follows from its instructions alone: sp+8 at its first byte, then what each instruction pushes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule, sp_rule
from orcdbg.orc.effective import Derived, Effective, Source, Unknown
from orcdbg.orc.reasons import InsideThunk, NoRuleInThunk
from orcdbg.orc.rows import FUNCTION_ENTRY
from orcdbg.orc.rules.source import Lookup
from orcdbg.x86.stack_effects import stack_boundaries

# arch/x86/lib/retpoline.S. Longer bodies than these symbols have are not thunks.
_PREFIXES = ("__x86_indirect_thunk_", "__x86_indirect_call_thunk_", "__x86_indirect_jump_thunk_", "__x86_indirect_its_")
_NAMES = ("__x86_return_thunk", "its_return_thunk", "retbleed_return_thunk")
# What returns jump to; their symbols reach to whatever the linker put next. The row holds in those that are not in _NAMES:
# SRSO's call a `ret` that drops a word first (fb3bd914b3ec, 6.5).
_RETURN_THUNKS = re.compile(
    r"(__pi_)?__x86_return_thunk|(its|retbleed|zen|srso|srso_alias|call_depth)_return_thunk|srso(_alias)?_safe_ret"
)
MAX_SIZE = 64
_AT_ENTRY = sp_rule(8)


class ThunkRule(NamedTuple):
    """The rule at an address inside a thunk, None where its instructions do not tell, and the instructions before it."""

    rule: CfaRule | None
    instructions: tuple[str, ...]


def is_thunk(location: Location | None) -> bool:
    """True for an address inside an indirect-branch or return thunk."""
    if location is None or location.size > MAX_SIZE:
        return False
    return location.symbol.startswith(_PREFIXES) or location.symbol in _NAMES


def is_return_thunk(location: Location | None) -> bool:
    """True for an address in what returns of the kernel jump to, whichever function returns."""
    return location is not None and _RETURN_THUNKS.fullmatch(location.symbol) is not None


def thunk_rule(location: Location, ip: int, text: AddressSpace) -> ThunkRule:
    """The rule at `ip`, which is inside the thunk at `location`."""
    try:
        body = text.read(location.start, location.size)
    except MemoryFault:
        return ThunkRule(None, ())
    boundary = stack_boundaries(body, location.start).get(ip)
    if boundary is None or boundary.pushed is None:
        return ThunkRule(None, ())
    return ThunkRule(_AT_ENTRY.moved(boundary.pushed), tuple(insn.mnemonic for insn in boundary.path))


class InsideThunks:
    """The instructions of thunks.

    Args:
        text: text as it was in memory.
    """

    def __init__(self, text: AddressSpace) -> None:
        self._text = text

    def at(self, lookup: Lookup) -> Effective | None:
        """The rule where a CPU stopped inside a thunk.

        A return address inside one is left to the next sources: it is behind a call that the thunk makes (call depth
        tracking's, for one), and objtool followed the stack up to that.
        """
        location = lookup.location if lookup.exact else None
        if location is None or not is_thunk(location):
            return None

        found = thunk_rule(location, lookup.ip, self._text)
        if found.rule is None:
            return Unknown(lookup.entry, Source.TRAMPOLINE, NoRuleInThunk(location.symbol))
        return Derived(lookup.entry, found.rule, FUNCTION_ENTRY, InsideThunk(), Source.TRAMPOLINE, found.instructions)

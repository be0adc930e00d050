"""Which rule holds in a compiled function that the kernel's build was told to leave out of ORC?

`STACK_FRAME_NON_STANDARD()` does so where objtool could not follow the end of a function (`__crash_kexec`,
`machine_real_restart`): all its rows are undefined. Its instructions, followed from the entry along every direct branch,
tell what they pushed. Where two paths disagree, or one was not followed, there is no rule; nor where call frame
information says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault, UnsupportedFormat
from orcdbg.formats.call_frame_row import Place, Row
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule, sp_rule
from orcdbg.orc.effective import Derived, Source
from orcdbg.orc.reasons import LeftOutOfOrc
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.source import Lookup
from orcdbg.orc.tables import Rows
from orcdbg.patches.code import Code
from orcdbg.x86.branches import CALL_SIZE, ENDBR64, direct_call_target
from orcdbg.x86.follow import DecodedText, follow
from orcdbg.x86.instructions import Instruction, written_registers

MAX_SIZE = 1 << 14
_RETURN_ADDRESS = 8
_LOST = -1


class LeftOutRule(NamedTuple):
    """The rule at an address, the row that stands for the undefined one, and what it was derived from.

    `source` is DWARF where call frame information agrees, else INSTRUCTIONS.
    """

    rule: CfaRule
    row: OrcRow
    source: Source
    instructions: tuple[str, ...]


class _Held(NamedTuple):
    """Before an instruction: the CFA less rsp; the CFA less the slot of the caller's rbp.

    That is 0 while rbp itself holds it, and _LOST once nothing that was seen does.
    """

    depth: int
    rbp: int


class _State(NamedTuple):
    """What paths bring to a boundary; `held` is None where an instruction was not understood, or paths disagree."""

    held: _Held | None


class LeftOutFunctions:
    """Functions without ORC rows.

    Args:
        code: the kernel.
        rows: its own look-up of ORC rows.
    """

    def __init__(self, code: Code, rows: Rows) -> None:
        self._code = code
        self._rows = rows
        # What compiled functions call first; None where the kernel has no such function.
        self._fentry = code.linux.find_address("__fentry__")
        self._known: dict[int, _Followed | None] = {}

    def rule(self, ip: int, exact: bool) -> LeftOutRule | None:
        """The rule at an interrupted address, or where `ip` is a return address, at the call before it."""
        inside = ip if exact else ip - 1
        place = self._code.locate(inside)
        if place is None or not place.is_text or place.size > MAX_SIZE or ".cold" in place.symbol:
            return None  # a part that was split off is entered by a jump

        if place.start not in self._known:
            self._known[place.start] = self._follow(place)
        followed = self._known[place.start]
        if followed is None:
            return None

        boundary = ip if exact else followed.calls.get(ip)
        held = None if boundary is None else followed.held.get(boundary)
        if boundary is None or held is None or held.rbp == _LOST:
            return None
        return self._judged(held, followed.pushes(boundary), place.start, inside)

    def _follow(self, place: Location) -> _Followed | None:
        entry = self._rows.find(place.start)
        if entry is None or entry.row.type is not RowType.UNDEFINED or not self._is_compiled(place.start):
            return None
        try:
            return _follow(self._code.memory.read(place.start, place.size), place.start)
        except MemoryFault:
            return None

    def _is_compiled(self, start: int) -> bool:
        """True where a compiler made the function: then it is entered at its start, by a call. Assembly may be otherwise."""
        row = self._described(start)
        if row is not None:
            return row.cfa == Place("rsp", 8, False)
        try:
            is_marked = self._code.built.read(start, len(ENDBR64)) == ENDBR64
        except MemoryFault:
            return False
        first = start + len(ENDBR64) if is_marked else start
        return self._fentry is not None and direct_call_target(self._code.built, first + CALL_SIZE) == self._fentry

    def _described(self, address: int) -> Row | None:
        try:
            return self._code.call_frame(address)
        except UnsupportedFormat:
            return None

    def _judged(self, held: _Held, pushes: tuple[str, ...], start: int, address: int) -> LeftOutRule | None:
        row = self._described(address)
        if row is None and self._described(start) is not None:
            return None  # behind the function's end
        if row is not None:
            is_same_slot = not held.rbp or row.saved.get("rbp") == Place("cfa", -held.rbp)
            if row.cfa != Place("rsp", held.depth, False) or not is_same_slot:
                return None
        saved_rbp = (OrcRegister.PREV_SP, -held.rbp) if held.rbp else (OrcRegister.UNDEFINED, 0)
        return LeftOutRule(
            rule=sp_rule(held.depth),
            row=OrcRow(OrcRegister.SP, held.depth, *saved_rbp, RowType.CALL, False),
            source=Source.INSTRUCTIONS if row is None else Source.DWARF,
            instructions=pushes,
        )


class _Followed(NamedTuple):
    """A function after it was followed.

    `held` is by boundary, None where that is lost or in dispute; `calls` are boundaries by where the call there returns to;
    `pushes` are the names of the instructions that moved the stack pointer on the way to a boundary.
    """

    held: dict[int, _Held | None]
    calls: dict[int, int]
    pushes: Callable[[int], tuple[str, ...]]


def _follow(body: bytes, start: int) -> _Followed:
    """A function from its entry on, as far as its own instructions lead."""
    text = DecodedText(body, start)
    flow = _HeldFlow(text)
    # A boundary can learn one thing: that what is held there is in dispute, and that stays so.
    found = follow({start: _State(_Held(8, 0))}, flow, 2 * (len(body) + 1))

    def pushes(address: int) -> tuple[str, ...]:
        way = [insn for before in found.way(address) if (insn := text.instruction(before)) is not None]
        return tuple(insn.mnemonic for insn in way if insn.sp_change)

    return _Followed({address: state.held for address, state in found.states.items()}, flow.calls, pushes)


class _HeldFlow:
    """Follows the stack's depth and the caller's rbp through a function, all branches inside it."""

    def __init__(self, text: DecodedText) -> None:
        self._text = text
        self.calls: dict[int, int] = {}

    def steps(self, address: int, state: _State) -> Iterator[tuple[int, _State]]:
        """See `Flow`."""
        insn = self._text.instruction(address)
        if insn is None:
            return
        if insn.is_call:
            self.calls[insn.end] = address

        after = _State(None if state.held is None else self._after(insn, state.held))
        # The last is gone first, and the way by which a boundary is first reached is the one that is shown: here by the jump.
        for target in reversed([*self._text.successors(insn)]):
            if self._text.holds(target):
                yield target, after

    def arrive(self, address: int, state: _State) -> _State:
        """See `Flow`."""
        return state

    def meet(self, known: _State, arrived: _State) -> _State:
        """See `Flow`."""
        return known if known == arrived else _State(None)

    def _after(self, insn: Instruction, held: _Held) -> _Held | None:
        """What is held behind an instruction; None where that does not follow."""
        if insn.is_call:
            # One into the function's middle pushes what nothing may ever pop.
            is_inside = insn.target is not None and self._text.start < insn.target < self._text.end
            return None if is_inside else held
        if insn.sp_change is None:
            return None

        depth = held.depth + insn.sp_change
        rbp = _rbp_after(insn, held, depth)
        return None if rbp is None or rbp > depth or depth < _RETURN_ADDRESS else _Held(depth, rbp)


def _rbp_after(insn: Instruction, held: _Held, depth: int) -> int | None:
    """Where the caller's rbp is behind an instruction that left the stack `depth` deep, as in `_Held`."""
    written = written_registers(insn.raw)
    if written is None:
        return None

    name = insn.mnemonic.removesuffix("q")
    if insn.operands == "%rbp" and name == "pop":
        return 0 if held.rbp == held.depth else _LOST
    if held.rbp:
        return held.rbp
    if insn.operands == "%rbp" and name == "push":
        return depth
    return _LOST if "rbp" in written else 0


class UndefinedRows:
    """Functions that the build left out of ORC.

    Args:
        functions: what follows from their instructions.
    """

    def __init__(self, functions: LeftOutFunctions) -> None:
        self._functions = functions

    def at(self, lookup: Lookup) -> Derived | None:
        """The rule by instructions where the row is undefined; nothing where these do not tell."""
        found = self._functions.rule(lookup.ip, lookup.exact) if lookup.has_type(RowType.UNDEFINED) else None
        if found is None:
            return None
        why = LeftOutOfOrc(is_confirmed=found.source is Source.DWARF)
        return Derived(lookup.entry, found.rule, found.row, why, found.source, found.instructions)

"""Which rule holds in a compiled function that the kernel's build was told to leave out of ORC?

`STACK_FRAME_NON_STANDARD()` does so where objtool could not follow the end of a function (`__crash_kexec`,
`machine_real_restart`): all its rows are undefined. Its instructions, followed from the entry along every direct branch,
tell what they pushed. Where two paths disagree, or one was not followed, there is no rule; nor where call frame
information says otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

from orcdbg.base.errors import MemoryFault, UnsupportedFormat
from orcdbg.formats.callframe import Place, Row
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule, sp_rule
from orcdbg.orc.effective import Derived, Source
from orcdbg.orc.reasons import LeftOutOfOrc
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.source import Lookup
from orcdbg.orc.tables import Rows
from orcdbg.patches.code import Code
from orcdbg.x86.decode import Instruction, decode_one, written_registers

MAX_SIZE = 1 << 14
_ENDBR64, _CALL = b"\xf3\x0f\x1e\xfa", 0xE8
_LOST = -1


class UnstatedRule(NamedTuple):
    """The rule at an address, the row that stands for the undefined one, and what it was derived from.

    `source` is DWARF where call frame information agrees, else INSTRUCTIONS.
    """

    rule: CfaRule
    row: OrcRow
    source: Source
    instructions: tuple[str, ...]


class _Held(NamedTuple):
    """Before an instruction: the CFA less rsp; the CFA less the slot of the caller's rbp, 0 while rbp itself holds it."""

    depth: int
    rbp: int
    path: tuple[str, ...]

    def agrees(self, other: _Held | None) -> bool:
        """True where another path brings the same."""
        return other is not None and (self.depth, self.rbp) == (other.depth, other.rbp)


class UnstatedFunctions:
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

    def rule(self, ip: int, exact: bool) -> UnstatedRule | None:
        """The rule at an interrupted address, or where `ip` is a return address, at the call before it."""
        place = self._code.locate(ip if exact else ip - 1)
        if place is None or not place.is_text or place.size > MAX_SIZE or ".cold" in place.symbol:
            return None  # a part that was split off is entered by a jump
        if place.start not in self._known:
            self._known[place.start] = self._follow(place)
        followed = self._known[place.start]
        at = None if followed is None else ip if exact else followed.calls.get(ip)
        held = None if followed is None or at is None else followed.states.get(at)
        return None if held is None or held.rbp == _LOST else self._judged(held, place.start, ip if exact else ip - 1)

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
            head = self._code.built.read(start, 9)
        except MemoryFault:
            return False
        at = 4 if head.startswith(_ENDBR64) else 0
        target = start + at + 5 + int.from_bytes(head[at + 1 : at + 5], "little", signed=True)
        return head[at] == _CALL and target == self._fentry

    def _described(self, address: int) -> Row | None:
        try:
            return self._code.call_frame(address)
        except UnsupportedFormat:
            return None

    def _judged(self, held: _Held, start: int, address: int) -> UnstatedRule | None:
        row = self._described(address)
        if row is None and self._described(start) is not None:
            return None  # behind the function's end
        if row is not None:
            is_same_slot = not held.rbp or row.saved.get("rbp") == Place("cfa", -held.rbp)
            if row.cfa != Place("rsp", held.depth, False) or not is_same_slot:
                return None
        saved_rbp = (OrcRegister.PREV_SP, -held.rbp) if held.rbp else (OrcRegister.UNDEFINED, 0)
        return UnstatedRule(
            rule=sp_rule(held.depth),
            row=OrcRow(OrcRegister.SP, held.depth, *saved_rbp, RowType.CALL, False),
            source=Source.INSTRUCTIONS if row is None else Source.DWARF,
            instructions=held.path,
        )


class _Followed(NamedTuple):
    """States before instructions, None where paths disagree; and calls by where they return to."""

    states: dict[int, _Held | None]
    calls: dict[int, int]


def _follow(body: bytes, start: int) -> _Followed:
    """A function from its entry on; each boundary is looked at twice at most, since what is in dispute stays so."""
    states: dict[int, _Held | None] = {start: _Held(8, 0, ())}
    calls: dict[int, int] = {}
    pending, end = [start], start + len(body)
    while pending:
        address = pending.pop()
        insn = decode_one(body[address - start : address - start + 15], address)
        if insn is None:
            continue
        if insn.is_call:
            calls[insn.end] = address
        after = _after(insn, states[address], start, end)
        following = [] if insn.ends_flow else [insn.end]
        if insn.target is not None and not insn.is_call:
            following.append(insn.target)
        for target in following:
            if not start <= target < end:
                continue
            if target not in states:
                states[target] = after
                pending.append(target)
            else:
                known = states[target]
                if known is not None and not known.agrees(after):
                    states[target] = None
                    pending.append(target)
    return _Followed(states, calls)


def _after(insn: Instruction, held: _Held | None, start: int, end: int) -> _Held | None:
    """The state behind an instruction; None where it does not follow."""
    if held is None or insn.sp_change is None:
        return None
    if insn.is_call:
        # One into the function's middle pushes what nothing may ever pop.
        return None if insn.target is not None and start < insn.target < end else held
    depth, rbp = held.depth + insn.sp_change, held.rbp
    name, is_rbp = insn.mnemonic.removesuffix("q"), insn.operands == "%rbp"
    written = written_registers(insn.raw, insn.address)
    if written is None:
        return None
    if name == "push" and is_rbp and not rbp:
        rbp = depth
    elif name == "pop" and is_rbp:
        rbp = 0 if rbp == held.depth else _LOST
    elif "rbp" in written and not rbp:
        rbp = _LOST
    if rbp > depth or depth < 8:
        return None
    return _Held(depth, rbp, (*held.path, insn.mnemonic) if insn.sp_change else held.path)


class UndefinedRows:
    """Functions that the build left out of ORC.

    Args:
        functions: what follows from their instructions.
    """

    def __init__(self, functions: UnstatedFunctions) -> None:
        self._functions = functions

    def at(self, lookup: Lookup) -> Derived | None:
        """The rule by instructions where the row is undefined; nothing where these do not tell."""
        found = self._functions.rule(lookup.ip, lookup.exact) if lookup.has_type(RowType.UNDEFINED) else None
        if found is None:
            return None
        why = LeftOutOfOrc(is_confirmed=found.source is Source.DWARF)
        return Derived(lookup.entry, found.rule, found.row, why, found.source, found.instructions)

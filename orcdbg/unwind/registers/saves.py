"""Where does a function keep its caller's registers, by its own instructions?

A function's text is followed from its entry along every direct branch. At each boundary it is known for each callee-saved
register in which places the caller's value still is: the register itself, and slots that it was pushed or moved to. Where
paths meet, only places that all of them agree on remain, and only paths count whose stack depth is the one of the ORC row
at every boundary. What a path that is not seen would add (a jump through a table) is thereby never taken for known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.formats.call_frame_row import Place, Row
from orcdbg.orc.cfa import CfaRule, sp_rule
from orcdbg.orc.rows import RowType
from orcdbg.orc.rules.source import Rules
from orcdbg.patches.code import Code
from orcdbg.x86.caller_registers import AT_ENTRY, IN_REGISTER, CallerRegisters
from orcdbg.x86.follow import DecodedText, follow
from orcdbg.x86.instructions import Instruction
from orcdbg.x86.registers import CALLEE_SAVED

MAX_FUNCTION = 1 << 16
"""Bytes of text."""

MAX_PARTS = 4
"""Parts of one function: what is split off counts as a part."""

MAX_VISITS = 1 << 17
"""Boundaries looked at in one function. The largest functions have some 20,000 instructions, and few are looked at twice."""

_RAN, _BUILT = frozenset((0,)), frozenset((1,))
_BOTH = _RAN | _BUILT
_MAY_BE_WARNING = "ud2"


class _State(NamedTuple):
    """What is known before an instruction, and in which texts one begins here: inside a patched place not both need to."""

    known: CallerRegisters
    texts: frozenset[int]


class _Part(NamedTuple):
    """One stretch of a function: its text as it ran and as built."""

    ran: DecodedText
    built: DecodedText

    def instructions(self, address: int) -> dict[Instruction, frozenset[int]]:
        """The instructions at an address, each with the texts that have it."""
        ran = self.ran.instruction(address)
        # Patched places are few: elsewhere the same bytes need not be decoded twice.
        is_same = self.ran.bytes_at(address) == self.built.bytes_at(address)
        built = ran if is_same else self.built.instruction(address)
        if ran == built:
            return {} if ran is None else {ran: _BOTH}
        return {insn: texts for insn, texts in ((ran, _RAN), (built, _BUILT)) if insn is not None}


@dataclass(frozen=True, slots=True)
class _Followed:
    """A function after it was followed: what is known at its boundaries, and the boundary of each call by where it returns."""

    states: dict[int, _State]
    calls: dict[int, int]


class FunctionSaves:
    """Functions of one kernel and its modules.

    Args:
        code: the kernel; where its text as built differs from the text as it ran, both are followed.
        rules: the rule at each boundary, patches counted.
    """

    def __init__(self, code: Code, rules: Rules) -> None:
        self._code = code
        self._rules = rules
        self._followed: dict[int, _Followed | None] = {}

    def row(self, ip: int, exact: bool) -> Row | None:
        """Where a frame's caller's registers are; None where its function's instructions do not tell.

        The row has no CFA: that is the ORC row's.
        """
        for start in self._starts(ip if exact else ip - 1):
            if start not in self._followed:
                self._followed[start] = self._follow(start)
            followed = self._followed[start]
            boundary = None if followed is None else ip if exact else followed.calls.get(ip)
            state = None if followed is None or boundary is None else followed.states.get(boundary)
            if state is not None:
                return _row(state.known)
        return None

    def _starts(self, address: int) -> list[int]:
        """Entries from which an address may be reached: its symbol's, or for a part split off (`.cold`) the whole's."""
        place = self._code.locate(address)
        if place is None or not place.is_text:
            return []
        name, cold, _ = place.symbol.partition(".cold")
        return self._code.starts_of(name)[:MAX_PARTS] if cold else [place.start]

    def part(self, start: int) -> _Part | None:
        """The text of the function, or of the part split off one, that begins at `start`."""
        place = self._code.locate(start)
        if place is None or place.start != start or place.size > MAX_FUNCTION:
            return None
        try:
            ran = self._code.text.read(start, place.size)
        except MemoryFault:
            return None
        try:
            built = self._code.built.read(start, place.size)
        except MemoryFault:
            built = ran
        return _Part(DecodedText(ran, start), DecodedText(built, start))

    def split_off(self, whole: int, target: int) -> _Part | None:
        """The part split off the function at `whole` that a jump to `target` goes to; None where that is something else."""
        place, function = self._code.locate(target), self._code.locate(whole)
        if place is None or function is None:
            return None
        name, cold, _ = place.symbol.partition(".cold")
        return self.part(place.start) if cold and name == function.symbol else None

    def _follow(self, start: int) -> _Followed | None:
        part = self.part(start)
        if part is None or self._rules.at(start, True).rule != sp_rule(8):
            return None
        return _follow(_SavesFlow(self, part), start)

    def row_rule(self, address: int) -> CfaRule | None:
        """The rule at a boundary inside a function; None where there is no ORC row, or one of saved registers or the like."""
        found = self._rules.at(address, True)
        return found.rule if found.entry is not None and found.entry.row.type is RowType.CALL else None

    def branch_targets(self, part: _Part) -> dict[int, int]:
        """Jumps that may be patched in."""
        return self._code.jumps_between(part.ran.start, part.ran.end)


def _follow(flow: _SavesFlow, start: int) -> _Followed:
    """Follows all paths from a function's entry: first those that are sure, then on from `ud2`, which a warning returns behind.

    What a sure path brings is left as it is: behind `ud2` may as well stand code that is reached otherwise.
    """
    states: dict[int, _State] = {}
    begin = {start: _State(AT_ENTRY, _BOTH)}
    while begin:
        found = follow(begin, flow, MAX_VISITS, settled=states)
        if not found.is_complete:
            return _Followed({}, flow.calls)  # never seen: then nothing is known
        states |= found.states
        begin = {address: state for address, state in flow.take_doubtful().items() if address not in states}
    return _Followed(states, flow.calls)


class _SavesFlow:
    """Follows the places of the caller's registers through one function, its parts split off included.

    Args:
        saves: what is known of the kernel's functions.
        part: the function as far as its symbol goes; a jump adds the parts that were split off.
    """

    def __init__(self, saves: FunctionSaves, part: _Part) -> None:
        self._saves = saves
        self._parts: list[_Part] = []
        self.calls: dict[int, int] = {}
        self._doubtful: dict[int, _State] = {}
        self._instructions: dict[int, dict[Instruction, frozenset[int]]] = {}
        self._patched: dict[int, int] = {}
        self._rules: dict[int, CfaRule | None] = {}
        self._add(part)

    def take_doubtful(self) -> dict[int, _State]:
        """What may hold behind each `ud2` that was passed since the last time."""
        found, self._doubtful = self._doubtful, {}
        return found

    def steps(self, address: int, state: _State) -> Iterator[tuple[int, _State]]:
        """See `Flow`."""
        for insn, texts in self._at(address).items():
            if not texts & state.texts:
                continue
            after = _State(state.known.after(insn), texts)

            if insn.is_call:
                self.calls[insn.end] = address
            elif insn.target is not None and self._is_inside(insn.target):
                yield insn.target, after

            patched_in = self._patched.get(address)
            if patched_in is not None and self._is_inside(patched_in):
                yield patched_in, after

            if not insn.ends_flow:
                yield insn.end, after
            elif insn.mnemonic == _MAY_BE_WARNING:
                self._doubtful[insn.end] = after

    def arrive(self, address: int, state: _State) -> _State | None:
        """See `Flow`: the ORC row at a boundary tells depth or frame, and no path counts that contradicts it."""
        if address not in self._rules:
            self._rules[address] = self._saves.row_rule(address)
        rule = self._rules[address]
        if rule is None:
            return None

        known = state.known
        if rule.counts_from_sp:
            if known.depth not in (None, rule.offset):
                return None
            return _State(known._replace(depth=rule.offset), state.texts)
        if rule.counts_from_bp:
            if known.frame not in (None, rule.offset):
                return None
            return _State(known._replace(frame=rule.offset), state.texts)
        return _State(known._replace(depth=None, frame=None), state.texts)

    def meet(self, known: _State, arrived: _State) -> _State:
        """See `Flow`."""
        return _State(known.known.meet(arrived.known), known.texts | arrived.texts)

    def _at(self, address: int) -> dict[Instruction, frozenset[int]]:
        if address not in self._instructions:
            part = next((part for part in self._parts if part.ran.holds(address)), None)
            self._instructions[address] = {} if part is None else part.instructions(address)
        return self._instructions[address]

    def _add(self, part: _Part) -> None:
        self._parts.append(part)
        self._patched |= self._saves.branch_targets(part)

    def _is_inside(self, target: int) -> bool:
        """Whether a jump stays in the function; one that leads into a part split off adds that."""
        if any(part.ran.holds(target) for part in self._parts):
            return True
        part = self._saves.split_off(self._parts[0].ran.start, target) if len(self._parts) <= MAX_PARTS else None
        if part is None:
            return False
        self._add(part)
        return True


def _row(known: CallerRegisters) -> Row:
    """A state in the terms of call frame information. A slot is named before the register: it stays as it is."""
    row = Row()
    for register, held in zip(CALLEE_SAVED, known.places, strict=True):
        slots = held - {IN_REGISTER}
        if slots:
            row.saved[register] = Place("cfa", max(slots))
        elif not held:
            row.saved[register] = None
    return row

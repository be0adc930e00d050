"""Where does a function keep its caller's registers, by its own instructions?

A function's text is followed from its entry along every direct branch. At each boundary it is known for each callee-saved
register in which places the caller's value still is: the register itself, and slots that it was pushed or moved to. Where
paths meet, only places that all of them agree on remain, and only paths count whose stack depth is the one of the ORC row
at every boundary. What a path that is not seen would add (a jump through a table) is thereby never taken for known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from orcdbg.base.errors import MemoryFault
from orcdbg.formats.callframe import Place, Row
from orcdbg.orc.cfa import sp_rule
from orcdbg.orc.rows import RowType
from orcdbg.orc.rules.source import Rules
from orcdbg.patches.code import Code
from orcdbg.x86.decode import Instruction, decode_one, written_registers

CALLEE_SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")
MAX_FUNCTION, MAX_PARTS, MAX_VISITS = 1 << 16, 4, 1 << 17
IN_REGISTER = 0  # as a place; slots are negative: offsets from the CFA
_BOTH = frozenset((0, 1))  # the texts: as it ran, and as built

_MEMORY = re.compile(r"(-?(?:0x[0-9a-f]+|\d+))?\(%(rsp|rbp)\)")
_SIZED = re.compile(
    r"(?:lock )?(?:mov|add|adc|sub|sbb|and|or|xor|inc|dec|neg|not|xchg|xadd|cmpxchg|sh[lr]|sa[lr]|ro[lr])([bwlq])"
)
_BIT = re.compile(r"(?:lock )?bt[src]([wlq])")
_SET = re.compile(r"setn?(?:[abglopsez]|[abgl]e|[cp]|p[eo])")
_OTHER_SIZES = {"sgdt": 10, "sidt": 10, "movaps": 16, "movups": 16, "movdqa": 16, "movdqu": 16, "stmxcsr": 4}
_MORE_THAN_ANY_FRAME = 1 << 31
# Instructions whose one or last operand in memory is only read.
_NO_STORE = re.compile(
    r"(?:cmp|test|bt|push|call|i?mul|i?div)[bwlq]?|(?:jmp|nop|lea|prefetch|fld|fild|lgdt|lidt|verw|ldmxcsr|invlpg|clflush).*"
)
_MAY_BE_WARNING = "ud2"

Places = frozenset[int]


@dataclass(frozen=True, slots=True)
class _State:
    """What is known before an instruction.

    `depth` is the CFA less rsp and `frame` the CFA less rbp, None where it is not known; `places` is in the order of
    CALLEE_SAVED; `texts` are those in which an instruction begins here: inside a patched place not both need to.
    """

    depth: int | None
    frame: int | None
    places: tuple[Places, ...]
    texts: frozenset[int] = _BOTH

    def meet(self, other: _State) -> _State:
        """What both know."""
        return _State(
            self.depth if self.depth == other.depth else None,
            self.frame if self.frame == other.frame else None,
            tuple(mine & theirs for mine, theirs in zip(self.places, other.places, strict=True)),
            self.texts | other.texts,
        )


_ENTRY = _State(8, None, (frozenset((IN_REGISTER,)),) * len(CALLEE_SAVED))


def _without_slots(places: tuple[Places, ...], lost: Callable[[int], bool]) -> tuple[Places, ...]:
    return tuple(frozenset(p for p in held if p == IN_REGISTER or not lost(p)) for held in places)


def _changed(places: tuple[Places, ...], register: str, held: Places) -> tuple[Places, ...]:
    at = CALLEE_SAVED.index(register)
    return (*places[:at], held, *places[at + 1 :])


class _Step:
    """What one instruction does to a state."""

    def __init__(self, insn: Instruction, state: _State) -> None:
        self._insn = insn
        self._operands = _split(insn.operands)
        self._depth, self._frame, self._places = state.depth, state.frame, state.places

    def after(self) -> _State:
        """The state behind the instruction."""
        name = self._insn.mnemonic.removesuffix("q")
        if name == "push":
            self._push()
        elif name == "pop" and self._register(0):
            self._pop(self._register(0))
        elif name == "leave":
            self._depth, self._frame = self._frame, None
            self._pop("rbp")
        elif not self._insn.is_call:
            self._other(name)
        depth = self._depth
        if depth is not None:
            # What is below the stack pointer may be overwritten at any time.
            self._places = _without_slots(self._places, lambda slot: slot < -depth)
        return _State(self._depth, self._frame, self._places)

    def _register(self, index: int) -> str:
        """An operand that is a callee-saved register; empty for any other."""
        name = self._operands[index][1:] if index < len(self._operands) else ""
        return name if name in CALLEE_SAVED and self._operands[index][0] == "%" else ""

    def _held(self, register: str) -> Places:
        return self._places[CALLEE_SAVED.index(register)]

    def _slot(self, operand: str) -> int | None:
        """A memory operand's offset from the CFA; None where that is not known."""
        found = _MEMORY.fullmatch(operand)
        base = None if found is None else self._depth if found[2] == "rsp" else self._frame
        return None if found is None or base is None else int(found[1] or "0", 0) - base

    def _store(self, slot: int, register: str, size: int = 8) -> None:
        """`size` bytes are written to a slot."""
        self._places = _without_slots(self._places, lambda other: slot - 8 < other < slot + size)
        if register and size == 8 and IN_REGISTER in self._held(register):
            self._places = _changed(self._places, register, self._held(register) | {slot})

    def _load(self, slot: int | None, register: str) -> None:
        """A callee-saved register is read from a slot."""
        held = self._held(register) - {IN_REGISTER}
        self._places = _changed(self._places, register, held | {IN_REGISTER} if slot in held else held)
        if register == "rbp":
            self._frame = None

    def _push(self) -> None:
        if self._insn.sp_change is None or self._depth is None:
            self._depth = None
            return
        self._depth += self._insn.sp_change
        self._store(-self._depth, self._register(0))

    def _pop(self, register: str) -> None:
        self._load(None if self._depth is None else -self._depth, register)
        self._depth = None if self._depth is None else self._depth - 8

    def _other(self, name: str) -> None:
        operands = self._operands
        last = operands[-1] if operands else ""
        written = written_registers(self._insn.raw, self._insn.address)
        if written is None:
            self._depth = self._frame = None
            self._places = (frozenset(),) * len(CALLEE_SAVED)
            return
        slot = self._slot(last)
        if slot is not None and not _NO_STORE.fullmatch(name):
            self._store(slot, self._register(0) if name == "mov" else "", _stored(self._insn.mnemonic, operands[0]))
        target = self._register(len(operands) - 1) if operands else ""
        if name == "mov" and target and self._slot(operands[0]) is not None:
            self._load(self._slot(operands[0]), target)
            return
        for register in written & set(CALLEE_SAVED):
            self._load(None, register)
        if "rbp" in written:
            self._frame = self._depth if name == "mov" and operands[0] == "%rsp" and last == "%rbp" else None
        if "rsp" in written:
            self._move_stack(name)

    def _move_stack(self, name: str) -> None:
        change = self._insn.sp_change
        first = self._operands[0] if self._operands else ""
        if change is not None:
            self._depth = None if self._depth is None else self._depth + change
        elif name == "mov" and first == "%rbp":
            self._depth = self._frame
        elif name == "lea" and self._slot(first) is not None:
            self._depth = -(self._slot(first) or 0)
        else:
            self._depth = None


def _stored(mnemonic: str, first: str) -> int:
    """Bytes that an instruction with a destination in memory writes, at most: more than any frame has where not known.

    `first` is its first operand: a bit's number in a register may be that of a bit far from the operand in memory.
    """
    name = mnemonic.removesuffix("q")
    found = _SIZED.fullmatch(mnemonic) or (_BIT.fullmatch(mnemonic) if first.startswith("$") else None)
    if found is not None:
        return {"b": 1, "w": 2, "l": 4, "q": 8}[found[1]]
    return 1 if _SET.fullmatch(mnemonic) else _OTHER_SIZES.get(name, _MORE_THAN_ANY_FRAME)


def _split(operands: str) -> list[str]:
    """Operands of AT&T syntax; commas inside parentheses do not count."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", operands)] if operands else []


@dataclass(frozen=True, slots=True)
class _Followed:
    """A function after it was followed: states before instructions, and where each call returns to."""

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
                return _row(state)
        return None

    def _starts(self, address: int) -> list[int]:
        """Entries from which an address may be reached: its symbol's, or for a part split off (`.cold`) the whole's."""
        place = self._code.locate(address)
        if place is None or not place.is_text:
            return []
        name, cold, _ = place.symbol.partition(".cold")
        return self._code.starts_of(name)[:MAX_PARTS] if cold else [place.start]

    def _parts(self, start: int) -> list[tuple[int, int, bytes, bytes]]:
        """[start, end), text and built text of a function, more of which comes with jumps into its `.cold`."""
        place = self._code.locate(start)
        if place is None or place.start != start or place.size > MAX_FUNCTION:
            return []
        try:
            text = self._code.text.read(start, place.size)
        except MemoryFault:
            return []
        try:
            built = self._code.built.read(start, place.size)
        except MemoryFault:
            built = text
        return [(start, start + place.size, text, built)]

    def _follow(self, start: int) -> _Followed | None:
        parts = self._parts(start)
        effective = self._rules.at(start, True)
        if not parts or effective.rule != sp_rule(8):
            return None
        walk = _Walk(self, parts)
        walk.run(start)
        return _Followed(walk.states, walk.calls)

    def add_part(self, parts: list[tuple[int, int, bytes, bytes]], target: int) -> bool:
        """Adds the split-off part that a jump goes to; False where the target is not one."""
        place, whole = self._code.locate(target), self._code.locate(parts[0][0])
        if place is None or whole is None or len(parts) > MAX_PARTS:
            return False
        if place.symbol.partition(".cold")[0] != whole.symbol or ".cold" not in place.symbol:
            return False
        found = self._parts(place.start)
        parts += found
        return bool(found)

    def arrival(self, state: _State, address: int) -> _State | None:
        """The state where it arrives at a boundary; None where the ORC row there contradicts it."""
        found = self._rules.at(address, True)
        rule = found.rule
        if rule is None or found.entry is None or found.entry.row.type is not RowType.CALL:
            return None
        if rule.counts_from_sp:
            if state.depth not in (None, rule.offset):
                return None
            return replace(state, depth=rule.offset)
        if rule.counts_from_bp:
            if state.frame not in (None, rule.offset):
                return None
            return replace(state, frame=rule.offset)
        return replace(state, depth=None, frame=None)

    def branch_targets(self, start: int, end: int) -> dict[int, int]:
        """Jumps that may be patched in."""
        return self._code.jumps_between(start, end)


class _Walk:
    """One function being followed."""

    def __init__(self, saves: FunctionSaves, parts: list[tuple[int, int, bytes, bytes]]) -> None:
        self._saves, self._parts = saves, parts
        self.states: dict[int, _State] = {}
        self.calls: dict[int, int] = {}
        self._instructions: dict[int, dict[Instruction, frozenset[int]]] = {}
        self._patched: dict[int, int] = {}
        for start, end, _, _ in parts:
            self._patched |= saves.branch_targets(start, end)

    def run(self, start: int) -> None:
        """Follows all paths: first those that are sure, then on from `ud2`, which a warning returns behind."""
        doubtful = self._flow({start: _ENTRY}, set())
        sure = set(self.states)
        fresh = {address: state for address, state in doubtful.items() if address not in sure}
        while fresh:
            doubtful = self._flow(fresh, sure)
            sure = set(self.states)
            fresh = {address: state for address, state in doubtful.items() if address not in sure}

    def _flow(self, begin: dict[int, _State], fixed: set[int]) -> dict[int, _State]:
        """Follows from states until nothing changes, leaving those at `fixed` alone; what may follow a `ud2`."""
        pending, doubtful, visits = dict(begin), dict[int, _State](), 0
        while pending and visits < MAX_VISITS:
            visits += 1
            address, state = pending.popitem()
            arrived = self._saves.arrival(state, address)
            if arrived is None or address in fixed:
                continue
            known = self.states.get(address)
            met = arrived if known is None else known.meet(arrived)
            if met == known:
                continue
            self.states[address] = met
            for target, after, sure in self._edges(address, met):
                if sure:
                    pending[target] = after if target not in pending else pending[target].meet(after)
                else:
                    doubtful[target] = after
        if pending:
            self.states.clear()  # never seen: then nothing is known
        return doubtful

    def _decoded(self, address: int) -> dict[Instruction, frozenset[int]]:
        """The instructions at an address, each with the texts that have it."""
        if address not in self._instructions:
            found: dict[Instruction, frozenset[int]] = {}
            for start, end, *texts in self._parts:
                if start <= address < end:
                    windows = [text[address - start : address - start + 15] for text in texts]
                    ran = decode_one(windows[0], address)
                    built = ran if windows[0] == windows[1] else decode_one(windows[1], address)
                    found = {insn: frozenset((which,)) for which, insn in enumerate((ran, built)) if insn is not None}
                    if ran is not None and ran == built:
                        found[ran] = _BOTH
            self._instructions[address] = found
        return self._instructions[address]

    def _edges(self, address: int, state: _State) -> Iterator[tuple[int, _State, bool]]:
        """Where execution goes from an address, with which state, and whether it surely can."""
        for insn, texts in self._decoded(address).items():
            if not texts & state.texts:
                continue
            after = replace(_Step(insn, state).after(), texts=texts)
            if insn.is_call:
                self.calls[insn.end] = address
            elif insn.target is not None and self._inside(insn.target):
                yield insn.target, after, True
            if address in self._patched and self._inside(self._patched[address]):
                yield self._patched[address], after, True
            if not insn.ends_flow:
                yield insn.end, after, True
            elif insn.mnemonic == _MAY_BE_WARNING:
                yield insn.end, after, False

    def _inside(self, target: int) -> bool:
        if any(start <= target < end for start, end, _, _ in self._parts):
            return True
        before = len(self._parts)
        if not self._saves.add_part(self._parts, target):
            return False
        start, end, _, _ = self._parts[before]
        self._patched |= self._saves.branch_targets(start, end)
        return True


def _row(state: _State) -> Row:
    """A state in the terms of call frame information. A slot is named before the register: it stays as it is."""
    row = Row()
    for register, held in zip(CALLEE_SAVED, state.places, strict=True):
        slots = held - {IN_REGISTER}
        if slots:
            row.saved[register] = Place("cfa", max(slots))
        elif not held:
            row.saved[register] = None
    return row

"""Which row would objtool have written for each instruction of a function, by these instructions alone?

Execution is followed from the function's entry, where the CFA is 8 bytes above the stack pointer, along all branches inside
it, the parts that were split off it (`.cold`) included. Text is taken as it ran, so that what was patched in counts as it is.
Where two paths meet with different stack pointers the row is in doubt, unless a frame pointer tells the CFA; and so it is
where a path was guessed: behind a jump by a table that could not be read.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.base.reasons import Reason
from orcdbg.base.sizes import U64
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule, Indirection
from orcdbg.orc.reasons import BehindUnreadTable, DepthsDiffer, FollowedTooLong, WayUnknown
from orcdbg.orc.returns_never import NEVER_RETURN
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.patches.code import Code
from orcdbg.x86.branches import INT3
from orcdbg.x86.instructions import Outlined, decode_one, outline
from orcdbg.x86.stack_words import WORD, Distance, Goes, KnownWords, Understood, understand, words_after

MAX_FUNCTION = 1 << 17  # bytes of text; the longest of the lab's kernels has 40 kB
MAX_VISITS = (
    1 << 17
)  # of boundaries; a state only ever loses words, but a hostile text may have it lose them one by one
MAX_TABLE = 1 << 11  # entries of a jump table
MAX_PARTS = 8
MAX_LABELS = 8  # one behind the other that code runs into, from a function on

CFA = "cfa"
RETURN_SLOT, RETURN = Distance(CFA, -WORD), Distance("return address", 0)
_LONGEST = 15
_ALIGNED = 16
_PADDING = ("nop", "int3", "xchgw", "data16")
# Labels that a CPU comes to by itself, with the stack of the code that they stand in.
_LABELS = ("vmx_vmexit",)
_TABLE = re.compile(r"\*?(-?0x[0-9a-f]+|-?\d+)\(, ?%(\w+), ?8\)")
_BASE_OF = {"rbp": OrcRegister.BP, "r10": OrcRegister.R10, "r13": OrcRegister.R13, "rdx": OrcRegister.DX,
            "rdi": OrcRegister.DI, "rax": OrcRegister.AX}  # fmt: skip
# Of the row's second half: the caller's rbp is in no place that is known.
LOST_RBP = OrcRegister.AX


class DerivedRow(NamedTuple):
    """What holds at an instruction by those before it; `doubt` says why that may be another's."""

    row: OrcRow
    rule: CfaRule | None
    doubt: Reason | None


class FunctionText:
    """Instructions of one function, with those that a table of jumps or a fault leads to inside it.

    Args:
        code: the kernel.
        place: the function.
        parts: what else belongs to it, where a jump may go.
    """

    def __init__(self, code: Code, place: Location) -> None:
        self.code = code
        self.start, self.size = place.start, min(place.size, MAX_FUNCTION)
        self._name = place.symbol
        self._insns: dict[int, Outlined | None] = {}
        self._ranges: list[tuple[int, int, bytes]] = []
        self.other_ways: dict[int, list[int]] = {}
        self._add(self.start, self.size)

    def _add(self, start: int, size: int) -> bool:
        data = text_of(self.code, start, size)
        if data is None:
            return False
        self._ranges.append((start, start + size, data))
        for insn in outline(data, start):
            self._insns[insn[0]] = Outlined(*insn)
        for address, target in self.code.jumps_between(start, start + size).items():
            self.other_ways.setdefault(address, []).append(target)
        for address, target in _faults_between(self.code, start, start + size):
            self.other_ways.setdefault(address, []).append(target)
        return True

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """[start, end) of the function, and of its parts as far as they were met."""
        return [(start, end) for start, end, _ in self._ranges]

    def holds(self, address: int) -> bool:
        """Whether an address is in the function; one in a part split off it is, once a jump leads there."""
        if any(start <= address < end for start, end, _ in self._ranges):
            return True
        if len(self._ranges) > MAX_PARTS:
            return False
        place = self.code.locate(address)
        if place is None or ".cold" not in place.symbol or place.symbol.partition(".cold")[0] != self._whole_name:
            return False
        return place.size <= MAX_FUNCTION and self._add(place.start, place.size)

    @property
    def _whole_name(self) -> str:
        return self._name.partition(".cold")[0]

    def instruction(self, address: int) -> Outlined | None:
        """The instruction at an address; None where the bytes are none."""
        if address not in self._insns:
            self._insns[address] = self._decoded(address)
        insn = self._insns[address]
        return insn if insn is None or insn.mnemonic != "int3" else self._under_probe(insn)

    def _decoded(self, address: int) -> Outlined | None:
        """An instruction off the straight way through the text, or one that capstone does not name."""
        piece = next((one for one in self._ranges if one[0] <= address < one[1]), None)
        if piece is None:
            return None
        insn = decode_one(piece[2][address - piece[0] :][:_LONGEST], address)
        return None if insn is None else Outlined(address, insn.size, insn.mnemonic, insn.operands)

    def _under_probe(self, insn: Outlined) -> Outlined:
        """What an int3 stands for that was put there while the kernel ran."""
        try:
            built = self.code.built.read(insn.address, _LONGEST)
        except MemoryFault:
            return insn
        if built[:1] == INT3:
            return insn
        found = decode_one(built, insn.address)
        return insn if found is None else Outlined(insn.address, found.size, found.mnemonic, found.operands)

    def others_from(self, address: int) -> list[int]:
        """Where else execution may go from an instruction: by a jump that may be patched in, or when it faults."""
        return [target for target in self.other_ways.get(address, ()) if self.holds(target)]

    def table_targets(self, insn: Outlined) -> list[int] | None:
        """Where an indirect jump goes inside the function; None where its table was not read."""
        found = _TABLE.fullmatch(insn.operands)
        if found is None:
            return None
        table = int(found[1], 0) & U64
        return self._table(self.code.memory, table) or self._table(self.code.built, table) or None

    def _table(self, space: AddressSpace, table: int) -> list[int]:
        """The targets in a table of jumps, up to the first word that leads out of the function."""
        targets: list[int] = []
        for number in range(MAX_TABLE):
            try:
                word = int.from_bytes(space.read(table + 8 * number, 8), "little")
            except MemoryFault:
                break
            if not self.holds(word):
                break
            targets.append(word)
        return targets


def text_of(code: Code, start: int, size: int) -> bytes | None:
    """Text as it ran; of init text, whose memory the boot has given back, as built. None where it is not to be had."""
    spaces = (code.text,) if code.is_lasting(start) else (code.built, code.text)
    for space in spaces:
        try:
            return space.read(start, size)
        except MemoryFault:
            continue
    return None


def _faults_between(code: Code, start: int, end: int) -> list[tuple[int, int]]:
    """Instructions in [start, end) that may fault, each with where the CPU goes on."""
    faulting, landings = code.faults.entries
    inside = (faulting >= start) & (faulting < end)
    return list(zip(faulting[inside].tolist(), landings[inside].tolist(), strict=True))


class TracedPath(NamedTuple):
    """What is known at a boundary, and whether the way there was guessed."""

    words: KnownWords
    is_guessed: bool = False


class Tracing:
    """Follows one piece of text from boundaries where what is known is given.

    Args:
        text: the text.
        never_returns: whether what a call leads to never comes back.
        after_call: what is known behind the calls that do not leave the stack as it was; None for others.
        settle: makes one state of what may be said in two ways; see `entry_derivation`.
    """

    def __init__(
        self,
        text: FunctionText,
        never_returns: Callable[[int], bool],
        after_call: Callable[[int | None, KnownWords], KnownWords | None] = lambda target, words: None,
        settle: Callable[[KnownWords], KnownWords] = lambda words: words,
    ) -> None:
        self._text = text
        self._never_returns = never_returns
        self._after_call = after_call
        self._settle = settle
        self.known: dict[int, TracedPath] = {}
        self.has_unread_table = False
        self.is_whole = True
        self._settled: frozenset[int] = frozenset()
        self._visits = 0

    def follow(self, begin: Mapping[int, KnownWords], is_guessed: bool = False) -> None:
        """Goes on from boundaries; behind a `ud2` only where no other way leads, for a warning comes back there.

        What an earlier walk has come to is left as it is.
        """
        todo = [(address, TracedPath(words, is_guessed)) for address, words in begin.items()]
        while todo:
            self._settled = frozenset(self.known)
            later: list[tuple[int, TracedPath]] = []
            while todo:
                address, path = todo.pop()
                for target, after, is_later in self._along(address, path):
                    (later if is_later else todo).append((target, after))
            todo = [(address, path) for address, path in later if address not in self.known]

    def _arrive(self, address: int, path: TracedPath) -> TracedPath | None:
        """What is known at a boundary now; None where the path brings nothing new."""
        if address in self._settled:
            return None
        known = self.known.get(address)
        if known is not None:
            met = TracedPath(known.words.meet(path.words), known.is_guessed or path.is_guessed)
            if met == known:
                return None
            path = met
        self._visits += 1
        if self._visits > MAX_VISITS:
            self.is_whole = False
            return None
        self.known[address] = path
        return path

    def _along(self, address: int, path: TracedPath) -> Iterator[tuple[int, TracedPath, bool]]:
        """Follows instructions up to the first that does not go on; the ways that lead off meanwhile."""
        while (insn := self._text.instruction(address)) is not None and self._text.holds(address):
            arrived = self._arrive(address, path)
            if arrived is None:
                return
            does = understand(insn.mnemonic, insn.operands)
            for target in self._text.others_from(address):
                yield target, arrived, False

            if does.goes is Goes.CALL:
                inside = does.target
                if inside is not None and self._is_inside(inside):
                    # One into the middle only pushes: it fills the CPU's stack of return addresses, or asks where it is.
                    yield inside, arrived._replace(words=_pushed(arrived.words)), False
                    return
                if inside is not None and self._never_returns(inside):
                    return
                special = self._after_call(inside, arrived.words)
                after = words_after(insn, arrived.words) if special is None else special
            else:
                after = words_after(insn, arrived.words)

            after = after if after is arrived.words else self._settle(after)
            path = arrived if after is arrived.words else arrived._replace(words=after)
            yield from self._ways(insn, does, path)
            if does.goes in (Goes.JUMP, Goes.RETURN, Goes.STOP):
                if address in self._text.other_ways:
                    yield insn.end, path, False
                return
            address = insn.end

    def _is_inside(self, target: int) -> bool:
        """Whether a call goes into the middle of the text, where no symbol begins."""
        start = self._text.start
        if not start < target < start + self._text.size:
            return False
        place = self._text.code.locate(target)
        return place is not None and place.start != target

    def _ways(self, insn: Outlined, does: Understood, path: TracedPath) -> Iterator[tuple[int, TracedPath, bool]]:
        if does.goes in (Goes.JUMP, Goes.BRANCH) and does.target is not None:
            if self._text.holds(does.target):
                yield does.target, path, False
        elif does.goes is Goes.JUMP:
            targets = self._text.table_targets(insn)
            if targets is None:
                self._unread(insn, path)
            for target in targets or ():
                yield target, path, False
        elif does.goes is Goes.STOP and insn.mnemonic.startswith("ud"):
            yield insn.end, path, True

    def _unread(self, insn: Outlined, path: TracedPath) -> None:
        """A jump by a register with more on the stack than the return address goes by a table: no tail call is made so."""
        sp = path.words.sp
        if sp != Distance(CFA, -WORD):
            self.has_unread_table = True


def _pushed(words: KnownWords) -> KnownWords:
    sp = words.sp
    return words if sp is None else words.stored(sp.plus(-WORD), None).with_register("rsp", sp.plus(-WORD))


def at_entry() -> KnownWords:
    """At a function's first instruction."""
    return KnownWords({"rsp": RETURN_SLOT, "rbp": Distance("rbp", 0)}, {RETURN_SLOT: RETURN})


def row_of(
    words: KnownWords, name: str = CFA, at: int = 0, kind: RowType = RowType.CALL
) -> tuple[OrcRow, CfaRule] | None:
    """The row that finds the value `name` + `at`, the CFA or where registers were saved; None where nothing leads there.

    The stack pointer comes first, unless paths brought different ones; then frame pointers; then copies on the stack.
    """
    found = _base(words, name, at)
    if found is None:
        return None
    rule, register = found
    bp_reg, bp_offset = _rbp(words, name, at)
    return OrcRow(register, rule.offset, bp_reg, bp_offset, kind, kind is not RowType.CALL), rule


def _base(words: KnownWords, name: str, at: int) -> tuple[CfaRule, OrcRegister] | None:
    sp = words.sp
    by_sp = None if sp is None or sp.name != name else (CfaRule(OrcRegister.SP, at - sp.offset), OrcRegister.SP)
    if by_sp is not None and not words.is_disputed:
        return by_sp
    for register, base in _BASE_OF.items():
        value = words.registers.get(register)
        if value is not None and value.name == name:
            return CfaRule(base, at - value.offset), base
    frame = words.registers.get("rbp")
    if frame is not None:
        for place, value in words.stack.items():
            if place.name == frame.name and value == Distance(name, at):
                rule = CfaRule(OrcRegister.BP, place.offset - frame.offset, Indirection.WORD)
                return rule, OrcRegister.BP_INDIRECT
    top = None if sp is None else words.stack.get(sp)
    if top is not None and top.name == name and not words.is_disputed:
        rule = CfaRule(OrcRegister.SP, at - top.offset, Indirection.BASE)
        return rule, OrcRegister.SP_INDIRECT
    return by_sp


def _rbp(words: KnownWords, name: str, at: int) -> tuple[OrcRegister, int]:
    """The row's second half: where the caller's rbp is."""
    own = Distance("rbp", 0)
    if words.registers.get("rbp") == own:
        return OrcRegister.UNDEFINED, 0
    frame = words.registers.get("rbp")
    for place, value in words.stack.items():
        if value != own:
            continue
        if place.name == name:
            return OrcRegister.PREV_SP, place.offset - at
        if frame is not None and place.name == frame.name:
            return OrcRegister.BP, place.offset - frame.offset
    return LOST_RBP, 0


class FunctionRows:
    """One function's rows, by address.

    Args:
        tracing: the finished walk over its text.
        text: the text.
        row: what row a state stands for.
    """

    def __init__(
        self, tracing: Tracing, text: FunctionText, row: Callable[[KnownWords], tuple[OrcRow, CfaRule | None] | None]
    ) -> None:
        self._tracing = tracing
        self._text = text
        self._row = row
        self._starts = sorted(tracing.known)
        self._rows: dict[int, DerivedRow | None] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def instruction_at(self, address: int) -> int | None:
        """Where the followed instruction begins that covers an address."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        insn = self._text.instruction(self._starts[index])
        return self._starts[index] if insn is not None and insn.address <= address < insn.end else None

    def at(self, address: int) -> DerivedRow | None:
        """The row at the instruction that covers an address; None where none was come to, or nothing tells."""
        start = self.instruction_at(address)
        if start is None:
            return None
        if start not in self._rows:
            self._rows[start] = self._derived(self._tracing.known[start])
        return self._rows[start]

    def _derived(self, path: TracedPath) -> DerivedRow | None:
        found = self._row(path.words)
        if found is None:
            return None
        row, rule = found
        return DerivedRow(row, rule, self._doubt(path, rule))

    def _doubt(self, path: TracedPath, rule: CfaRule | None) -> Reason | None:
        if not self._tracing.is_whole:
            return FollowedTooLong()
        if path.words.is_disputed and (rule is None or rule.base is OrcRegister.SP):
            return DepthsDiffer()
        if path.is_guessed:
            return WayUnknown()
        if self._tracing.has_unread_table:
            return BehindUnreadTable()
        return None


class NeverReturning:
    """Which functions never come back: those that objtool lists, and those whose text has no way back to the caller."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._known: dict[int, bool] = {}

    def __call__(self, target: int) -> bool:
        """Whether a call of `target` never comes back."""
        if target not in self._known:
            place = self._code.locate(target)
            self._known[target] = place is not None and place.start == target and self._is_one(place)
        return self._known[target]

    def _is_one(self, place: Location) -> bool:
        name = re.sub(r"(\.(isra|constprop|part)\.\d+)+$", "", place.symbol)
        return name in NEVER_RETURN or self._has_no_way_back(place)

    def _has_no_way_back(self, place: Location) -> bool:
        """Whether no instruction returns or jumps out of a function, and its text does not run on into what follows."""
        if not 0 < place.size <= MAX_FUNCTION >> 3:
            return False
        data = text_of(self._code, place.start, place.size)
        if data is None:
            return False
        end, last = place.start, Goes.ON
        for address, size, mnemonic, operands in outline(data, place.start):
            end = address + size
            does = understand(mnemonic, operands)
            if does.goes is Goes.RETURN:
                return False
            is_out = does.target is None or not place.start <= does.target < place.start + place.size
            if does.goes in (Goes.JUMP, Goes.BRANCH) and is_out:
                return False
            last = last if mnemonic.startswith(_PADDING) else Goes.STOP if mnemonic.startswith("ud") else does.goes
        return end >= place.start + place.size and last in (Goes.JUMP, Goes.STOP)


def row_of_function(words: KnownWords) -> tuple[OrcRow, CfaRule] | None:
    """The row in code that is called; None also where the return address is not in its place, or was taken from there."""
    sp = words.sp
    is_taken = sp is not None and sp.name == CFA and sp.offset > -WORD
    return None if is_taken or words.stack.get(RETURN_SLOT) != RETURN else row_of(words)


def _runs_into(code: Code, start: int) -> bool:
    """Whether the code before an address goes on there: then its symbol is a label inside of assembly, and no function's.

    Asked where `start` is not aligned as compilers align functions.
    """
    before = code.locate(start - 1) if start % _ALIGNED else None
    if before is None or before.start + before.size != start or before.size > MAX_FUNCTION >> 3:
        return False
    data = text_of(code, before.start, before.size)
    insns = [*outline(data or b"", before.start)]
    last = insns[-1] if insns else None
    if last is None or last[0] + last[1] != start or last[2].startswith(_PADDING):
        return False
    return understand(last[2], last[3]).goes in (Goes.ON, Goes.BRANCH)


def _arrives_as_called(code: Code, label: Location, never_returns: NeverReturning) -> bool:
    """Whether the code that runs into a label arrives with the stack and rbp that a call of the label would give it."""
    first = label
    for _ in range(MAX_LABELS):
        before = code.locate(first.start - 1)
        if before is None or before.symbol in _LABELS:
            return False
        first = before
        if not _runs_into(code, first.start):
            break
    else:
        return False

    text = FunctionText(code, first._replace(size=label.start + label.size - first.start))
    if not text.ranges:
        return False
    tracing = Tracing(text, never_returns)
    tracing.follow({first.start: at_entry()})
    path = tracing.known.get(label.start)
    if path is None or path.words.is_disputed or not tracing.is_whole:
        return False
    return row_of_function(path.words) == row_of_function(at_entry())


def derive_function(code: Code, place: Location, never_returns: NeverReturning) -> FunctionRows | None:
    """The rows of the function at `place`; None where its text is not to be had."""
    text = FunctionText(code, place)
    if not text.ranges:
        return None
    tracing = Tracing(text, never_returns)
    is_label = _runs_into(code, place.start) and not _arrives_as_called(code, place, never_returns)
    tracing.follow({place.start: at_entry()}, is_guessed=place.symbol in _LABELS or is_label)
    return FunctionRows(tracing, text, row_of_function)

"""Stops inside error_entry and its like: the caller is in rsi for a while, and then below the registers that it has saved.

Crosses orc/rules/entry_code and the walker: the rule gives a place, and the walk reads the caller there.
"""

from __future__ import annotations

import pytest

from orcdbg.orc.reasons import CallerInUnknownRegister
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.entry_code import SavingFunctions
from orcdbg.orc.table import OrcEntry
from orcdbg.unwind.frame import FrameKind, Mark
from orcdbg.unwind.reasons import RegisterHoldsNoReturn
from orcdbg.unwind.walker import Walk, WalkEnd
from orcdbg.x86.instructions import decode
from tests.build.stacks import END, FUNCTION, IRQ, STACK, TEXT, TOP, World, call

SAVES = bytes.fromhex("56488b74240848897c2408525150415041514152415353554154415541564157")
AGAIN = bytes.fromhex("56")
CLEARS = bytes.fromhex("31d231c94531c0")
ENTRY = TEXT + FUNCTION
BACK = TEXT + 8  # behind the call of error_entry
BEFORE = TOP - 0x200  # the stack pointer of its caller; the error code is there, and what the CPU saved above it
TASK = TOP - 192
REGISTERS = {
    name: 0x1000 + number for number, name in enumerate(("rdi", "rdx", "rcx", "rax", "r8", "r9", "r10", "r11"))
}
REGISTERS |= {"rbx": 0x2000, "rbp": 0x2001, "r12": 0x2002, "r13": 0x2003, "r14": 0x2004, "r15": 0x2005}


class InErrorEntry(World):
    """error_entry, called from function 0, with rows as kernels have them: `late` as from 6.0 on, else as in 5.10."""

    def __init__(self, late: bool, code: bytes = SAVES + AGAIN + CLEARS) -> None:
        super().__init__(
            {
                0: OrcRow(OrcRegister.SP, 8, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True),
                1: call(8),
                2: call(8),
                3: END,
            }
        )
        self.late = late
        self.symbols["error_entry"] = ENTRY
        self.memory.put(TEXT + 3, b"\xe8" + (ENTRY - BACK).to_bytes(4, "little"))
        self.memory.put(ENTRY, code.ljust(3 * FUNCTION, b"\x90"))
        iret = (TEXT + 2 * FUNCTION + 4, 0x10, 0x202, TASK, 0x18)
        self.words |= {BEFORE + 8 + 8 * number: word for number, word in enumerate(iret)}
        self.words |= {BEFORE: 2**64 - 1, BEFORE - 8: BACK, TASK: TEXT + 3 * FUNCTION + 5}
        self.row_now = self.rows[1]
        self.rows_at: dict[int, OrcRow] = {}

    def find(self, address: int) -> OrcEntry | None:
        """Of error_entry the row of where the test has stopped it."""
        if not ENTRY <= address < ENTRY + FUNCTION:
            return super().find(address)
        return OrcEntry("test", 1, ENTRY, None, bytes(6), self.rows_at.get(address, self.row_now))

    def stops(self, before: int = BEFORE, back: int = BACK, rsi: int = 0x77) -> list[tuple[int, int, int, OrcRow]]:
        """Every instruction's ip with the stack pointer, rsi, and the row there; the words are pushed on the way.

        `before` is the caller's stack pointer, `back` the return address.
        """
        found, sp, depth = [], before - 8, 8
        row = call(8)
        for insn in decode(SAVES + AGAIN + CLEARS, ENTRY):
            found.append((insn.address, sp, rsi, row))
            name = insn.operands.lstrip("%")
            if insn.mnemonic.startswith("push"):
                sp, depth = sp - 8, depth + 8
                self.words[sp] = rsi if name == "rsi" else REGISTERS[name]
                row = (
                    call(depth)
                    if row.type == RowType.CALL
                    else OrcRow(OrcRegister.SP, depth + 8, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
                )
            elif insn.raw == bytes.fromhex("488b742408"):
                rsi = back
            elif insn.raw == bytes.fromhex("48897c2408"):
                self.words[before - 8] = REGISTERS["rdi"]
                row = (
                    OrcRow(OrcRegister.SP, depth + 8, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
                    if self.late
                    else row
                )
            offset = insn.end - ENTRY - len(SAVES)
            row = (
                row
                if offset < 0
                else OrcRow(OrcRegister.SP, 8 if offset else 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True)
            )
        return found


def stop_at(late: bool, number: int, struck: bool = False, **others: int) -> Walk:
    """The walk from the stop of that number, over the stack as it is by then; `struck` in the entry of an exception."""
    whole = InErrorEntry(late).stops()
    world = InErrorEntry(late)
    ip, sp, rsi, row = whole[number]
    passed = [stop for stop in world.stops() if stop[0] <= ip]
    world.words = {at: word for at, word in world.words.items() if at >= passed[-1][1]}
    if ip - ENTRY < SAVES.index(bytes.fromhex("525150")):
        world.words[BEFORE - 8] = BACK
    world.row_now = row
    registers = {"rsi": rsi} | dict.fromkeys(("rbp", "r15"), 0x77) | others
    if not struck:
        return world.walk(ip, sp, **registers)
    world.stacks, at = (STACK, IRQ), IRQ.end - 40
    world.rows[4] = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
    world.words |= {at + 8 * place: word for place, word in enumerate((ip, 0x10, 0x46, sp, 0x18))}
    return world.walk(TEXT + 4 * FUNCTION, at, **registers)


NUMBERS = range(len(InErrorEntry(True).stops()))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", NUMBERS)
def test_its_caller_is_found_at_every_instruction(late: bool, number: int) -> None:
    """Neither lost, as by the rows of 5.10, nor left out, as by later ones."""
    walk = stop_at(late, number)
    assert [frame.ip for frame in walk.frames[1:]] == [BACK, TEXT + 2 * FUNCTION + 4, TEXT + 3 * FUNCTION + 5]
    assert [frame.sp for frame in walk.frames[2:]] == [TASK, TASK + 8]
    assert (walk.end, {frame.doubt for frame in walk.frames}) == (WalkEnd.FIRST_FRAME, {None})
    has_all = walk.frames[2].kind == FrameKind.INTERRUPT
    assert has_all == (number >= len(NUMBERS) - 3)
    if has_all:
        saved = {name: walk.frames[2].registers[name].value for name in REGISTERS}
        assert saved == REGISTERS


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", NUMBERS)
def test_its_caller_is_found_when_a_push_struck_the_guard_page(late: bool, number: int) -> None:
    """At the first instruction of the double fault's entry all registers are still those of the code it struck."""
    here, struck = stop_at(late, number), stop_at(late, number, struck=True)
    assert [(frame.ip, frame.sp) for frame in struck.frames[1:]] == [(frame.ip, frame.sp) for frame in here.frames]
    assert (struck.end, {frame.doubt for frame in struck.frames}) == (WalkEnd.FIRST_FRAME, {None})
    known = [frame.registers.get("rsi") for frame in struck.frames[2:3]]
    assert [value for value in known if value is not None and value.value == BACK] == []


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", range(len(NUMBERS) - 3))
def test_its_caller_is_found_while_the_double_faults_entry_saves_registers(late: bool, number: int) -> None:
    """Its own way into rsi is by such a function again, which has pushed some registers and left the others alone."""
    world = InErrorEntry(late)
    ip, sp, rsi, _ = world.stops()[5]
    world.rows_at = {stop[0]: stop[3] for stop in world.stops()}
    world.words = {at: word for at, word in world.words.items() if at >= sp}
    world.stacks, at, entry = (STACK, IRQ), IRQ.end - 40, TEXT + 4 * FUNCTION
    world.rows[4] = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
    world.words |= {at + 8 * place: word for place, word in enumerate((ip, 0x10, 0x46, sp, 0x18))}
    world.memory.put(entry + 3, b"\xe8" + (ENTRY - entry - 8 & 0xFFFFFFFF).to_bytes(4, "little"))
    there, top, now, _ = world.stops(at, entry + 8, rsi)[number]
    if number < 3:
        world.words[at - 8] = entry + 8
    world.words = {place: word for place, word in world.words.items() if place >= top or place < IRQ.begin}
    walk = world.walk(there, top, rsi=now, **dict.fromkeys(("rbp", "r15"), 0x77))
    callers = [entry + 8, ip, BACK, TEXT + 2 * FUNCTION + 4, TEXT + 3 * FUNCTION + 5]
    assert ([frame.ip for frame in walk.frames[1:]], walk.end) == (callers, WalkEnd.FIRST_FRAME)
    assert {frame.doubt for frame in walk.frames} == {None}


def test_a_wrong_rsi_is_not_believed() -> None:
    """Only an address behind a call of error_entry can be there."""
    walk = stop_at(True, 5, rsi=TEXT + 2 * FUNCTION + 4)
    assert (walk.end, len(walk.frames)) == (WalkEnd.STOPPED, 1)
    assert walk.end_reason == RegisterHoldsNoReturn("rsi", TEXT + 2 * FUNCTION + 4)


def through_r12(exact: bool) -> Walk:
    """A stop at 5.10's `mov %rsp,%rdi` behind `pop %r12`, or while sync_regs runs, which is called in between."""
    moves = bytes.fromhex("415c4889e7e8000000004889c44154c3")
    world = InErrorEntry(False, SAVES + AGAIN + CLEARS + moves)
    world.rows[4] = call(8)
    world.stops()
    at = ENTRY + len(SAVES + AGAIN + CLEARS)
    world.row_now = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True)
    registers = BEFORE - 8 * len(REGISTERS) - 8
    if exact:
        return world.walk(at + 2, registers, r12=BACK)
    world.words[registers - 8] = at + 10
    return world.walk(TEXT + 4 * FUNCTION + 4, registers - 8, r12=BACK)


def test_its_caller_is_taken_from_r12_where_that_is_known() -> None:
    """Else a mark says that one is left out, and what lies above is a guess."""
    walk = through_r12(exact=True)
    assert [frame.ip for frame in walk.frames[1:]] == [BACK, TEXT + 2 * FUNCTION + 4, TEXT + 3 * FUNCTION + 5]
    assert (walk.end, {frame.doubt for frame in walk.frames}) == (WalkEnd.FIRST_FRAME, {None})
    walk = through_r12(exact=False)
    assert [frame.mark for frame in walk.frames] == [Mark.AS_BUILT, Mark.STEP_IN_DOUBT, Mark.GUESS, Mark.GUESS]
    assert walk.frames[1].doubt == CallerInUnknownRegister()


def test_the_nearest_of_several_such_functions_is_meant() -> None:
    """paranoid_entry and error_entry lie side by side: what is behind the one is not in the other."""
    world = InErrorEntry(True)
    functions = SavingFunctions([ENTRY - 0x40, ENTRY, ENTRY + 0x1000], world.memory)
    nearest = [functions.near(address) for address in (ENTRY - 1, ENTRY, ENTRY + 0x1FF, ENTRY + 0x200)]
    assert [None if one is None else one.start for one in nearest] == [ENTRY - 0x40, ENTRY, ENTRY, None]
    callee = functions.called_before(BACK)
    assert callee is not None
    assert callee.start == ENTRY
    assert functions.called_before(BACK + 1) is None


def test_a_caller_that_may_be_left_out_is_said_to_be() -> None:
    """Where the text of error_entry is not what it was to be, its rows alone are not believed."""
    world = InErrorEntry(True, b"\x90")
    world.stops()
    world.row_now = OrcRow(OrcRegister.SP, 8, OrcRegister.UNDEFINED, 0, RowType.REGS, True)
    walk = world.walk(ENTRY + len(SAVES) + 3, BEFORE - 8 * len(REGISTERS) - 16)
    assert {frame.mark for frame in walk.frames[:1]} == {Mark.STEP_IN_DOUBT}
    assert {frame.mark for frame in walk.frames[1:]} == {Mark.GUESS}

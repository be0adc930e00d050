"""What a breakpoint interrupted: the ip that it saved is one past the int3 until the handler sets it anew.

The interrupted function begins with a push of one byte and an instruction of three; its caller calls it directly.
"""

from __future__ import annotations

import pytest

from orcdbg.base.errors import BadAddress
from orcdbg.base.reading import BytesSpace
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.table import OrcEntry
from orcdbg.unwind.frame import Mark
from orcdbg.unwind.reasons import MayHaveRun
from orcdbg.unwind.walker import Terrain, Walk
from orcdbg.views.reasons import words
from orcdbg.x86.registers import PT_REGS
from tests.build.code import MadeKernelCode, made_terrain, nothing
from tests.build.stacks import END, FUNCTION, TEXT, TOP, World, call

REGISTERS_AT, SP = TOP - 0x400, TOP - 0x100
PROBED, CALLER = TEXT + FUNCTION, TEXT + 2 * FUNCTION
RETURN = CALLER + 5
PUSH, MOVE, INT3, NOP = b"\x55", b"\x48\x89\xe5", b"\xcc", b"\x90"
SINCE_6_3, BEFORE = True, False  # whether the row has the bit, which is clear in the first rows of the entry


class Probed(World):
    """The breakpoint's entry, the function that it interrupted, its caller, and where the stack begins."""

    def __init__(self, entry: str, signal: bool, text: bytes) -> None:
        regs = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, signal)
        super().__init__({0: regs, 1: call(8), 2: call(16), 3: END})
        self._entry = entry
        self._text = text
        self.is_built_known = True

    def name(self, number: int) -> str:
        """The first function is the breakpoint's entry."""
        return self._entry if number == 0 else super().name(number)

    def find(self, address: int) -> OrcEntry | None:
        """The probed function has another row behind its push."""
        if PROBED < address < PROBED + FUNCTION:
            return OrcEntry("test", 9, PROBED + 1, None, bytes(6), call(16))
        return super().find(address)

    def terrain(self) -> Terrain:
        """With text: as built, and with the int3 in memory."""
        before = bytes.fromhex("e8") + (PROBED - RETURN & 0xFFFF_FFFF).to_bytes(4, "little")
        built = NOP * FUNCTION + (PUSH + MOVE).ljust(FUNCTION, NOP) + before.ljust(FUNCTION, NOP) + NOP * FUNCTION
        ran = bytearray(built)
        ran[FUNCTION : FUNCTION + len(self._text)] = self._text
        self.memory.put(TEXT, bytes(ran))
        was = BytesSpace(TEXT, built, lambda a, s: BadAddress("text", a, s)) if self.is_built_known else nothing()
        code = MadeKernelCode(self.memory, self.locate, {}, was=was)
        return made_terrain(code, self)


def walk(world: Probed, ip: int, sp: int) -> Walk:
    """The walk from inside the breakpoint's entry, which saved this ip and stack pointer."""
    values = {"rip": ip, "cs": 0x10, "rflags": 0x202, "rsp": sp, "ss": 0x18, "rbp": 5}
    world.words |= {REGISTERS_AT + PT_REGS[name]: value for name, value in values.items()}
    world.words |= {SP: RETURN, SP + 16: TEXT + 3 * FUNCTION + 1}
    return world.walk(TEXT + 9, REGISTERS_AT)


@pytest.mark.parametrize("signal", [SINCE_6_3, BEFORE])
@pytest.mark.parametrize("entry", ["asm_exc_int3", "int3"])
def test_the_push_that_an_int3_stands_for_has_not_run(entry: str, signal: bool) -> None:
    """The row before the push holds, and the caller is there; whatever the bit of the entry's row says."""
    found = walk(Probed(entry, signal, INT3), PROBED + 1, SP)
    frame, caller = found.frames[1:3]
    assert (frame.exact, frame.is_behind_int3, frame.rule, frame.return_slot) == (False, True, "sp+8", SP)
    assert (caller.ip, caller.mark) == (RETURN, Mark.AS_BUILT)
    assert frame.location is not None
    assert frame.location.start == PROBED


def test_behind_a_longer_instruction_nothing_begins() -> None:
    """An int3 in the first byte of the move, and one that was taken away since."""
    for text in (PUSH + INT3, PUSH):
        found = walk(Probed("asm_exc_int3", True, text), PROBED + 2, SP - 8)
        assert (found.frames[1].is_behind_int3, found.frames[2].ip) == (True, RETURN)


@pytest.mark.parametrize("text", [INT3 + MOVE, PUSH + INT3])
def test_an_ip_that_the_handler_has_set_is_exact(text: bytes) -> None:
    """It has emulated the instruction, or had it run elsewhere: what comes next is behind the move."""
    found = walk(Probed("asm_exc_int3", True, text), PROBED + 4, SP - 8)
    assert (found.frames[1].exact, found.frames[1].is_behind_int3, found.frames[2].ip) == (True, False, RETURN)


def test_a_push_that_has_run_elsewhere_is_told_by_the_stack() -> None:
    """Its ip is the same as before it: the return address is one word further up."""
    found = walk(Probed("asm_exc_int3", True, INT3), PROBED + 1, SP - 8)
    assert (found.frames[1].exact, found.frames[1].rule, found.frames[2].ip) == (True, "sp+16", RETURN)
    assert found.frames[2].mark is Mark.AS_BUILT


def test_where_the_stack_leaves_it_open_the_frame_says_so() -> None:
    """The same return address in both places, as in a function that calls itself."""
    world = Probed("asm_exc_int3", True, INT3)
    world.words[SP + 8] = RETURN
    found = walk(world, PROBED + 1, SP)
    assert (found.frames[1].doubt, found.frames[1].mark) == (MayHaveRun(PROBED), Mark.STEP_IN_DOUBT)
    assert found.frames[2].mark is Mark.GUESS
    assert "may have been run already" in words(MayHaveRun(PROBED))


def test_without_text_as_built_the_int3_in_memory_tells() -> None:
    """A module's text is not there as built."""
    world = Probed("asm_exc_int3", True, INT3)
    world.is_built_known = False
    assert walk(world, PROBED + 1, SP).frames[2].ip == RETURN
    world = Probed("asm_exc_int3", True, PUSH)
    world.is_built_known = False
    assert walk(world, PROBED + 1, SP - 8).frames[1].exact


def test_other_entries_save_exact_ips() -> None:
    """An NMI at the same place."""
    found = walk(Probed("asm_exc_nmi", True, INT3), PROBED + 1, SP - 8)
    assert (found.frames[1].exact, found.frames[2].ip) == (True, RETURN)

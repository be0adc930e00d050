"""Calls and jumps through pointers to where no code is: the caller is the one whose pointer still is what the CPU went to."""

from __future__ import annotations

import pytest

from orcdbg.base.reasons import Reason
from orcdbg.kernel.names import Location
from orcdbg.orc.effective import Source
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.unwind.frame import Mark
from orcdbg.unwind.reasons import CalledNoCode, InterruptedNotText, NoRow
from orcdbg.unwind.walker import Terrain, Walk, WalkEnd
from orcdbg.x86.registers import PT_REGS
from tests.build.code import MadeKernelCode, branch, made_terrain
from tests.build.stacks import END, FUNCTION, TEXT, TOP, World, call

CALLER, TAIL, THUNK = TEXT + FUNCTION, TEXT + 3 * FUNCTION, TEXT + 4 * FUNCTION
POINTED = 0xFFFF888000001000  # an object that a pointer is read from
GARBAGE = (0, 0x18, 0x401000, POINTED, 0xFFFFDEAD00000000, 0xDEAD000000000100)
SP = TOP - 0xA0
REGISTERS = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True)

BY_REGISTER = b"\xff\xd2"  # call *%rdx
BY_MEMORY = b"\xff\x53\x18"  # call *0x18(%rbx)
BY_TABLE = b"\xff\x14\xc5\x00\x00\x00\xff"  # call *-0x1000000(,%rax,8)
# call 1f; int3; 1: mov %r8,(%rsp); ret
RETPOLINE = b"\xe8\x01\x00\x00\x00\xcc\x4c\x89\x04\x24\xc3"
JUMP = b"\x41\xff\xe1"  # jmp *%r9


class Strayed(World):
    """A task whose kernel code at `CALLER` calls by the instruction `calling`, after which it is at no code."""

    def __init__(self, calling: bytes) -> None:
        super().__init__({0: REGISTERS, 1: call(16), 2: END, 3: call(8), 4: call(8)})
        text = bytearray(b"\x90" * 5 * FUNCTION)
        pieces = {CALLER: calling, TAIL: JUMP, THUNK: RETPOLINE}
        for address, code in pieces.items():
            text[address - TEXT : address - TEXT + len(code)] = code
        self.memory.put(TEXT, bytes(text))
        self.words |= {SP: CALLER + len(calling), SP + 16: TEXT + 2 * FUNCTION + 5}

    def name(self, number: int) -> str:
        """The thunk's, of which there is one for each register."""
        return "__x86_indirect_thunk_r8" if number == 4 else super().name(number)

    def terrain(self) -> Terrain:
        """Other worlds have no text to be read."""
        return made_terrain(MadeKernelCode(self.memory, self.locate, calls=self.follows_call), self)

    def locate(self, address: int) -> Location | None:
        """Of a thunk, as long as one is."""
        place = super().locate(address)
        return place._replace(size=32) if place is not None and place.start == THUNK else place

    def walk_from(self, ip: int, **others: int) -> Walk:
        """The walk of a CPU that stands at `ip`."""
        return self.walk(ip, SP, **others)

    def walk_through(self, ip: int, **others: int) -> Walk:
        """The walk of a CPU that handles the fault which `ip` was."""
        at = SP - 0x100
        values = {"rip": ip, "rsp": SP, "cs": 0x10, "ss": 0x18, "rflags": 0x246, **others}
        self.words |= {at + PT_REGS[name]: value for name, value in values.items()}
        return self.walk(TEXT + 5, at)


def is_right(walk: Walk, ip: int) -> bool:
    """Whether the stack ends properly, by way of the caller, with nothing in doubt."""
    start = next(number for number, frame in enumerate(walk.frames) if frame.ip == ip)
    stray, caller, *_ = walk.frames[start:]
    assert (stray.mark, stray.source, stray.notes) == (Mark.CHANGED, Source.INSTRUCTIONS, (CalledNoCode(ip),))
    assert (caller.mark, caller.sp, caller.came_from) == (Mark.AS_BUILT, SP + 8, SP)
    assert CALLER < caller.ip <= CALLER + 8
    return walk.end is WalkEnd.FIRST_FRAME and all(frame.mark.is_sure for frame in walk.frames)


@pytest.mark.parametrize("ip", GARBAGE)
@pytest.mark.parametrize(
    ("calling", "register"),
    [(BY_REGISTER, "rdx"), (branch(b"\xe8", CALLER, THUNK), "r8"), (branch(b"\xe8", CALLER, TAIL), "r9")],
    ids=["call *%rdx", "call thunk_r8", "call f3, jmp *%r9"],
)
def test_the_register_of_the_call_still_is_where_the_cpu_went(ip: int, calling: bytes, register: str) -> None:
    """NULL, a small number, the user's, data, what is not mapped, what is no address: in the handler, and before it."""
    assert is_right(Strayed(calling).walk_through(ip, **{register: ip}), ip)
    assert is_right(Strayed(calling).walk_from(ip, **{register: ip}), ip)


@pytest.mark.parametrize("ip", GARBAGE)
def test_the_memory_of_the_call_still_is_where_the_cpu_went(ip: int) -> None:
    """Kernels without retpolines call so."""
    world = Strayed(BY_MEMORY)
    world.memory.put_words(POINTED + 0x18, ip)
    assert is_right(world.walk_through(ip, rbx=POINTED), ip)


@pytest.mark.parametrize("calling", [BY_MEMORY, BY_TABLE])
def test_a_pointer_that_is_not_to_be_had_speaks_against_nothing(calling: bytes) -> None:
    """The object is not in the snapshot, or is named in a way that is not followed; the call before it is indirect."""
    assert is_right(Strayed(calling).walk_through(GARBAGE[-1], rbx=POINTED), GARBAGE[-1])


REFUTED = {
    "another register": (BY_REGISTER, {"rdx": TEXT, "r9": GARBAGE[-1]}),
    "another thunk": (branch(b"\xe8", CALLER, THUNK), {"r8": TEXT, "rax": GARBAGE[-1]}),
    "another jump": (branch(b"\xe8", CALLER, TAIL), {"r9": TEXT, "rax": GARBAGE[-1]}),
    "a jump by what is not known": (branch(b"\xe8", CALLER, TAIL), {}),
    "no indirect jump": (branch(b"\xe8", CALLER, TEXT + 2 * FUNCTION), {"r9": GARBAGE[-1]}),
    "no call": (b"\x90\x90", {"rax": GARBAGE[-1]}),
}


@pytest.mark.parametrize("case", REFUTED)
def test_a_call_that_led_elsewhere_is_no_caller(case: str) -> None:
    """As where a return address was overwritten: on top of the stack is what the caller's caller had there."""
    calling, registers = REFUTED[case]
    ip = GARBAGE[-1]
    if case == "a jump by what is not known":
        assert stopped(Strayed(calling).walk_from(ip)) == (NoRow(ip), 1)
        return
    through = Strayed(calling).walk_through(ip, **registers)
    assert stopped(through) == (InterruptedNotText(SP - 0x100 + PT_REGS["rip"], ip), 1)
    assert stopped(Strayed(calling).walk_from(ip, **registers)) == (NoRow(ip), 1)


def test_null_without_a_call_is_shown_and_no_caller_is() -> None:
    """That the CPU was there is sure; the kernel's unwinder takes whatever is on top of the stack for the caller."""
    walk = Strayed(BY_REGISTER).walk_through(0, rdx=TEXT)
    assert stopped(walk) == (NoRow(0), 2)
    assert walk.frames[1].ip == 0


def test_nothing_is_read_from_what_is_no_stack() -> None:
    """A stack pointer that leads nowhere has no return address on top."""
    world = Strayed(BY_REGISTER)
    world.memory.put_words(POINTED, CALLER + len(BY_REGISTER))
    ip = GARBAGE[-1]
    assert stopped(world.walk(ip, POINTED, rdx=ip)) == (NoRow(ip), 1)


def stopped(walk: Walk) -> tuple[Reason | None, int]:
    """Why a walk ended early, and how many frames it has."""
    assert walk.end is WalkEnd.STOPPED
    return walk.end_reason, len(walk.frames)

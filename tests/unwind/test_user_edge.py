"""Stops between user mode and the saved registers, where the rows say nothing: the sample's kernel, other registers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import StackKind, cpu_stacks, exception_stacks, task_registers, task_stack
from orcdbg.orc.effective import Source
from orcdbg.orc.rows import RowType
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, Frame, FrameKind, Mark, RegisterValue, StackTrace
from orcdbg.unwind.user_edge import add_user
from orcdbg.unwind.walker import State, Walk, WalkEnd
from orcdbg.x86.registers import PT_REGS
from tests.build.sample_notes import without_notes

USER_IP, USER_SP = 0x401234, 0x7FFD00001000
SYSCALL, SAFE, FRAMED = "entry_SYSCALL_64", "entry_SYSCALL_64_safe_stack", "entry_SYSCALL_64_after_hwframe"


class Edge:
    """A running task of the sample, with user registers at the top of its stack."""

    def __init__(self, sample: Session, **pieces: bytes) -> None:
        self.linux = sample.linux
        (address,) = sample.unwinder.running
        self.task = sample.task(address)
        stack = task_stack(sample.linux, address)
        assert stack is not None
        self.end = stack.end
        self.saved = task_registers(sample.linux, stack)
        words = dict.fromkeys(PT_REGS, 0) | {"rip": USER_IP, "rsp": USER_SP, "cs": 0x33, "ss": 0x2B, "rflags": 0x202}
        words |= {"rcx": USER_IP}
        top = b"".join(words[name].to_bytes(8, "little") for name in PT_REGS)
        texts = {}
        for name in (SYSCALL, SAFE, FRAMED, "syscall_return_via_sysret", "common_interrupt_return"):
            at = sample.linux.address(name)
            texts[f"at_{at:x}"] = sample.built.read(at, 16)
        self.session = without_notes(sample, **{f"at_{self.saved:x}": top}, **texts, **pieces)

    def stop(self, symbol: str, offset: int, sp: int, **others: int) -> StackTrace:
        """The stack of a CPU that is there."""
        values = {"rip": self.linux.address(symbol) + offset, "rsp": sp, "rcx": USER_IP, "r11": 0x202, **others}
        registers = {name: RegisterValue(value, "given") for name, value in values.items()}
        state = State(values["rip"], True, registers, FrameKind.INTERRUPT, None)
        return self.session.unwinder.from_state(self.task, state, "given")


def is_found(trace: StackTrace) -> bool:
    """Whether the walk came to user mode, to where it was."""
    if trace.end != End.USER:
        return False
    kernel, user = trace.frames
    assert (user.kind, user.ip, user.sp, user.doubt) == (FrameKind.USER, USER_IP, USER_SP, None)
    assert (kernel.mark, kernel.source, len(kernel.notes)) == (Mark.CHANGED, Source.TRAMPOLINE, 1)
    return True


def test_before_the_stack_is_switched_rcx_and_rsp_are_the_users(sample: Session) -> None:
    """At the first instructions, until rsp is put away; from there on it may hold anything."""
    edge = Edge(sample)
    assert is_found(edge.stop(SYSCALL, 0, USER_SP))
    assert is_found(edge.stop(SYSCALL, 3, USER_SP))
    assert not is_found(edge.stop(SYSCALL, 4, USER_SP))  # inside swapgs
    assert not is_found(edge.stop(SYSCALL, 0, USER_SP, rcx=edge.saved))


@pytest.mark.parametrize("symbol", [SYSCALL, SAFE])
def test_then_the_users_stack_pointer_is_in_the_tss(sample: Session, symbol: str) -> None:
    """There it stays while rsp is used for the page tables' address, and while the first words are pushed."""
    area = sample.linux.per_cpu("cpu_tss_rw", 0)
    assert area is not None
    at = area + sample.linux.types.offset("tss_struct", "x86_tss.sp2")
    edge = Edge(sample, **{f"at_{at:x}": USER_SP.to_bytes(8, "little")})
    if symbol == SYSCALL:
        assert is_found(edge.stop(symbol, 12, 0x2A0D000))
    else:
        assert all(is_found(edge.stop(symbol, 0, edge.end - 8 * number)) for number in range(5))


def test_the_words_that_iret_takes_are_enough(sample: Session) -> None:
    """From the fifth word pushed to the last; neither above nor below them."""
    edge = Edge(sample)
    places = range(edge.saved, edge.end - 32, 8)
    assert all(is_found(edge.stop(FRAMED, 0, sp)) for sp in places)
    assert not is_found(edge.stop(FRAMED, 0, edge.end - 32))
    assert not is_found(edge.stop(FRAMED, 0, edge.saved - 8))


def test_on_the_way_out_the_restored_registers_are_still_there(sample: Session) -> None:
    """While the CPU is on its entry stack; not where rcx, which sysret takes the ip from, says otherwise."""
    entry = next(stack for stack in exception_stacks(sample.linux, 0) if stack.kind == StackKind.ENTRY)
    edge = Edge(sample)
    session = sample
    for symbol in ("syscall_return_via_sysret", "common_interrupt_return"):
        start = session.linux.address(symbol)
        size = next(place.size for place in [session.names.at(start)] if place is not None)
        ends = [
            at
            for at in range(start, start + size)
            if (row := session.find_orc(at)) is not None and row.row.type == RowType.END_OF_STACK
        ]
        assert ends
        offset = ends[0] - start
        assert is_found(edge.stop(symbol, offset, entry.end))
        assert is_found(edge.stop(symbol, offset, entry.end - 16))
        is_sysret = symbol.startswith("syscall")
        assert is_found(edge.stop(symbol, offset, entry.end - 8, rcx=USER_IP + 2)) == (not is_sysret)
        assert not is_found(edge.stop(symbol, offset, entry.begin - 8))


COMPAT = 0xFFFF_FFFF_A200_0000
# entry_SYSCALL_compat of 6.1: swapgs; mov %esp,%r8d; mov %cr3,%rsp; nop; mov %gs:0x1fb50,%rsp
COMPAT_TEXT = bytes.fromhex("0f01f8 4189e0 0f20dc 90 65488b2425 50fb0100")


class CompatEdge(Edge):
    """The same for a 32-bit program's system calls, whose entry the sample's kernel lacks: made frames stand for it."""

    def __init__(self, sample: Session) -> None:
        super().__init__(sample, **{f"at_{COMPAT:x}": COMPAT_TEXT})
        stack = task_stack(sample.linux, self.task.address)
        assert stack is not None
        self.stacks = [stack, *cpu_stacks(sample.linux, 0)]
        entry = sample.find_orc(sample.linux.address(SYSCALL))
        assert entry is not None
        assert entry.row.type is RowType.END_OF_STACK
        self.entry = entry

    def completed(self, symbol: str, offset: int, sp: int, **others: int) -> Walk:
        """What becomes of a walk that stopped there."""
        values = {"rip": COMPAT + offset, "rsp": sp, "rcx": USER_IP, "r11": 0x202, "r8": 0, **others}
        registers = {name: RegisterValue(value, "given") for name, value in values.items()}
        place = Location(symbol, COMPAT, len(COMPAT_TEXT), None, True)
        frame = Frame(0, FrameKind.INTERRUPT, StackKind.UNKNOWN, COMPAT + offset, True, place, registers)
        walk = Walk([replace(frame, entry=self.entry)])
        add_user(self.session.linux, walk, self.stacks)
        return walk

    def is_found(self, symbol: str, offset: int, sp: int, **others: int) -> bool:
        """Whether the walk came to the program, to where it was."""
        walk = self.completed(symbol, offset, sp, **others)
        if walk.end is not WalkEnd.USER:
            return False
        user = walk.frames[-1]
        assert (user.ip, user.sp, user.registers["cs"].value) == (USER_IP, USER_SP_32, 0x23)
        return True


USER_SP_32 = 0xFFB0_1000
ENTRY_32, SAFE_32 = "entry_SYSCALL_compat", "entry_SYSCALL_compat_safe_stack"


def test_a_32_bit_call_keeps_the_users_stack_pointer_in_r8(sample: Session) -> None:
    """From its second instruction on; before that rsp has it, and later rsp may hold anything."""
    edge = CompatEdge(sample)
    assert edge.is_found(ENTRY_32, 0, USER_SP_32)
    assert edge.is_found(ENTRY_32, 3, USER_SP_32)
    assert edge.is_found(ENTRY_32, 6, USER_SP_32, r8=USER_SP_32)
    assert edge.is_found(ENTRY_32, 10, 0x2A0D000, r8=USER_SP_32)
    assert not edge.is_found(ENTRY_32, 4, USER_SP_32)  # inside an instruction
    assert all(edge.is_found(SAFE_32, 0, edge.end - 8 * number, r8=USER_SP_32) for number in range(5))


@pytest.mark.parametrize("symbol", ["sysret32_from_system_call", "entry_SYSRETL_compat_unsafe_stack"])
def test_a_32_bit_call_leaves_with_the_users_stack_pointer(sample: Session, symbol: str) -> None:
    """The program's ip is in rcx by then; with a stack of the kernel it is not yet known."""
    edge = CompatEdge(sample)
    assert edge.is_found(symbol, 0, USER_SP_32)
    assert not edge.is_found(symbol, 0, edge.saved)

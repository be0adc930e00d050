"""A CPU between two tasks: the sample, its CPU put into __switch_to_asm on a sleeping task's stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest

from orcdbg.base.reading import read_u64
from orcdbg.kernel.stacks import StackKind, cpu_stacks, task_stack
from orcdbg.kernel.tasks import Task
from orcdbg.snapshot.machine import CpuState
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind, Mark, RegisterValue
from orcdbg.unwind.reasons import CurrentDisagrees, MaybeSwitchingTo, SwitchingFrom, SwitchingTo
from orcdbg.unwind.starts import on_cpus
from orcdbg.unwind.switching import TaskStacks
from orcdbg.unwind.walker import State
from tests.build.memory import SparseMemory
from tests.build.sample_notes import Overlaid, without_notes

BEHIND_EXCHANGE = 0x18  # of __switch_to_asm: rsp is the incoming task's by now, whose registers are not yet popped
FRAME = 56  # struct inactive_task_frame


class Between:
    """The sample's CPU, on its way from the task that it ran to one that sleeps."""

    def __init__(self, sample: Session, pid: int = 31) -> None:
        self.sample, linux = sample, sample.linux
        (address,) = sample.unwinder.running
        self.outgoing = sample.task(address)
        self.incoming = next(task for task in sample.tasks if task.pid == pid)
        self.asleep = sample.unwinder.trace(self.incoming)
        self.sp = linux.member("task_struct", "thread.sp", self.incoming.address)
        own = task_stack(linux, address)
        assert own is not None
        self.saved_sp = own.end - 0x400
        (self.note,) = sample.snapshot.cpus

    def session(self, pieces: Mapping[int, bytes] | None = None, **registers: int) -> Session:
        """The sample with these registers, and with what the switch has saved of the outgoing task."""
        at = self.outgoing.address + self.sample.linux.types.offset("task_struct", "thread.sp")
        overlay = SparseMemory()
        overlay.put(at, self.saved_sp.to_bytes(8, "little"))
        overlay.put(self.saved_sp, self.sample.memory.read(self.sp, FRAME))
        for address, data in (pieces or {}).items():
            overlay.put(address, data)
        ip = self.sample.linux.address("__switch_to_asm") + BEHIND_EXCHANGE
        values = {**self.note.registers, "rip": ip, "rsp": self.sp, "cs": 0x10, **registers}
        snapshot = replace(self.sample.snapshot, cpus=(replace(self.note, registers=values),))
        memory = cast(KernelMemory, Overlaid(self.sample.memory, overlay))  # of which walks only read
        return Session(self.sample.image, snapshot, mapped=(self.sample.placement, memory))


@pytest.mark.parametrize("pid", [2, 31])
def test_the_stack_that_rsp_is_on_names_its_owner(sample: Session, pid: int) -> None:
    """The incoming task is where it slept, below the switch; a word says that `current` is still another."""
    between = Between(sample, pid)
    session = between.session()
    assert list(session.unwinder.running) == [between.incoming.address]

    trace = session.unwinder.trace(between.incoming)
    assert (trace.running, trace.cpu, trace.end) == (True, 0, between.asleep.end)
    first, *callers = trace.frames
    assert first.location is not None
    assert first.location.symbol == "__switch_to_asm"
    assert [(f.ip, f.sp, f.mark) for f in callers] == [(f.ip, f.sp, f.mark) for f in between.asleep.frames]
    assert SwitchingTo(0, between.outgoing.address) in first.notes


def test_the_outgoing_task_is_walked_from_what_the_switch_has_saved(sample: Session) -> None:
    """Not from the CPU's registers, which are no longer its; alone and among others."""
    between = Between(sample)
    session = between.session()
    trace = session.unwinder.trace(between.outgoing)
    first = trace.frames[0]
    assert (trace.running, trace.registers_from) == (False, "inactive_task_frame")
    assert (first.ip, first.sp) == (between.asleep.frames[0].ip, between.saved_sp + FRAME)
    assert SwitchingFrom(0, between.incoming.address) in first.notes

    (among,) = session.unwinder.traces([between.outgoing])
    assert tuple(among.frames) == tuple(trace.frames)


def test_an_exception_during_the_switch_is_the_incoming_tasks(sample: Session) -> None:
    """The words that the CPU pushed on the exception's stack tell which task stack it was on; damaged ones tell nothing."""
    between = Between(sample)
    nmi = next(stack for stack in cpu_stacks(sample.linux, 0) if stack.kind is StackKind.NMI)
    db = next(stack for stack in cpu_stacks(sample.linux, 0) if stack.kind is StackKind.DB)
    incoming, outgoing = between.incoming.address, between.outgoing.address

    in_switch = sample.linux.address("__switch_to_asm") + BEHIND_EXCHANGE

    def runs(rsp: int, saved: Mapping[int, int], ip: int = in_switch) -> list[int]:
        """What the CPU runs where these stack pointers are saved at these places, each with the ip three words below."""
        words = {place - 24: ip for place in saved} | dict(saved)
        pieces = {place: value.to_bytes(8, "little") for place, value in words.items()}
        return list(between.session(pieces, rsp=rsp).unwinder.running)

    pushed, outermost = nmi.end - 16, nmi.end - 112
    assert runs(nmi.end - 40, {pushed: between.sp}) == [incoming]
    assert runs(nmi.end - 40, {pushed: between.saved_sp}) == [outgoing]
    # An NMI in the NMI has pushed its words over the first one's.
    assert runs(nmi.end - 40, {pushed: nmi.end - 0x200, outermost: between.sp}) == [incoming]
    # A debug exception in the NMI; then one that claims to have interrupted itself.
    assert runs(db.end - 40, {db.end - 16: nmi.end - 0x200, pushed: between.sp}) == [incoming]
    assert runs(db.end - 40, {db.end - 16: db.end - 0x100}) == [outgoing]

    # No other code than the switch is on the next task's stack, and the switch is where that task had saved its registers.
    schedule = between.asleep.frames[0].ip
    assert runs(nmi.end - 40, {pushed: between.sp}, ip=schedule) == [outgoing]
    assert runs(nmi.end - 40, {pushed: between.sp - 0x40}) == [outgoing]
    assert runs(nmi.end - 40, {pushed: between.sp + FRAME + 8}) == [outgoing]


def test_no_cpu_goes_over_to_a_task_that_another_one_runs(sample: Session) -> None:
    """A stack pointer on such a task's stack is somebody else's: the walk says that it is on none of the task's stacks."""
    between = Between(sample)
    note = replace(between.note, registers={**between.note.registers, "rsp": between.sp, "cs": 0x10})
    current: dict[int, tuple[int, CpuState | None]] = {
        between.outgoing.address: (0, note),
        between.incoming.address: (1, None),
    }
    stacks = TaskStacks(sample.linux)
    assert on_cpus(sample.linux, current, lambda task, sp, ip: stacks.owner(sp)) == (current, {})


def test_in_user_mode_no_stack_pointer_names_a_task(sample: Session) -> None:
    """A program may have a kernel's address in rsp."""
    between = Between(sample)
    session = between.session(cs=0x33, ss=0x2B)
    assert list(session.unwinder.running) == [between.outgoing.address]


def test_registers_that_are_given_belong_to_the_owner_of_their_stack(sample: Session) -> None:
    """`bt -I -S` of another task's stack shows that task: its name, its records of tracers and its user registers."""
    between = Between(sample)
    first = between.asleep.frames[0]
    values = {"rip": first.ip, "rsp": first.sp, "rbp": read_u64(sample.memory, between.sp + 40)}
    registers = {name: RegisterValue(value, "given") for name, value in values.items()}
    state = State(first.ip, False, registers, FrameKind.CALL, None)
    selected: Task = between.outgoing
    trace = sample.unwinder.from_state(selected, state, "given")
    assert (trace.task, trace.end) == (between.incoming.address, End.USER)
    assert [frame.ip for frame in trace.frames] == [frame.ip for frame in between.asleep.frames]


def test_without_the_cpus_registers_the_task_that_it_has_chosen_is_in_doubt(sample: Session) -> None:
    """It may be on that task's stack by now, and have overwritten what the switch takes from there."""
    between, linux = Between(sample), sample.linux
    queue = linux.per_cpu("runqueues", 0)
    assert queue is not None
    at = queue + linux.types.offset("rq", "curr")
    chosen = {f"at_{at:x}": between.incoming.address.to_bytes(8, "little")}
    no_nmi = {f"at_{linux.per_cpu('nmi_state', 0):x}": bytes(4)}

    session = without_notes(sample, **chosen, **no_nmi)
    assert list(session.unwinder.running) == [between.outgoing.address]
    for trace in (session.unwinder.trace(between.incoming), session.unwinder.traces([between.incoming])[0]):
        assert [frame.ip for frame in trace.frames] == [frame.ip for frame in between.asleep.frames]
        assert trace.frames[0].doubt == MaybeSwitchingTo(0)
        assert {frame.mark for frame in trace.frames} == {Mark.GUESS}

    # A CPU that goes on with what it runs has chosen that.
    own = {f"at_{at:x}": between.outgoing.address.to_bytes(8, "little")}
    assert without_notes(sample, **own, **no_nmi).unwinder.switching == {}


def test_a_current_that_the_scheduler_did_not_choose_is_in_doubt(sample: Session) -> None:
    """In user mode and in interrupts no CPU is between two tasks: one of the two words is damaged, and nobody knows which."""
    between, linux = Between(sample), sample.linux
    queue = linux.per_cpu("runqueues", 0)
    assert queue is not None
    at = queue + linux.types.offset("rq", "curr")
    chosen = {at: between.incoming.address.to_bytes(8, "little")}
    disagrees = CurrentDisagrees(0, between.outgoing.address, between.incoming.address)
    irq = next(stack for stack in cpu_stacks(linux, 0) if stack.kind is StackKind.IRQ)
    own = task_stack(linux, between.outgoing.address)
    assert own is not None

    for registers in ({"cs": 0x33, "ss": 0x2B, "rip": 0x401000}, {"rsp": irq.end - 0x200}):
        unwinder = between.session(chosen, **registers).unwinder
        assert list(unwinder.running) == [between.outgoing.address]
        for task in (between.outgoing, between.incoming):
            trace = unwinder.trace(task)
            assert trace.frames[0].doubt == disagrees
            assert not any(frame.mark.is_sure for frame in trace.frames)

    # The scheduler itself has chosen before it switches; then it is on the old task's stack.
    assert between.session(chosen, rsp=own.end - 0x300).unwinder.switching == {}
    agreed = {at: between.outgoing.address.to_bytes(8, "little")}
    assert between.session(agreed, cs=0x33, ss=0x2B, rip=0x401000).unwinder.switching == {}

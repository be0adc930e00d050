"""What another debugger is told: the sample's stack frame by frame, an end where a guess would begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from orcdbg.base.errors import MemoryFault, Mismatch
from orcdbg.cli.main import sample_files
from orcdbg.embedding import CallerFrame, EmbeddedKernel, OrcdbgError, place_of
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame


@pytest.fixture
def kernel(sample: Session) -> EmbeddedKernel:
    """The sample through its virtual memory, as gdb reads that."""
    return EmbeddedKernel.of_memory(sample_files()[0], lambda address, size: read(sample, address, size), 0)


def read(sample: Session, address: int, size: int) -> bytes | None:
    """Memory, or replayed text."""
    try:
        return sample.memory.read(address, size)
    except MemoryFault:
        return sample.text.read(address, size) if sample.is_text(address) else None


def registers(sample: Session) -> dict[str, int]:
    """The CPU's, by gdb's names."""
    return {{"rflags": "eflags"}.get(name, name): value for name, value in sample.snapshot.cpus[0].registers.items()}


def walked(kernel: EmbeddedKernel, start: Mapping[str, int]) -> list[tuple[Mapping[str, int], CallerFrame]]:
    """Frame after frame, each asked for with what the one before said."""
    out: list[tuple[Mapping[str, int], CallerFrame]] = []
    known = start
    while known:
        answer = kernel.frame(known, not out)
        assert answer is not None
        out.append((known, answer))
        known = answer.caller
    return out


def expected(sample: Session) -> tuple[Frame, ...]:
    """The frames that orcdbg shows itself."""
    return tuple(sample.unwinder.trace(sample.task(135)).frames)


@pytest.mark.parametrize("how", ["memory", "core"])
def test_the_stack_is_the_same_as_orcdbgs(sample: Session, kernel: EmbeddedKernel, how: str) -> None:
    """Up to the user's registers, and there it ends; from memory, and from a core file."""
    one = kernel if how == "memory" else EmbeddedKernel.of_core(*sample_files())
    found = walked(one, registers(sample))
    assert [(known["rip"], known["rsp"]) for known, _ in found] == [(f.ip, f.sp) for f in expected(sample)]
    assert [answer.symbol for _, answer in found[5:8]] == [
        "end_repeat_nmi",
        "lock_is_held_type",
        "rcu_read_lock_any_held",
    ]
    assert [answer.exact for _, answer in found[5:8]] == [False, True, False]
    assert found[-1][1].why_ends is None


def test_a_callers_place_is_never_lower(sample: Session, kernel: EmbeddedKernel) -> None:
    """Or the same: gdb ends a stack where it is lower, as that of a task below an exception's."""
    found = [answer for known, answer in walked(kernel, registers(sample)) if known["rip"] >> 63]
    places = [answer.place for answer in found]
    assert places == sorted(places)
    assert len({(answer.place, answer.function) for answer in found}) == len(found)


def test_a_frame_in_doubt_is_not_handed_out(sample: Session, kernel: EmbeddedKernel) -> None:
    """The stack ends before it, with the reason."""
    frame = expected(sample)[6]
    start = {**registers(sample), "rip": frame.ip, "rsp": frame.sp + 8}
    found = walked(kernel, start)
    ips = {one.ip for one in expected(sample)}
    assert {known["rip"] for known, _ in found} <= ips
    assert found[-1][1].why_ends


def test_other_code_is_left_to_the_other_debugger(kernel: EmbeddedKernel) -> None:
    """A user's frame that no kernel frame led to."""
    assert kernel.frame({"rip": 0x401000, "rsp": 0x7FFF0000}, True) is None
    assert not kernel.is_text(0x401000)


def test_questions_about_other_frames_lose_nothing(sample: Session, kernel: EmbeddedKernel) -> None:
    """gdb asks about the 0 that ends a stack too, and then goes on with the frames before."""
    found = walked(kernel, registers(sample))
    assert kernel.frame({"rip": 0, "rsp": 0}, False) is None
    again = kernel.frame(found[7][0], False)
    assert again == found[7][1]
    assert again is not None
    assert not again.exact


def test_a_frame_that_is_none_of_the_kernels_has_no_text(kernel: EmbeddedKernel) -> None:
    """The error says where it is not."""
    with pytest.raises(OrcdbgError, match="not in the kernel's code"):
        kernel.frame_text({"rip": 0x401000, "rsp": 0x7FFF0000}, 0x401000, 0x7FFF0000)


def test_people_see_orcdbgs_own_views(sample: Session, kernel: EmbeddedKernel) -> None:
    """A frame with all that is behind it, patches, and any command."""
    frame = expected(sample)[6]
    kernel.forget()
    assert "true rule  sp+72  (+8: pushfq)" in kernel.frame_text(registers(sample), frame.ip, frame.sp)
    assert "paravirt irq.save_fl" in kernel.patches_text(frame.ip)
    assert "hazards" in kernel.command_text("patch check")
    with pytest.raises(OrcdbgError, match="no frame at"):
        kernel.frame_text(registers(sample), frame.ip, 8)


def test_a_kernel_that_is_not_there_is_an_error(sample: Session) -> None:
    """No memory to find it in; or another place than was said."""
    with pytest.raises(OrcdbgError, match="cannot tell"):
        EmbeddedKernel.of_memory(sample_files()[0], lambda address, size: None)
    with pytest.raises(Mismatch):
        EmbeddedKernel.of_memory(sample_files()[0], lambda address, size: b"\0" * size, 0x1000)
    assert EmbeddedKernel.of_memory(sample_files()[0], lambda a, s: read(sample, a, s), 0).slide == 0


def test_places_grow_where_a_frame_has_its_cfa_on_the_next_stack(sample: Session) -> None:
    """As 5.10's asm_call_irq_on_stack has: it runs on the IRQ stack, which may lie above the task's."""
    task, irq = (
        Stack(StackKind.TASK, 0xFFFFC90000080000, 0xFFFFC90000084000),
        Stack(StackKind.IRQ, 0xFFFFC900000B5000, 0xFFFFC900000B9000),
    )
    frame = expected(sample)[1]
    handler = replace(frame, stack=StackKind.IRQ, cfa=irq.end - 0x10)
    switch = replace(frame, stack=StackKind.IRQ, cfa=task.end - 0x1D0)
    interrupted = replace(frame, stack=StackKind.TASK, cfa=task.end - 0x1C0)
    places = [place_of(one, [task, irq]) for one in (handler, switch, interrupted)]
    assert places == sorted(places)
    assert places[1:] == [switch.cfa, interrupted.cfa]
    assert place_of(replace(handler, cfa=irq.end), [task, irq]) > places[0]

"""CPUs without a register note: the sample, its notes taken away."""

from __future__ import annotations

import struct

import pytest

from orcdbg.snapshot.machine import CpuState
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind, Mark, StackTrace
from orcdbg.unwind.reasons import CpuNotSaved, MaybeOfEarlierEntry
from orcdbg.views.reasons import words_or_none
from tests.build.sample_notes import without_notes

NO_CPU = (-1 & 0xFFFF_FFFF).to_bytes(4, "little")


def nmi_state(sample: Session) -> str:
    """Where CPU 0 says whether it handles an NMI; that page is not in the sample."""
    return f"at_{sample.linux.per_cpu('nmi_state', 0):x}"


def on_cpu(session: Session) -> StackTrace:
    """The stack of what CPU 0 runs."""
    (task,) = session.unwinder.running
    return session.unwinder.trace(session.task(task))


def test_the_nmi_that_a_cpu_handles_tells_what_it_interrupted(sample: Session) -> None:
    """The frames below the handler are those that the note leads to; the header says where the registers are from."""
    whole = on_cpu(sample)
    number = next(f.index for f in whole.frames[1:] if f.kind == FrameKind.INTERRUPT)
    found = on_cpu(without_notes(sample, **{nmi_state(sample): (1).to_bytes(4, "little")}))
    assert found.registers_from == f"pt_regs {whole.frames[number - 1].cfa:#x}"
    assert [(f.ip, f.sp, f.mark) for f in found.frames] == [(f.ip, f.sp, f.mark) for f in whole.frames[number:]]
    assert found.end == End.USER


def test_a_cpu_that_handles_no_nmi_has_no_registers_there(sample: Session) -> None:
    """What lies on the NMI stack then is old."""
    session = without_notes(sample, **{nmi_state(sample): bytes(4), "panic_cpu": NO_CPU, "crashing_cpu": NO_CPU})
    found = on_cpu(session)
    assert (found.frames, found.end) == ((), End.STOPPED)
    assert "whose registers are not in the snapshot" in (words_or_none(found.end_reason) or "")


def test_a_task_that_panicked_came_from_user_mode_even_where_nothing_else_is_known(sample: Session) -> None:
    """The registers at the top of its stack are shown, as a guess: an NMI may have come before they were saved."""
    whole = on_cpu(sample)
    found = on_cpu(without_notes(sample, **{nmi_state(sample): bytes(4)}))
    (user,) = found.frames
    assert (user.kind, user.ip, user.sp) == (FrameKind.USER, whole.frames[-1].ip, whole.frames[-1].sp)
    assert (user.mark, user.doubt) == (Mark.GUESS, MaybeOfEarlierEntry())
    assert (found.end, found.end_reason) == (End.STOPPED, CpuNotSaved(0))


def crash_note(state: CpuState) -> bytes:
    """What crash_save_cpu() writes for these registers."""
    general = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi"
    names = [*general.split(), "orig_rax", "rip", "cs", "rflags", "rsp", "ss"]
    words = [state.registers[name] for name in names]
    status = bytes(112) + struct.pack("<21Q", *words) + bytes(56)
    return struct.pack("<3I8s", 5, 336, 1, b"CORE") + status


@pytest.mark.parametrize("damage", [None, "size", "name", "pointer"])
def test_the_note_that_a_crashing_kernel_kept_is_used(sample: Session, damage: str | None) -> None:
    """One that is no note is not believed."""
    at, note = 0xFFFFC90001000000, bytearray(crash_note(sample.snapshot.cpus[0]))
    if damage == "size":
        note[4] = 0
    if damage == "name":
        note[12] = ord("X")
    pointer = at - sample.linux.per_cpu_offset(0) if damage != "pointer" else 0
    pieces = {"crash_notes": (pointer & (1 << 64) - 1).to_bytes(8, "little"), f"at_{at:x}": bytes(note)}
    found, whole = on_cpu(without_notes(sample, **pieces)), on_cpu(sample)
    assert (found.registers_from == "crash_notes cpu 0") == (damage is None)
    if damage is None:
        assert [(f.ip, f.sp) for f in found.frames] == [(f.ip, f.sp) for f in whole.frames]

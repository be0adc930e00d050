"""Is a number in orig_rax that of a system call, and of which table?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import StackKind
from orcdbg.kernel.syscalls_ia32 import ia32_syscall_name
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, Frame, FrameKind, RegisterValue, StackTrace
from orcdbg.unwind.starts import running_start
from orcdbg.unwind.system_calls import name_of_call
from tests.build.sample_notes import without_notes


def trace(*symbols: str, orig_rax: int | None = 1, cs: int = 0x33, task: int = 0) -> StackTrace:
    """A stack of kernel frames in these functions, the innermost first, that ends at user registers."""
    place = {"rip": 0x401000, "rsp": 0x7FFD00000000, "cs": cs} | ({} if orig_rax is None else {"orig_rax": orig_rax})
    registers = {name: RegisterValue(value, "pt_regs") for name, value in place.items()}
    frames = [
        Frame(n, FrameKind.CALL, StackKind.TASK, 0, False, Location(name, 0, 16, None, True), registers)
        for n, name in enumerate(symbols)
    ]
    user = Frame(len(frames), FrameKind.USER, StackKind.UNKNOWN, 0x401000, True, None, registers)
    return StackTrace(task, 1, "init", 0, False, "made", (*frames, user), End.USER)


@pytest.mark.parametrize(
    ("frames", "orig_rax", "cs", "name"),
    [
        (["do_syscall_64", "entry_SYSCALL_64_after_hwframe"], 1, 0x33, "write"),
        (["entry_SYSCALL_64_after_hwframe"], -1 & (1 << 64) - 1, 0x33, None),  # a signal's return
        # An error code of a page fault, and a vector: numbers of calls, and none was made.
        (["error_entry", "asm_exc_page_fault"], 6, 0x33, None),
        (["asm_common_interrupt"], 0x22, 0x33, None),
        (["common_interrupt_return"], 6, 0x33, None),
        # 32-bit calls, by whatever instruction and of whatever program.
        (["do_int80_syscall_32", "entry_INT80_compat"], 4, 0x33, "write"),
        (["do_int80_emulation", "asm_int80_emulation"], 29, 0x23, "pause"),
        (["do_SYSENTER_32", "entry_SYSENTER_compat_after_hwframe"], 162, 0x23, "nanosleep"),
        (["do_fast_syscall_32", "entry_SYSCALL_compat_after_hwframe"], 240, 0x23, "futex"),
        (["entry_SYSCALL_compat_after_hwframe"], 0xFFFF_FFFF_0000_0001, 0x23, "exit"),
        # FRED has one entry, and what it called tells.
        (["do_syscall_64", "asm_fred_entrypoint_user"], 1, 0x33, "write"),
        (["exc_page_fault", "asm_fred_entrypoint_user"], 6, 0x33, None),
        # A new task has its parent's registers; a program that the kernel executes has zeros.
        (["schedule_tail", "ret_from_fork"], 56, 0x33, "clone"),
        (["ret_from_fork"], 120, 0x23, "clone"),
        (["ret_from_fork_asm"], 0, 0x33, None),
        # A CPU's own registers, in user mode.
        ([], 0, 0x33, None),
    ],
)
def test_a_call_is_named_where_one_was_made(
    sample: Session, frames: list[str], orig_rax: int, cs: int, name: str | None
) -> None:
    """The frame before the user's tells how the task came."""
    assert name_of_call(sample.linux, trace(*frames, orig_rax=orig_rax, cs=cs)) == name


def test_only_a_stack_that_ends_in_user_mode_has_a_call(sample: Session) -> None:
    """The registers of a walk that stopped may be anything."""
    made = trace("entry_SYSCALL_64_after_hwframe")
    assert name_of_call(sample.linux, made) == "write"
    assert name_of_call(sample.linux, replace(made, end=End.STOPPED)) is None
    assert name_of_call(sample.linux, trace("entry_SYSCALL_64_after_hwframe", orig_rax=None)) is None


@pytest.mark.parametrize(("status", "name"), [(0, "write"), (2, "exit")])
def test_a_task_that_died_of_an_oops_is_still_in_its_call(sample: Session, status: int, name: str) -> None:
    """It began anew below the registers of its entry; its thread_info says whether that was a 32-bit call."""
    (task,) = sample.unwinder.running
    at = task + sample.linux.types.offset("task_struct", "thread_info.status")
    session = without_notes(sample, **{f"at_{at:x}": status.to_bytes(4, "little")})
    assert name_of_call(session.linux, trace("rewind_stack_and_make_dead", task=task)) == name


def test_no_cpu_has_a_register_orig_rax(sample: Session) -> None:
    """QEMU's notes have 0 there, the number of `read`."""
    (note,) = sample.snapshot.cpus
    assert "orig_rax" in note.registers
    assert "orig_rax" not in running_start(note).registers


def test_numbers_of_32_bit_calls_have_gaps_and_an_end() -> None:
    """Neither is a call; nor is a negative number."""
    assert [ia32_syscall_name(n) for n in (0, 2, 120, 435)] == ["restart_syscall", "fork", "clone", "clone3"]
    assert {ia32_syscall_name(n) for n in (-1, 222, 387, 5000)} == {None}

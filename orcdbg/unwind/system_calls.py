"""Did a task come from user mode by a system call, and by which?

orig_rax of a `struct pt_regs` is a call's number only where a system call's entry code put it there. An exception's entry
code keeps its error code in that word, for a while, and an interrupt's its vector. Which entry code it was tells the frame
before the user's, and with it which table the number counts in: a 64-bit program may make 32-bit calls too, by int 0x80.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.syscalls import syscall_name
from orcdbg.unwind.batch.equal_stacks import SharedFrames
from orcdbg.unwind.frame import NEW_TASK, End, Frame, FrameKind, StackTrace


class CallTable(enum.Enum):
    """Which system calls a number counts among."""

    NATIVE = enum.auto()
    IA32 = enum.auto()


@dataclass(frozen=True, slots=True)
class SystemCall:
    """A system call by its number in a table."""

    number: int
    table: CallTable


_BY_ENTRY = {
    "entry_SYSCALL_64": CallTable.NATIVE,
    "entry_SYSCALL_64_safe_stack": CallTable.NATIVE,
    "entry_SYSCALL_64_after_hwframe": CallTable.NATIVE,
    "syscall_return_via_sysret": CallTable.NATIVE,
    "entry_SYSCALL_compat_after_hwframe": CallTable.IA32,
    "entry_SYSENTER_compat_after_hwframe": CallTable.IA32,
    "sysret32_from_system_call": CallTable.IA32,
    # Since 6.7 (be5341eb0d43, taken back to 6.1.68) int 0x80 is entered like an exception, with a number of -1 at first.
    "asm_int80_emulation": CallTable.IA32,
    "int80_emulation": CallTable.IA32,
    "entry_INT80_compat": CallTable.IA32,
}
# FRED has one entry for everything (6.9, 14619d912b65); what it called tells.
_ONE_ENTRY = "asm_fred_entrypoint_user"
_BY_HANDLER = {
    "do_syscall_64": CallTable.NATIVE,
    "do_fast_syscall_32": CallTable.IA32,
    "__do_fast_syscall_32": CallTable.IA32,
    "do_int80_emulation": CallTable.IA32,
    "int80_emulation": CallTable.IA32,
}
# Here a task that died of an oops begins anew, right below the registers of its last entry. By then exceptions have put -1
# in the place of their error codes.
REWOUND = ("rewind_stack_and_make_dead", "rewind_stack_do_exit")
_TS_COMPAT = 2  # of thread_info.status: the task is in a 32-bit call
# What makes a task, whose registers are a copy of its parent's in that call. A program that the kernel began to execute
# itself has been given zeros instead.
_FORKS = ("clone", "clone3", "fork", "vfork")
_USER32_CS = 0x23


def name_of_call(linux: Linux, trace: StackTrace) -> str | None:
    """The name of the system call that a task is in; None where it is in none, or where that is not known."""
    call = system_call(linux, trace)
    if call is None:
        return None
    name = _name(linux, call)
    is_new = _entry(trace.frames) in NEW_TASK
    return None if is_new and name not in _FORKS else name


def _name(linux: Linux, call: SystemCall) -> str | None:
    if call.table is CallTable.NATIVE:
        return syscall_name(linux, call.number)

    from orcdbg.kernel.syscalls_ia32 import ia32_syscall_name  # most machines make no such call

    return ia32_syscall_name(call.number)


def system_call(linux: Linux, trace: StackTrace) -> SystemCall | None:
    """The system call by which a task came from user mode; None where it came otherwise, or where that is not known."""
    if trace.end is not End.USER or len(trace.frames) < 2:
        return None
    table = _table(linux, trace)
    number = _user_value(trace.frames, "orig_rax")
    if table is None or number is None:
        return None
    if table is CallTable.IA32:
        number &= 0xFFFF_FFFF
    return SystemCall(number, table)


def _table(linux: Linux, trace: StackTrace) -> CallTable | None:
    entry = _entry(trace.frames)
    if entry == _ONE_ENTRY:
        symbols = (frame.location.symbol for frame in trace.frames if frame.location)
        return next((_BY_HANDLER[symbol] for symbol in symbols if symbol in _BY_HANDLER), None)
    if entry in REWOUND:
        return _table_by_status(linux, trace.task)
    if entry in NEW_TASK:
        return CallTable.IA32 if _user_value(trace.frames, "cs") == _USER32_CS else CallTable.NATIVE
    return _BY_ENTRY.get(entry)


def _table_by_status(linux: Linux, task: int) -> CallTable | None:
    try:
        status = linux.first_member("task_struct", ("thread_info.status",), task)
    except MemoryFault:
        return None
    if status is None:
        return None
    return CallTable.IA32 if status & _TS_COMPAT else CallTable.NATIVE


def _entry(frames: Sequence[Frame]) -> str:
    """The function of the frame before the user's: entry code, by which the task came."""
    if isinstance(frames, SharedFrames):
        place = frames.shape.levels[-1].prototype.location
    else:
        place = frames[-2].location if len(frames) > 1 and frames[-1].kind is FrameKind.USER else None
    return "" if place is None else place.symbol


def _user_value(frames: Sequence[Frame], name: str) -> int | None:
    """A register of user mode, None where it is not known."""
    if isinstance(frames, SharedFrames):
        return frames.user_value(name)
    held = frames[-1].registers.get(name)
    return None if held is None else held.value

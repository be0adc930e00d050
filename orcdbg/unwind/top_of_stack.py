"""What do the registers at the top of a task's stack say, which need not be a program's?

Every task's stack begins with a `struct pt_regs`. A program's registers are there while it is in the kernel. Kernel threads
have zeros there, and workers that the kernel made for a process, those of io_uring and vhost, have the process's registers
with an ip and a stack pointer of 0: copy_thread(), arch/x86/kernel/process.c, since 5.13 (50b7b6f29de3). sysenter saves
neither, and do_fast_syscall_32(), arch/x86/entry/common.c, fills in what the vDSO is known to go on with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orcdbg.base.errors import MemoryFault, NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import PAGE, U64
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.stacks import Stack, StackKind, task_registers, task_stack
from orcdbg.unwind.frame import Frame, FrameKind, Registers, RegisterValue
from orcdbg.unwind.reasons import MaybeOfEarlierEntry, NotSavedRegisters, SysenterKeepsNothing
from orcdbg.unwind.saved_registers import implausible, is_user, saved_registers
from orcdbg.unwind.system_calls import REWOUND
from orcdbg.unwind.walker import Walk, WalkEnd
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE

_VDSO_IMAGES = ("vdso_image_32", "vdso32_image")  # the latter in newer kernels
_SYSENTER = ("entry_SYSENTER_compat", "entry_SYSENTER_compat_after_hwframe")


def end_at_zeros(linux: Linux, walk: Walk, task: int) -> None:
    """Ends the walk of a task that died of an oops and has no program: below is only where it began.

    rewind_stack_and_make_dead() goes back to the top of the stack, right below the registers of the last entry.
    """
    kernel_frames = [frame for frame in walk.frames[-2:] if frame.kind is not FrameKind.USER]
    place = kernel_frames[-1].location if kernel_frames else None
    if place is None or place.symbol not in REWOUND:
        return
    own = task_stack(linux, task)
    if own is None or kernel_frames[-1].cfa != task_registers(linux, own):
        return

    user = walk.frames[-1] if walk.frames[-1].kind is FrameKind.USER else None
    if user is not None and _is_of_worker(user.registers):
        del walk.frames[-1]
    elif not (isinstance(walk.end_reason, NotSavedRegisters) and _has_zeros(linux, own)):
        return
    walk.end, walk.end_reason = WalkEnd.FIRST_FRAME, None


def add_first_user(linux: Linux, walk: Walk, own: Stack) -> None:
    """Adds the registers that a new task will begin with: it has no caller. A worker has no program to go to."""
    registers = _read(linux, own)
    if registers is None or not is_user(registers) or _is_of_worker(registers):
        return
    walk.frames.append(_user_frame(len(walk.frames), registers, own, linux))
    walk.end = WalkEnd.USER


def add_last_user(linux: Linux, walk: Walk, own: Stack) -> None:
    """Adds, as a guess, the registers with which the task of a CPU that panicked may have come from user mode.

    The CPU is in the kernel, or it would not have panicked; but an NMI may have come before the registers were saved.
    """
    registers = _read(linux, own)
    if registers is None or not is_user(registers) or _is_of_worker(registers) or implausible(registers):
        return
    frame = _user_frame(len(walk.frames), registers, own, linux)
    walk.frames.append(replace(frame, reliable=False, doubt=MaybeOfEarlierEntry()))


def fill_in_sysenter(linux: Linux, walk: Walk, task: int, images: Sequence[str] = _VDSO_IMAGES) -> None:
    """Puts into the user's frame what the kernel is about to fill in, while a placeholder is there.

    sysenter keeps neither ip nor stack pointer. The vDSO has put the latter into rbp, and goes on at its landing pad.

    `images` are the symbols that the image of the 32-bit vDSO may have.
    """
    if len(walk.frames) < 2 or walk.frames[-1].kind is not FrameKind.USER or walk.frames[-1].ip != 0:
        return
    user, entry = walk.frames[-1], walk.frames[-2].location
    if entry is None or entry.symbol not in _SYSENTER:
        return

    landing, rbp = _landing_pad(linux, task, images), user.registers.get("rbp")
    if landing is None or rbp is None:
        del walk.frames[-1]
        walk.end, walk.end_reason = WalkEnd.STOPPED, SysenterKeepsNothing()
        return
    registers = dict(user.registers)
    registers["rip"] = landing
    registers["rsp"] = RegisterValue(rbp.value, "rbp, where the vDSO keeps it over sysenter")
    walk.frames[-1] = replace(user, ip=landing.value, registers=registers, came_from=None)


def _landing_pad(linux: Linux, task: int, images: Sequence[str]) -> RegisterValue | None:
    """Where a task goes on after sysenter, in its vDSO; None where that is not known.

    Only the vDSO of 32-bit programs calls by sysenter: a pointer to another image, or into one, is damaged.
    """
    try:
        mm = linux.member("task_struct", "mm", task)
        image = linux.member("mm_struct", "context.vdso_image", mm)
        vdso = linux.member("mm_struct", "context.vdso", mm)
        pad = linux.types.offset("vdso_image", "sym_int80_landing_pad")
        ip = vdso + read_u64(linux.memory, image + pad & U64) & U64
    except (MemoryFault, NotFound):
        return None
    is_whole = image in [linux.find_address(name) for name in images] and vdso % PAGE == 0
    is_found = is_whole and vdso != 0 and not ip >> 32
    return RegisterValue(ip, f"vdso_image.sym_int80_landing_pad above {vdso:#x}") if is_found else None


def _is_of_worker(registers: Registers) -> bool:
    return registers["rip"].value == 0 and registers["rsp"].value == 0


def _has_zeros(linux: Linux, own: Stack) -> bool:
    try:
        return not any(linux.memory.read(task_registers(linux, own), PT_REGS_SIZE))
    except MemoryFault:
        return False


def _read(linux: Linux, own: Stack) -> dict[str, RegisterValue] | None:
    address = task_registers(linux, own)
    try:
        data = linux.memory.read(address, PT_REGS_SIZE)
    except MemoryFault:
        return None  # the frames that were found stand without it
    return saved_registers(data, PT_REGS, f"pt_regs {address:#x}")


def _user_frame(index: int, registers: Registers, own: Stack, linux: Linux) -> Frame:
    return Frame(
        index=index,
        kind=FrameKind.USER,
        stack=StackKind.UNKNOWN,
        ip=registers["rip"].value,
        exact=True,
        location=None,
        registers=registers,
        came_from=task_registers(linux, own) + PT_REGS["rip"],
    )

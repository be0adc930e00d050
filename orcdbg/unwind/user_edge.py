"""Where does a CPU come from in user mode, or go to, while entry or exit code has no ORC row for it?

Between the first instruction of a system call and the last saved register, and from where exit code leaves the task's stack
on, the rows say "end of stack": nothing is known. But the `syscall` instruction has put the user's ip into rcx, its stack
pointer is in rsp or in the CPU's TSS, the words that `iret` would take are pushed first and at one place, and on the way out
the registers that were restored still lie at the top of the task's stack. Mirrors entry_SYSCALL_64 and
swapgs_restore_regs_and_return_to_usermode of arch/x86/entry/entry_64.S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import MemoryFault, NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.reasons import Reason
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.stacks import Stack, StackKind, task_registers
from orcdbg.orc.effective import Source
from orcdbg.orc.rows import RowType
from orcdbg.unwind.frame import Frame, FrameKind, Registers, RegisterValue
from orcdbg.unwind.reasons import IretWordsPushed, ReachedThroughDoubt, UserIpInRcx, UserRegistersRestored
from orcdbg.unwind.saved_registers import USER_CS, implausible, is_user, saved_registers
from orcdbg.unwind.walker import Walk, WalkEnd
from orcdbg.x86.follow import straight
from orcdbg.x86.instructions import Instruction
from orcdbg.x86.registers import IRET_FRAME, IRET_SIZE, PT_REGS, PT_REGS_SIZE

_ENTRY, _SWITCHED, _FRAMED = "entry_SYSCALL_64", "entry_SYSCALL_64_safe_stack", "entry_SYSCALL_64_after_hwframe"
_LEFT = "entry_SYSRETQ_unsafe_stack"  # to 5.19 part of the next one
_SYSRET, _RESTORE = "syscall_return_via_sysret", "common_interrupt_return"
# Of 32-bit programs on CPUs that have `syscall` for them; they keep the user's stack pointer in r8.
_ENTRY_32, _SWITCHED_32, _FRAMED_32 = (
    "entry_SYSCALL_compat",
    "entry_SYSCALL_compat_safe_stack",
    "entry_SYSCALL_compat_after_hwframe",
)
_LEFT_32 = ("sysret32_from_system_call", "entry_SYSRETL_compat_unsafe_stack")
# Before 4.18 (d31a580266ee) no row said "end of stack".
_WITHOUT_CALLER = (RowType.END_OF_STACK, RowType.UNDEFINED)
_CS_64, _CS_32 = USER_CS[:2]
_SYSCALLS = (_FRAMED, _SYSRET, _RESTORE, "swapgs_restore_regs_and_return_to_usermode")


@dataclass(frozen=True, slots=True)
class _User:
    """The user's registers, the slot of their ip if they are saved, and why they are these."""

    registers: Registers
    slot: int | None
    why: Reason


def add_user(linux: Linux, walk: Walk, stacks: Sequence[Stack]) -> None:
    """Completes a walk that stopped at the edge of user mode by the user's frame, where that can be told.

    Args:
        linux: the kernel.
        walk: a walk whose last frame has a row that says "end of stack" and is not a first frame.
        stacks: those of the task, its own first, and those of its CPU.
    """
    if not walk.frames or walk.end is not WalkEnd.STOPPED:
        return
    last = walk.frames[-1]
    if last.location is None or not last.exact or last.row_type not in _WITHOUT_CALLER:
        return
    try:
        user = _find(linux, last, last.location.symbol, stacks)
    except (MemoryFault, NotFound):
        return
    if user is None:
        return

    # Where only the words that iret takes are pushed, these are the CFA; else it is the whole pt_regs.
    is_pushed = isinstance(user.why, IretWordsPushed)
    cfa = user.slot if is_pushed or user.slot is None else user.slot - PT_REGS["rip"]
    rule = f"sp+{cfa - last.sp}" if is_pushed and cfa is not None else None
    walk.frames[-1] = replace(
        last, source=Source.TRAMPOLINE, rule=rule, cfa=cfa, return_slot=user.slot, notes=(user.why,)
    )
    walk.frames.append(
        Frame(
            index=last.index + 1,
            kind=FrameKind.USER,
            stack=StackKind.UNKNOWN,
            ip=user.registers["rip"].value,
            exact=True,
            location=None,
            registers=user.registers,
            came_from=user.slot,
            reliable=last.is_trusted,
            doubt=None if last.is_trusted else ReachedThroughDoubt(last.index),
        )
    )
    walk.end, walk.end_reason = WalkEnd.USER, None


def _find(linux: Linux, frame: Frame, symbol: str, stacks: Sequence[Stack]) -> _User | None:
    """The user's registers, as far as the code tells where they are."""
    if symbol == _ENTRY:
        return _at_entry(linux, frame, stacks)
    if symbol == _ENTRY_32:
        return _at_entry_32(linux, frame)

    # On the way out by sysret the stack pointer is the user's already.
    if symbol == _LEFT or (symbol in (_SYSRET, *_LEFT_32) and not frame.sp >> 63):
        return _from_rcx(frame, frame.registers["rsp"], _CS_32 if symbol in _LEFT_32 else _CS_64)
    return _on_a_stack(linux, frame, symbol, stacks)


def _on_a_stack(linux: Linux, frame: Frame, symbol: str, stacks: Sequence[Stack]) -> _User | None:
    """While the user's registers are on the task's stack, or still on it when exit code has gone over to the entry stack."""
    own = next((stack for stack in stacks if stack.kind is StackKind.TASK), None)
    if own is None or symbol not in (_SWITCHED, *_SYSCALLS, _SWITCHED_32, _FRAMED_32):
        return None
    if own.begin <= frame.sp <= own.end:
        return _on_task_stack(linux, frame, symbol, own, stacks)

    is_on_entry_stack = any(stack.kind is StackKind.ENTRY and stack.begin <= frame.sp <= stack.end for stack in stacks)
    return _after_restoring(linux, frame, symbol, own) if is_on_entry_stack and symbol in _SYSCALLS else None


def _at_entry(linux: Linux, frame: Frame, stacks: Sequence[Stack]) -> _User | None:
    """In entry_SYSCALL_64, which keeps the user's stack pointer in rsp, and then in the TSS."""
    is_kept = _has_kept_sp(linux, frame)
    if is_kept is None:
        return None
    return _from_rcx(frame, _kept_sp(linux, stacks) if is_kept else frame.registers["rsp"])


def _at_entry_32(linux: Linux, frame: Frame) -> _User | None:
    """In entry_SYSCALL_compat, which keeps the user's stack pointer in rsp, and then in r8."""
    is_kept = _has_kept_sp(linux, frame)
    if is_kept is None:
        return None
    return _from_rcx(frame, frame.registers.get("r8") if is_kept else frame.registers["rsp"], _CS_32)


def _on_task_stack(linux: Linux, frame: Frame, symbol: str, own: Stack, stacks: Sequence[Stack]) -> _User | None:
    """While the words that iret takes are pushed, and once they all are."""
    saved = task_registers(linux, own)
    iret = saved + PT_REGS_SIZE - IRET_SIZE
    if saved <= frame.sp <= iret:
        words = linux.memory.read(iret, IRET_SIZE)
        registers = saved_registers(words, IRET_FRAME, f"interrupt frame {iret:#x}")
        return _checked(_User(registers, iret, IretWordsPushed()))

    if not iret < frame.sp <= iret + IRET_SIZE:
        return None
    if symbol == _SWITCHED_32:
        return _from_rcx(frame, frame.registers.get("r8"), _CS_32)
    return _from_rcx(frame, _kept_sp(linux, stacks)) if symbol == _SWITCHED else None


def _after_restoring(linux: Linux, frame: Frame, symbol: str, own: Stack) -> _User | None:
    """On the entry stack, which exit code goes over to with the user's registers restored."""
    saved = task_registers(linux, own)
    registers = saved_registers(linux.memory.read(saved, PT_REGS_SIZE), PT_REGS, f"pt_regs {saved:#x}")

    # Unless it leaves by iret, rcx is the ip that sysret goes to: another one is of another system call.
    rcx = frame.registers.get("rcx")
    if symbol != _RESTORE and rcx is not None and rcx.value != registers["rip"].value:
        return None
    return _checked(_User(registers, saved + PT_REGS["rip"], UserRegistersRestored()))


def _checked(user: _User) -> _User | None:
    return user if is_user(user.registers) and implausible(user.registers) is None else None


def _from_rcx(frame: Frame, sp: RegisterValue | None, code_segment: int = _CS_64) -> _User | None:
    ip, flags = frame.registers.get("rcx"), frame.registers.get("r11")
    if ip is None or flags is None or sp is None or ip.value >> 63:
        return None
    cs = RegisterValue(code_segment, "the mode that syscall and sysret are for")
    ip = ip._replace(source=f"rcx of frame #{frame.index}")
    flags = flags._replace(source=f"r11 of frame #{frame.index}")
    return _User({"rip": ip, "rsp": sp, "rflags": flags, "cs": cs}, None, UserIpInRcx())


def _has_kept_sp(linux: Linux, frame: Frame) -> bool | None:
    """Whether entry_SYSCALL_64 has put rsp away by now, and may use it for something else; None where that is not known."""
    start = frame.ip if frame.location is None else frame.location.start
    code = linux.memory.read(start, frame.ip - start)
    for address, is_kept in straight(code, start, False, lambda kept, insn: kept or _keeps_sp(insn)):
        if is_kept:
            return True
        if address == frame.ip:
            return False
    return None


def _keeps_sp(insn: Instruction) -> bool:
    """Whether an instruction is `mov %rsp, %gs:...`, or `mov %esp, %r8d` of 32-bit calls."""
    operands = insn.operands.replace(" ", "")
    return insn.mnemonic.startswith("mov") and (operands.startswith("%rsp,%gs:") or operands == "%esp,%r8d")


def _kept_sp(linux: Linux, stacks: Sequence[Stack]) -> RegisterValue | None:
    """The user's stack pointer, which entry_SYSCALL_64 keeps in an unused word of the CPU's TSS.

    To 4.19 it had a variable of its own, and that word was in no use (98f05b5138f0).
    """
    cpu = next((stack.cpu for stack in stacks if stack.cpu is not None), None)
    if cpu is None:
        return None
    own = linux.per_cpu("rsp_scratch", cpu)
    if own is not None:
        return RegisterValue(read_u64(linux.memory, own), f"rsp_scratch {own:#x}")

    area = linux.per_cpu("cpu_tss_rw", cpu)
    if area is None:
        return None
    at = area + linux.types.offset("tss_struct", "x86_tss.sp2")
    return RegisterValue(read_u64(linux.memory, at), f"cpu_tss_rw.x86_tss.sp2 {at:#x}")

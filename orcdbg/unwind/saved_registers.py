"""What did an interrupt save, and can these be registers that one saved?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orcdbg.base.errors import MemoryFault
from orcdbg.unwind.frame import Registers, RegisterValue
from orcdbg.unwind.reasons import Implausible, RegisterImplausible, UserCodeOnKernelStack

if TYPE_CHECKING:
    from orcdbg.patches.code import Code

_SELECTORS = ("cs", "ss")
# Selectors of the code segments that a kernel and its programs run with, bare and under Xen.
_KERNEL_CS, USER_CS = (0x10, 0x08, 0xE030), (0x33, 0x23, 0xE033, 0xE02B)
_LOCAL, _USER = 4, 3  # bits of a selector: it is one of the program's own table (LDT), and of user mode
CODE_SEGMENTS = (*_KERNEL_CS, *USER_CS)
# Code in which rsp may be anything: the user's, or a place to compute in. See user_edge.py.
_USERS_SP = (
    *("entry_SYSCALL_64", "entry_SYSRETQ_unsafe_stack", "syscall_return_via_sysret"),
    *("entry_SYSCALL_compat", "entry_SYSRETL_compat_unsafe_stack", "sysret32_from_system_call"),
)
# Bytes between a task's user registers and its stack's end; 16 where the kernel was built for FRED (from 6.9 on).
USER_PADDINGS = (0, 16)
LISTED_ABOVE = 0xFFFF_FFFF_8000_0000  # code that calls the kernel directly lies here, as its image does


def saved_registers(data: bytes, places: Mapping[str, int], what: str) -> dict[str, RegisterValue]:
    """Registers that were saved in `data` at the offsets `places`, each naming its place in `what`."""
    found = {}
    for name, at in places.items():
        size = 2 if name in _SELECTORS else 8  # 6.9 and later keep FRED's event data above a selector
        found[name] = RegisterValue(int.from_bytes(data[at : at + size], "little"), f"{what} +{at}")
    return found


def is_user(registers: Registers) -> bool:
    """True for registers of user mode: their code segment has privilege 3."""
    cs = registers.get("cs")
    return cs is not None and cs.value & 3 == 3


def implausible(registers: Registers, has_users_sp: bool = False) -> Implausible | None:
    """Why these cannot be registers that an interrupt saved, or None; `has_users_sp` where the kernel runs with the user's."""
    cs, flags, sp, ss = (registers[name].value for name in ("cs", "rflags", "rsp", "ss"))

    # The code segments of a program's own table are never the kernel's (modify_ldt makes them with privilege 3).
    if cs in USER_CS or cs & (_LOCAL | _USER) == (_LOCAL | _USER):
        # The user's flags are whatever r11 held at a syscall instruction: seen in the lab with reserved bits set.
        return None if ss & 3 == 3 else UserCodeOnKernelStack(ss)
    if cs not in _KERNEL_CS:
        return RegisterImplausible("cs", cs)

    # Reserved bits below 32 are zero on hardware; QEMU's emulator leaves in them what popf or sysret brought.
    if not flags & 2 or flags >> 32:
        return RegisterImplausible("rflags", flags)
    return None if sp >> 63 or has_users_sp else RegisterImplausible("rsp", sp)


def may_have_users_sp(code: Code, ip: int) -> bool:
    """Whether kernel code that was interrupted at `ip` may run with the user's stack pointer, or with none."""
    place = code.locate(ip)
    return place is not None and place.symbol in _USERS_SP


def is_unlisted(code: Code, ip: int, exact: bool) -> bool:
    """Whether code that no list names may be at an ip: memory where such code lies, and a call before a return address.

    The kernel's unwinder believes any such ip and goes on by frame pointer (orc_fp_entry), no longer reliable.
    """
    inside = ip if exact else ip - 1
    if inside < LISTED_ABOVE or code.is_text(inside) or code.locate(inside) is not None:
        return False
    try:
        code.memory.read(inside, 1)
    except MemoryFault:
        return False
    return exact or code.follows_call(ip) is True

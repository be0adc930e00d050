"""Does this kernel run under Xen, and in which way?

A paravirtualised (PV) kernel runs in ring 3: it reaches the hypervisor by calls, has no interrupts and page tables of its own
beyond what Xen lets it have, and its page tables hold machine addresses.
"""

from __future__ import annotations

import enum

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import read_u32
from orcdbg.kernel.linux import Linux

# What a PV kernel leaves to Xen (HYPERVISOR_VIRT_START and _END, xen/include/public/arch-x86/xen-x86_64.h).
XEN_START, XEN_END = 0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000
# The code segment of a PV kernel as it finds it in registers that were saved: Xen takes away the privilege level, which is 3
# for the kernel and its programs alike (create_bounce_frame, xen/arch/x86/x86_64/entry.S).
PV_KERNEL_CS = 0xE030

HYPERCALL_PAGE = "hypercall_page"
# The page of hypercalls: a stub of so many bytes for each, by its number. `iret` never comes back.
HYPERCALL_STUB, HYPERCALL_IRET = 32, 23
HYPERCALLS = 4096 // HYPERCALL_STUB


class XenDomain(enum.IntEnum):
    """`enum xen_domain_type`, include/xen/xen.h."""

    NATIVE = 0
    PV = 1
    HVM = 2


def xen_domain(linux: Linux) -> XenDomain | None:
    """As what the kernel runs under Xen; `NATIVE` where it does not, None where the snapshot does not tell."""
    address = linux.find_address("xen_domain_type")
    if address is None:
        return XenDomain.NATIVE  # built without
    try:
        return XenDomain(read_u32(linux.memory, address))
    except (MemoryFault, ValueError):
        return None


def is_xen_pv(linux: Linux) -> bool:
    """Whether the kernel is known to run as a PV domain of Xen."""
    return xen_domain(linux) is XenDomain.PV

"""Which rule holds in the page of hypercalls, whose stubs the hypervisor wrote?

As built each stub is a return, with a row for its first byte only (arch/x86/xen/xen-head.S, to 6.12). What Xen put there pushes
registers, so a CPU that waits for the hypervisor is behind the `syscall` with more on its stack than any row says.
"""

from __future__ import annotations

from orcdbg.base.errors import MemoryFault
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.xen import HYPERCALL_IRET, HYPERCALL_PAGE, HYPERCALL_STUB, HYPERCALLS, XenDomain, xen_domain
from orcdbg.orc.cfa import sp_rule
from orcdbg.orc.effective import Derived, Effective, Source
from orcdbg.orc.reasons import InsideHypercall
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.source import Lookup
from orcdbg.x86.stack_effects import stack_boundaries

_RETURN_ADDRESS, _FLAGS = 8, 8
# The stub of `iret` is jumped to. It is given a word of flags, and above it the words of an interrupt (struct iret_context,
# xen/include/public/arch-x86/xen-x86_64.h), those that an interrupted program or kernel function is continued with.
_IRET_FRAME = OrcRow(OrcRegister.SP, _FLAGS, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)


class InsideHypercallStubs:
    """The instructions of the stubs that Xen wrote.

    Args:
        linux: the kernel, over memory as it was.
    """

    def __init__(self, linux: Linux) -> None:
        self._memory = linux.memory
        page = linux.find_address(HYPERCALL_PAGE)
        self._page = None if page is None or xen_domain(linux) in (None, XenDomain.NATIVE) else page

    def at(self, lookup: Lookup) -> Effective | None:
        """The rule where a CPU is inside a stub; none returns into one, since they call nothing but the hypervisor."""
        if self._page is None or not lookup.exact:
            return None
        number, offset = divmod(lookup.ip - self._page, HYPERCALL_STUB)
        if not 0 <= number < HYPERCALLS:
            return None

        start = lookup.ip - offset
        try:
            boundary = stack_boundaries(self._memory.read(start, HYPERCALL_STUB), start).get(lookup.ip)
        except MemoryFault:
            return None
        if boundary is None or boundary.pushed is None:
            return None

        is_iret = number == HYPERCALL_IRET
        rule = sp_rule(boundary.pushed + (_FLAGS if is_iret else _RETURN_ADDRESS))
        return Derived(
            lookup.entry,
            rule,
            _IRET_FRAME if is_iret else FUNCTION_ENTRY,
            InsideHypercall(number),
            Source.TRAMPOLINE,
            tuple(insn.mnemonic for insn in boundary.path),
        )

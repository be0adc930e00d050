"""What did Xen, and the kernel's early start under Xen, write over the kernel's text?

Of a paravirtualised (PV) kernel two places, both before any other patch. The page of hypercalls: Xen fills it while it builds
the domain (hypercall_page_initialise_ring3_kernel(), xen/arch/x86/pv/hypercall.c); there is none since 6.13 (7fa0da537368, also
in the stable kernels of December 2024), which call the hypervisor through a static call. And the jump at the end of an
interrupt's return, which leads to `native_iret` as built: xen_start_kernel() turns it to `xen_iret` (since 5.19, 8b87d8cec1b3).
"""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.kernel.linux import Linux
from orcdbg.kernel.xen import HYPERCALL_IRET, HYPERCALL_PAGE, HYPERCALL_STUB, HYPERCALLS, XenDomain, xen_domain
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, Spans, Undecidable, WorkingText, make_spans

_JUMP, _TARGET = "early_xen_iret_patch", "xen_iret"
_PREFIX = "xen_hypercall_"
# rcx and r11, which `syscall` overwrites; for `iret` also rax, which it takes from there.
_PUSHES, _POPS_AND_RETURN, _IRET_PUSHES = b"\x51\x41\x53", b"\x41\x5b\x59\xc3", b"\x51\x41\x53\x50"


class XenPass:
    """Places that only a kernel under Xen has changed.

    Args:
        linux: the kernel.
    """

    mechanism = "xen"

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    def _domain(self) -> XenDomain:
        """As what the kernel runs; Undecidable where nobody knows."""
        domain = xen_domain(self._linux)
        if domain is None:
            raise Undecidable("xen_domain_type is not in the snapshot")
        return domain

    def _decided_by(self) -> str:
        return f"xen_domain_type = {XenDomain.PV.value} (PV)"


class HypercallPagePass(XenPass):
    """The stubs of the page of hypercalls, a place each."""

    def __init__(self, linux: Linux, page: int) -> None:
        super().__init__(linux)
        self._page = page

    def spans(self) -> Spans:
        """The stubs, by number of their hypercall."""
        return make_spans(
            [self._page + HYPERCALL_STUB * number for number in range(HYPERCALLS)], [HYPERCALL_STUB] * HYPERCALLS
        )

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """A call of the hypervisor that keeps what `syscall` destroys; `iret` pushes more, and does not come back."""
        if self._domain() is not XenDomain.PV:
            # vmcall or vmmcall, as the hypervisor's own CPU has it.
            raise Undecidable("Xen fills the page of an HVM domain by the CPU that it runs on itself")
        number = index.to_bytes(4, "little")
        before, behind = (_IRET_PUSHES, b"") if index == HYPERCALL_IRET else (_PUSHES, _POPS_AND_RETURN)
        text.write(self._page + HYPERCALL_STUB * index, before + b"\xb8" + number + b"\x0f\x05" + behind)
        return Applied(self._name(index), f"{self._decided_by()}: Xen filled the page")

    def _name(self, number: int) -> str:
        address = self._page + HYPERCALL_STUB * number - self._linux.slide
        span = self._linux.symbols.at(address)
        name = span.symbol.name if span is not None and span.symbol.address == address else ""
        return f"hypercall {number}" + (f" ({name.removeprefix(_PREFIX)})" if name.startswith(_PREFIX) else "")


class IretPass(XenPass):
    """The jump at the end of an interrupt's return."""

    def __init__(self, linux: Linux, jump: int, target: int) -> None:
        super().__init__(linux)
        self._jump, self._target = jump, target

    def spans(self) -> Spans:
        """The one place."""
        return make_spans([self._jump], [5])

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """The jump leads to Xen's way to return."""
        if self._domain() is not XenDomain.PV:
            return None
        distance = self._target - self._jump - 5 & 0xFFFF_FFFF
        text.write(self._jump, b"\xe9" + distance.to_bytes(4, "little"))
        return Applied(_TARGET, f"{self._decided_by()}: xen_start_kernel() turned the jump to {_TARGET}")


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[PatchPass]:
    if build.is_module or xen_domain(build.linux) is XenDomain.NATIVE:
        return []
    page, jump, target = (build.linux.find_address(name) for name in (HYPERCALL_PAGE, _JUMP, _TARGET))
    passes: list[PatchPass] = [] if page is None else [HypercallPagePass(build.linux, page)]
    return passes if jump is None or target is None else [*passes, IretPass(build.linux, jump, target)]


# The stubs push registers, but where they are is known without a table: orc/rules/xen.py has their rule.
XEN = Mechanism(XenPass.mechanism, _passes)

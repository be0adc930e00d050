"""What Xen, and the start of a kernel under Xen, wrote over the kernel's text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from orcdbg.kernel.linux import Linux
from orcdbg.patches.mechanisms.xen import XEN, HypercallPagePass, IretPass
from orcdbg.patches.site import Undecidable
from tests.patches.world import DATA, TEXT, MiniLinux, branch, text_of

NAMES = {"hypercall_page": TEXT, "xen_hypercall_sched_op": TEXT + 32 * 2, "xen_iret": TEXT + 0x150}
JUMP = {"early_xen_iret_patch": TEXT + 0x100, "xen_domain_type": DATA}


def linux_as(domain: int | None) -> Linux:
    """A kernel that runs in this way; None where its memory does not tell."""
    return cast(Linux, MiniLinux({**NAMES, **JUMP}, {} if domain is None else {DATA: domain}))


def test_a_stub_calls_the_hypervisor_by_its_number() -> None:
    """And keeps what `syscall` overwrites; the rest of its 32 bytes stays as built."""
    text = text_of({0x40: b"\xc3"})
    applied = HypercallPagePass(linux_as(1), TEXT).apply(2, text)
    assert text.read(TEXT + 0x40, 15).hex() == "514153b8020000000f05415b59c3cc"
    assert applied is not None
    assert applied.name == "hypercall 2 (sched_op)"


def test_the_stub_of_iret_does_not_come_back() -> None:
    """It pushes one register more, and nothing follows the call."""
    text = text_of({}, 32 * 24)
    HypercallPagePass(linux_as(1), TEXT).apply(23, text)
    assert text.read(TEXT + 23 * 32, 12).hex() == "51415350b8170000000f05cc"


def test_a_page_has_a_place_for_each_stub() -> None:
    """128 of 32 bytes."""
    starts, sizes = HypercallPagePass(linux_as(1), TEXT).spans()
    assert (len(starts), int(starts[1]), set(sizes.tolist())) == (128, TEXT + 32, {32})


def test_the_jump_behind_an_interrupt_leads_to_xens_way_to_return() -> None:
    """Only in a PV domain: another under Xen returns by itself."""
    pv, hvm = (IretPass(linux_as(domain), TEXT + 0x100, TEXT + 0x150) for domain in (1, 2))
    text = text_of({0x100: b"\xe9\0\0\0\0"})
    assert hvm.apply(0, text) is None
    assert pv.apply(0, text) is not None
    assert text.read(TEXT + 0x100, 5) == branch(b"\xe9", TEXT + 0x100, TEXT + 0x150)


@pytest.mark.parametrize("domain", [None, 2, 7])
def test_what_is_not_known_is_undecided(domain: int | None) -> None:
    """The page of an HVM domain has other instructions; a damaged or missing variable tells nothing."""
    with pytest.raises(Undecidable):
        HypercallPagePass(linux_as(domain), TEXT).apply(0, text_of({}))


@pytest.mark.parametrize(
    ("domain", "is_module", "count"), [(0, False, 0), (1, False, 2), (1, True, 0), (None, False, 2)]
)
def test_a_kernel_on_the_bare_machine_has_no_such_places(domain: int | None, is_module: bool, count: int) -> None:
    """Nor has a module."""
    build = SimpleNamespace(linux=linux_as(domain), is_module=is_module)
    assert len(XEN.make(cast(Any, build), ())) == count

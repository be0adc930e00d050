"""Rules where a kernel and Xen hand over to each other: the stubs of hypercalls, entries, and the way back."""

from __future__ import annotations

import pytest

from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import sp_rule
from orcdbg.orc.effective import Derived, Effective
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.reasons import BesideXen, InsideHypercall
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRegister, OrcRow, RowType
from orcdbg.orc.table import OrcEntry
from tests.build.code import MadeKernelCode, MadeRows
from tests.build.memory import SparseMemory

PAGE, FUNCTION, COMMON, DOMAIN = (0xFFFF_FFFF_8100_0000 + at for at in (0, 0x2000, 0x3000, 0x4000))
UNDEFINED = OrcRow(OrcRegister.UNDEFINED, 0, OrcRegister.UNDEFINED, 0, RowType.UNDEFINED, False)
WORDS_ABOVE_ERROR = OrcRow(OrcRegister.SP, 8, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
CALL_OF_29 = bytes.fromhex("514153b81d0000000f05415b59c3") + b"\xcc" * 18
CALL_OF_IRET = bytes.fromhex("51415350b8170000000f05") + b"\xcc" * 21
POPS = b"\x59\x41\x5b"


def jump_from(at: int) -> bytes:
    """A jump to the common code."""
    return b"\xe9" + (COMMON - at - 5 & 0xFFFF_FFFF).to_bytes(4, "little")


def rule_at(ip: int, code: bytes = b"", symbol: str = "xen_iret", domain: int = 1, exact: bool = True) -> Effective:
    """What holds there, in a kernel with a page of two stubs and a function of this code."""
    memory = SparseMemory()
    memory.put(DOMAIN, domain.to_bytes(4, "little"))
    memory.put(PAGE, (CALL_OF_29 * 23 + CALL_OF_IRET).ljust(4096, b"\xcc"))
    memory.put(FUNCTION, code)

    def locate(address: int) -> Location | None:
        is_in_page = address < FUNCTION
        start, size = (PAGE, 4096) if is_in_page else (FUNCTION, len(code))
        return Location("hypercall_page" if is_in_page else symbol, start, size, None, True)

    def row(address: int) -> OrcEntry:
        return OrcEntry("table", 0, address, None, bytes(6), WORDS_ABOVE_ERROR if address == COMMON else UNDEFINED)

    symbols = {"hypercall_page": (PAGE, 4096), "xen_domain_type": (DOMAIN, 4)}
    return OrcOverlay(MadeKernelCode(memory, locate, symbols), MadeRows(row)).at(ip, exact)


@pytest.mark.parametrize(("offset", "depth"), [(0, 8), (1, 16), (3, 24), (10, 24), (12, 16), (13, 8)])
def test_inside_a_hypercall_the_stack_is_what_its_instructions_pushed(offset: int, depth: int) -> None:
    """A CPU that waits for the hypervisor is behind the `syscall`."""
    found = rule_at(PAGE + 32 + offset)
    assert isinstance(found, Derived)
    assert (found.rule, found.row, found.reason) == (sp_rule(depth), FUNCTION_ENTRY, InsideHypercall(1))


def test_inside_the_hypercall_that_continues_somebody_his_registers_are_above() -> None:
    """Behind three pushes and the word of flags."""
    found = rule_at(PAGE + 32 * 23 + 11)
    assert isinstance(found, Derived)
    assert (found.rule, found.row.type) == (sp_rule(32), RowType.REGS_PARTIAL)


@pytest.mark.parametrize(("domain", "exact"), [(0, True), (1, False), (9, True)])
def test_elsewhere_the_page_has_no_rule(domain: int, exact: bool) -> None:
    """On the bare machine, where nobody knows, and for a return address, of which there is none in a stub."""
    assert rule_at(PAGE + 42, domain=domain, exact=exact).rule is None


@pytest.mark.parametrize(("offset", "above"), [(0, 24), (1, 16), (3, 8)])
def test_an_entry_has_two_registers_below_what_the_cpu_would_push(offset: int, above: int) -> None:
    """And an error code, where the code that it goes on to has one."""
    found = rule_at(FUNCTION + offset, POPS + jump_from(FUNCTION + 3), "xen_asm_exc_page_fault")
    assert isinstance(found, Derived)
    assert (found.rule, found.row.type, found.reason) == (sp_rule(above), RowType.REGS_PARTIAL, BesideXen())


def test_a_system_call_has_no_error_code() -> None:
    """Whatever the rows say of the code behind it."""
    found = rule_at(FUNCTION, POPS + jump_from(FUNCTION + 3), "xen_entry_SYSCALL_64")
    assert found.rule == sp_rule(16)


def test_the_way_back_begins_with_these_words() -> None:
    """And pushes more, by the kernel's own code since 6.1."""
    code = bytes.fromhex("6a00514153" + "50b8170000000f05")
    assert [rule_at(FUNCTION + at, code).rule for at in (0, 2, 13)] == [sp_rule(0), sp_rule(8), sp_rule(32)]


@pytest.mark.parametrize("code", [b"\x90" * 8, POPS + b"\x90" * 8, b""])
def test_an_entry_that_looks_otherwise_has_no_rule(code: bytes) -> None:
    """Nothing is taken for granted of code that was not seen."""
    assert rule_at(FUNCTION, code, "xen_asm_exc_page_fault").rule is None

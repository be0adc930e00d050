"""The virtual CPUs of a kernel that runs under Xen, in a machine made by hand: pages, two stacks of Xen's, its structures."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest

from orcdbg.base.errors import MemoryFault
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.xen import PV_KERNEL_CS
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import PlacedBy, Placement, PlacementSource
from orcdbg.unwind.reasons import HeldByXen, WhereInXen
from orcdbg.unwind.xen_vcpus import VirtualCpus, virtual_cpus
from orcdbg.x86.registers import PT_REGS
from tests.build.kernel import U64, made_linux
from tests.build.memory import PageTableBuilder, SparseMemory

PAGE = 4096
TEXT, DATA = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0000
AREAS = (0xFFFF_8880_10A0_0000, 0xFFFF_8880_10B0_0000)  # each CPU's own data
TASKS = (0xFFFF_8880_0000_1000, 0xFFFF_8880_0000_2000)
STACKS = (0xFFFF_C900_0000_0000, 0xFFFF_C900_0001_0000)
MM, PGD = 0xFFFF_8880_0000_3000, 0xFFFF_8880_0000_4000
XEN_CODE = 0xFFFF_82D0_4031_4416
XEN_STACKS = (0xFFFF_8300_1FFD_0000, 0xFFFF_8300_1FFC_8000)
FRAME_TABLE, DIRECT_MAP = 0xFFFF_82E0_0000_0000, 0xFFFF_8300_0000_0000
FRAME = 0x108  # from the guest's registers to the end of Xen's stack, in 4.17
USER_IP, USER_SP = 0x47_B6FD, 0x7FFE_669D_D1F8
SYMBOLS = {
    "_text": (TEXT, 0),
    "xen_domain_type": (DATA, 4),
    "nr_cpu_ids": (DATA + 8, 4),
    "__cpu_online_mask": (DATA + 16, 8),
    "__per_cpu_offset": (DATA + 32, 16),
    "current_task": (0x100, 8),
    "xen_vcpu_id": (0x108, 4),
}
STRUCTURES = {
    "task_struct": (64, {"stack": (0, U64), "mm": (8, U64)}),
    "mm_struct": (64, {"pgd": (0, U64)}),
}


def registers(ip: int, sp: int, cs: int = 0xE033, ss: int = 0xE02B, **more: int) -> dict[str, int]:
    """A guest's registers, each another number."""
    values = {name: 0x1000 + number for number, name in enumerate(PT_REGS)}
    return values | {"rip": ip, "rsp": sp, "cs": cs, "ss": ss, "rflags": 0x246} | more


def encoded(values: dict[str, int]) -> bytes:
    """As `struct cpu_user_regs` begins."""
    return struct.pack("<21Q", *(values[name] for name in PT_REGS))


@dataclass
class Machine:
    """Memory by virtual address, and what the two physical CPUs have."""

    physical: SparseMemory = field(default_factory=SparseMemory)
    tables: PageTableBuilder = field(default_factory=lambda: PageTableBuilder(4))
    cpus: list[CpuState] = field(default_factory=list)
    next_page: int = 0x200_0000

    def __post_init__(self) -> None:
        self.put(TEXT, bytes(8))
        self.put(DATA, struct.pack("<IIIIQQQQ", 1, 0, 2, 0, 3, 0, *AREAS))
        for number, area in enumerate(AREAS):
            self.put(area + 0x100, struct.pack("<QI", TASKS[number], number))
            self.put(TASKS[number], struct.pack("<QQ", STACKS[number], 0))
            for page in range(4):
                self.put(STACKS[number] + PAGE * page, bytes(8))

    def put(self, address: int, data: bytes) -> int:
        """Lays bytes into the page at a virtual address, and gives the number of that page of memory."""
        page = address & -PAGE
        try:
            physical = KernelMemory(self.physical, self.tables.root, 4).translate(page)
        except MemoryFault:
            physical, self.next_page = self.next_page, self.next_page + PAGE
            self.tables.map(page, physical)
            self.tables.write(self.physical)
            self.physical.put(physical, bytes(PAGE))
        start = address - page
        self.physical.pieces[physical][start : start + len(data)] = data
        return physical // PAGE

    def stop(
        self, number: int, values: dict[str, int], gs: int = 0, kernel_gs: int = 0, cr3: int | None = None
    ) -> None:
        """Adds a physical CPU."""
        root = self.tables.root if cr3 is None else cr3
        name = f"NT_PRSTATUS cpu {number}"
        self.cpus.append(CpuState(number, name, values, number + 1, root, 0, None, gs, kernel_gs))

    def stop_in_xen(self, number: int, guest: dict[str, int], below: int = 0x60, gs: int | None = None) -> None:
        """Adds a physical CPU that runs Xen, `below` the guest's registers on its stack."""
        top = XEN_STACKS[number] + 0x8000
        info = encoded(guest) + bytes(32) + struct.pack("<QQ", number, XEN_STACKS[number]) + bytes(48)
        assert len(info) == FRAME
        self.put(top - FRAME, info)
        own = {**registers(XEN_CODE, top - FRAME - below, 0xE008, 0xE010), "rbx": 0xBAD, "rbp": guest["rbp"]}
        self.stop(number, own, AREAS[number] if gs is None else gs)

    @property
    def linux(self) -> Linux:
        """The kernel."""
        return made_linux(KernelMemory(self.physical, self.tables.root, 4), STRUCTURES, SYMBOLS)

    def virtual(self) -> VirtualCpus:
        """What is known of the virtual CPUs."""
        self.tables.write(self.physical)
        place = Placement(0, 0, self.tables.root, 4, 0, PlacementSource(PlacedBy.OPTIONS))
        return virtual_cpus(self.linux, Snapshot("made", "made", self.physical, self.cpus, {}), place)


@pytest.fixture
def machine() -> Machine:
    """Two CPUs of which nothing is said yet."""
    return Machine()


def in_kernel(number: int) -> dict[str, int]:
    """Registers of a vCPU that waits for the hypervisor."""
    return registers(TEXT + 0x3AA, STACKS[number] + 0x3DE8)


def test_a_cpu_that_runs_the_kernel_in_ring_3_is_in_no_program(machine: Machine) -> None:
    """Its code segment has privilege 3, as a program's has."""
    machine.stop(0, in_kernel(0), AREAS[0])
    (state,) = machine.virtual().states
    assert (state.cpu, state.registers["cs"], state.is_in_user_mode) == (0, PV_KERNEL_CS, False)
    assert state.registers["rip"] == TEXT + 0x3AA


def test_a_program_is_told_by_the_user_half_of_its_page_tables(machine: Machine) -> None:
    """Those that it runs on have no kernel; another program's, of another domain, are not taken for its."""
    machine.put(TASKS[0] + 8, struct.pack("<Q", MM))
    machine.put(MM, struct.pack("<Q", PGD))
    machine.put(PGD, struct.pack("<QQ", 0x1234_5067, 0x2234_5067))
    own = machine.put(0x1000, struct.pack("<QQ", 0x1234_5067, 0x2234_5067)) * PAGE
    others = machine.put(0x2000, struct.pack("<QQ", 0x1234_5067, 0x9999_9067)) * PAGE
    for cr3, known in ((own, True), (others, False)):
        machine.cpus.clear()
        machine.stop(0, registers(USER_IP, USER_SP), 0, AREAS[0], cr3)
        found = machine.virtual()
        assert [state.is_in_user_mode for state in found.states] == [True] * known


def test_where_a_cpu_runs_xen_the_guests_registers_are_at_the_top_of_its_stack(machine: Machine) -> None:
    """All of them, and the number is the kernel's, whichever physical CPU it is."""
    machine.stop_in_xen(0, in_kernel(1), gs=AREAS[1])
    machine.stop_in_xen(1, in_kernel(0), gs=AREAS[0])
    first, second = machine.virtual().states
    for number, state in ((0, first), (1, second)):
        expected = in_kernel(number)
        assert state.cpu == number
        assert {name: state.registers[name] for name in ("rip", "rsp", "rbx", "r15")} == {
            name: expected[name] for name in ("rip", "rsp", "rbx", "r15")
        }


def test_what_entry_code_may_not_have_saved_yet_is_left_out(machine: Machine) -> None:
    """At the frame's beginning a register is known where CPU and frame agree, and what the CPU pushed always."""
    machine.stop_in_xen(0, in_kernel(0), below=0)
    machine.stop_in_xen(1, in_kernel(1), below=-PT_REGS["rip"])
    first, second = machine.virtual().states
    assert (first.registers["rsp"], first.registers["rbp"]) == (in_kernel(0)["rsp"], in_kernel(0)["rbp"])
    assert "rbx" not in first.registers
    assert (second.registers["rbx"], second.registers["rsp"]) == (0xBAD, in_kernel(1)["rsp"])


@pytest.mark.parametrize(
    ("below", "where"),
    [(-PT_REGS["rsp"], WhereInXen.ENTRY_CODE), (0x2000, WhereInXen.OTHER_STACK), (0x4000, WhereInXen.OTHER_STACK)],
)
def test_registers_that_xen_was_just_saving_are_not_shown(machine: Machine, below: int, where: WhereInXen) -> None:
    """Nor while it handles an NMI. What lies on the stack may be of long ago."""
    machine.stop_in_xen(0, in_kernel(0), below)
    found = machine.virtual()
    assert found.states == []
    assert found.missing[0] == HeldByXen(0, where)


def test_around_a_syscall_ip_and_flags_are_in_two_registers(machine: Machine) -> None:
    """While the stack pointer is still the guest's; where that may be a 32-bit program's, nothing is known."""
    own = registers(XEN_CODE, in_kernel(0)["rsp"], 0xE008, 0xE010, rcx=TEXT + 0x2A, r11=0x282)
    machine.stop(0, own, AREAS[0])
    (state,) = machine.virtual().states
    assert [state.registers[name] for name in ("rip", "rflags", "cs")] == [TEXT + 0x2A, 0x282, PV_KERNEL_CS]
    assert "rax" not in state.registers

    machine.cpus.clear()
    machine.stop(0, {**own, "rsp": 0xFFFF_D000}, AREAS[0])
    assert machine.virtual().missing[0] == HeldByXen(0, WhereInXen.ENTRY_CODE)


def add_domain(machine: Machine, saved: dict[str, int], number: int = 1, leads_back: bool = True) -> None:
    """Xen's own record of a vCPU: the page's owner, the domain, its array, the vCPU."""
    text = machine.put(TEXT, bytes(8))
    domain, array, vcpu = 0x3000, 0x4000, 0x5000
    machine.put(FRAME_TABLE + 32 * text, bytes(24) + struct.pack("<I", domain // PAGE))
    machine.put(DIRECT_MAP + domain + 8, struct.pack("<Q", DIRECT_MAP + array))
    machine.put(DIRECT_MAP + array + 8 * number, struct.pack("<Q", DIRECT_MAP + vcpu))
    owner = DIRECT_MAP + domain if leads_back else DIRECT_MAP
    machine.put(DIRECT_MAP + vcpu, struct.pack("<IIQQ", number, 0, DIRECT_MAP + 0x6000, owner))
    machine.put(DIRECT_MAP + vcpu + 0x288, encoded(saved))


def test_a_vcpu_on_no_cpu_has_its_registers_in_xens_structure(machine: Machine) -> None:
    """Found by the owner of the kernel's own page."""
    machine.stop(0, in_kernel(0), AREAS[0])
    add_domain(machine, in_kernel(1))
    states = machine.virtual().states
    assert [state.cpu for state in states] == [0, 1]
    assert states[1].registers["rsp"] == in_kernel(1)["rsp"]
    assert states[1].possible_kernel_bases == [AREAS[1]]


@pytest.mark.parametrize("what", ["nothing", "no way back", "another's stack", "selectors"])
def test_what_does_not_lead_back_to_the_kernel_is_not_believed(machine: Machine, what: str) -> None:
    """There is no frame then, and the reason is said."""
    machine.stop(0, in_kernel(0), AREAS[0])
    saved = in_kernel(0 if what == "another's stack" else 1)
    if what == "selectors":
        saved["cs"] = 0x10
    if what != "nothing":
        add_domain(machine, saved, leads_back=what != "no way back")
    found = machine.virtual()
    assert [state.cpu for state in found.states] == [0]
    assert found.missing == {1: HeldByXen(1, WhereInXen.NOT_FOUND)}


def test_a_cpu_that_runs_another_domain_is_none_of_the_kernels(machine: Machine) -> None:
    """Its page tables do not have the kernel, whatever base it loads."""
    empty = machine.put(0x7000, bytes(8)) * PAGE
    machine.stop(0, in_kernel(0), AREAS[0], 0, empty)
    assert machine.virtual().states == []

"""Which registers does a CPU of a paravirtualised (PV) kernel have, in a snapshot of the machine that Xen runs on?

The notes of such a snapshot are of the physical CPUs. Where one runs the kernel or its programs, both in ring 3, its registers
are those of the virtual CPU (vCPU). Where it runs Xen, the guest's registers are at the top of its stack: Xen's entry code
pushes them there, and they stay while it idles, because Xen loads another vCPU's state only when it runs that one. A vCPU
whose state is on no physical CPU has it in Xen's `struct vcpu`. Xen's symbols are not at hand: its structures are found from
the kernel's own pages, and believed where they lead back.

Which vCPU's state is on a physical CPU is told by what Xen loads with it: page tables, which have the kernel's text only while
the vCPU is in the kernel, and the base of the CPU's own data.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orcdbg.base.errors import BadAddress, Corrupt, MemoryFault, NotFound
from orcdbg.base.reading import AddressSpace, read_u32, read_u64
from orcdbg.base.reasons import Reason
from orcdbg.base.sizes import PAGE
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.tasks import current_task, online_cpus
from orcdbg.kernel.xen import PV_KERNEL_CS, XEN_END, XEN_START
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import Placement
from orcdbg.unwind.reasons import HeldByXen, WhereInXen
from orcdbg.unwind.starts import stacks_of
from orcdbg.x86.paging import PHYSICAL
from orcdbg.x86.registers import IRET_FRAME, PT_REGS, PT_REGS_SIZE

# STACK_SIZE, xen/arch/x86/include/asm/config.h; `struct cpu_info` is at its top, and its last two pages are the stack that all
# but NMIs and the like are handled on (current.h beside it).
_STACK_SIZE, _PRIMARY = 1 << 15, 2 * PAGE
_CPU_INFO = 512  # bytes that `struct cpu_info` is not longer than
# From the registers in it to `processor_id`: four selectors follow them to 4.20; with FRED (4.21) two words do.
_TO_PROCESSOR_ID = (PT_REGS_SIZE + 32, PT_REGS_SIZE, PT_REGS_SIZE + 16)
_MAX_PROCESSORS = 4096
# The selectors of a PV guest: Xen's own (FLAT_RING3_CS64 and its like, public/arch-x86/xen-x86_64.h), and those of a program
# that the kernel began or continued by the hypercall `iret` (__USER_CS, __USER32_CS and __USER_DS).
_GUEST_CS, _GUEST_SS = (0xE033, 0xE023, 0x33, 0x23), (0xE02B, 0x2B)
_INTERRUPTS = 0x200  # in rflags: never off in a PV guest
_USER_ENTRIES = 256  # of a top page table
_VSYSCALLS = (
    0xFFFF_FFFF_FF60_0000  # a page of programs' code among the kernel's addresses (VSYSCALL_ADDR, uapi/asm/vsyscall.h)
)
_ABOVE_32_BITS = 1 << 32
_SYSCALLS_OWN = ("rcx", "r11")  # which Xen's exit by `sysret` prepares while they still look like the guest's

# Where Xen has `struct page_info` of each page, and all memory (FRAMETABLE_VIRT_START, DIRECTMAP_VIRT_START in config.h), while
# physical addresses have no holes that it leaves out; what is read by them is believed where it leads back.
_FRAME_TABLE, _DIRECT_MAP = 0xFFFF_82E0_0000_0000, 0xFFFF_8300_0000_0000
_PAGE_INFO, _OWNER = 32, 24  # size, and where the domain's page number is (`v.inuse._domain`)
_VCPU_HEAD = range(8, 48, 8)  # of `struct vcpu`, where the domain is: behind vcpu_id, processor and its vcpu_info


@dataclass(frozen=True, slots=True)
class VirtualCpus:
    """The CPUs of a PV kernel.

    Attributes:
        states: those whose registers are known, by the numbers that the kernel gives them.
        missing: for the others, why not.
    """

    states: Sequence[CpuState]
    missing: Mapping[int, Reason] = field(default_factory=dict)


def virtual_cpus(linux: Linux, snapshot: Snapshot, place: Placement) -> VirtualCpus:
    """The registers of all virtual CPUs.

    The code segment of one that runs the kernel is given as the kernel itself finds it in saved registers, without the
    privilege level: by that level alone it could not be told from a program.

    Args:
        linux: the kernel, which runs as a PV domain.
        snapshot: the machine, or what a crash kernel of Xen's saved of it.
        place: where the kernel is.
    """
    return _Search(linux, snapshot, place).all()


class _Search:
    def __init__(self, linux: Linux, snapshot: Snapshot, place: Placement) -> None:
        self._linux = linux
        self._snapshot = snapshot
        self._place = place

    def all(self) -> VirtualCpus:
        """See `virtual_cpus`."""
        states: dict[int, CpuState] = {}
        missing: dict[int, Reason] = {}
        # Without page tables nothing tells whose a note is: it is told by its stack later on.
        loose = [state for state in map(self._loose, self._snapshot.cpus) if state is not None]

        for state in self._snapshot.cpus:
            vcpu = None if state.cr3 is None else self._loaded(state)
            if vcpu is None or vcpu.number in states:
                continue
            found = self._registers(state, vcpu)
            if isinstance(found, CpuState):
                states[vcpu.number] = found
                missing.pop(vcpu.number, None)
            else:
                missing[vcpu.number] = HeldByXen(vcpu.number, found)

        if not loose:
            for number in self._rest({*states, *missing}):
                stored = self._stored(number)
                if stored is None:
                    missing[number] = HeldByXen(number, WhereInXen.NOT_FOUND)
                else:
                    states[number] = stored
        return VirtualCpus([*(states[number] for number in sorted(states)), *loose], missing)

    def _rest(self, known: set[int]) -> Iterator[int]:
        try:
            yield from (number for number in online_cpus(self._linux) if number not in known)
        except (MemoryFault, NotFound, Corrupt):
            return

    def _loose(self, state: CpuState) -> CpuState | None:
        """A note without page tables, as far as it is of a guest."""
        if state.cr3 is not None or not state.is_in_user_mode:
            return None
        return _in_kernel(state) if _is_in_kernel(state.registers) else state

    # Whose state a physical CPU has

    def _loaded(self, state: CpuState) -> _Vcpu | None:
        """The vCPU of this kernel whose state a physical CPU has; None where it has none."""
        memory = self._view(state)
        in_kernel = self._has_kernel(memory)
        bases = (state.gs_base, state.kernel_gs_base)
        for base in bases if in_kernel else reversed(bases):
            number = None if base is None else self._cpu_of_base(base)
            if base is not None and number is not None and (in_kernel or self._is_program_of(memory, number)):
                return _Vcpu(number, base, memory)
        return None

    def _view(self, state: CpuState) -> KernelMemory:
        root = (state.cr3 or 0) & PHYSICAL & ~self._place.sme_mask
        return KernelMemory(self._snapshot.physical, root, self._place.levels, self._place.sme_mask)

    def _has_kernel(self, memory: KernelMemory) -> bool:
        """Whether page tables have this kernel's text where it is."""
        text = self._linux.address("_text")
        try:
            return memory.translate(text) == self._kernel_memory.translate(text)
        except MemoryFault:
            return False

    @functools.cached_property
    def _kernel_memory(self) -> KernelMemory:
        place = self._place
        return KernelMemory(self._snapshot.physical, place.root, place.levels, place.sme_mask)

    def _cpu_of_base(self, base: int) -> int | None:
        return self._numbers.get(base)

    @functools.cached_property
    def _numbers(self) -> dict[int, int]:
        """The kernel's numbers of its CPUs by the base of their own data; none where they cannot be read."""
        try:
            limit = self._linux.cpu_limit()
            words = self._linux.memory.read(self._linux.address("__per_cpu_offset"), 8 * limit)
        except (MemoryFault, NotFound, Corrupt):
            return {}
        # Early in the boot all have one base, and are one CPU.
        return {_word(words, 8 * cpu): cpu for cpu in reversed(range(limit))}

    def _is_program_of(self, memory: KernelMemory, number: int) -> bool:
        """Whether page tables are what a CPU's current program runs on.

        A PV kernel keeps two for each program, of which the one that the program runs on has none of the kernel; both
        have the same user half (xen_set_pgd(), arch/x86/xen/mmu_pv.c).
        """
        linux = self._linux
        try:
            task = current_task(linux, number)
            mm = linux.member("task_struct", "mm", task) if task else 0
            if not mm:
                return False
            own = linux.memory.read(linux.member("mm_struct", "pgd", mm), 8 * _USER_ENTRIES)
            return any(own) and own == self._snapshot.physical.read(memory.root, 8 * _USER_ENTRIES)
        except (MemoryFault, NotFound):
            return False

    # Its registers

    def _registers(self, state: CpuState, vcpu: _Vcpu) -> CpuState | WhereInXen:
        """The registers of the vCPU whose state a physical CPU has."""
        if state.is_in_user_mode:
            return _of_vcpu(state, vcpu)
        rip, rsp = state.registers["rip"], state.registers["rsp"]
        if not XEN_START <= rip < XEN_END:
            return WhereInXen.ENTRY_CODE
        if rsp < _ABOVE_32_BITS:
            return WhereInXen.ENTRY_CODE  # a 32-bit program may have come by another instruction
        if not XEN_START <= rsp < XEN_END:
            return _of_vcpu(_around_syscall(state), vcpu)
        top = (rsp | _STACK_SIZE - 1) + 1
        if rsp < top - _PRIMARY:
            return WhereInXen.OTHER_STACK

        place = _guest_registers(vcpu.memory, top)
        found = None if place is None else _from_frame(state, _read_registers(vcpu.memory, place), rsp - place)
        if place is None or found is None:
            return WhereInXen.ENTRY_CODE
        source = f"guest registers {place:#x} on Xen's stack, {state.source}"
        return _of_vcpu(replace(state, registers=found, source=source), vcpu)

    # In Xen's own structures

    def _stored(self, number: int) -> CpuState | None:
        """The registers of a vCPU that no physical CPU has, from its `struct vcpu`."""
        linux, memory = self._linux, self._kernel_memory
        try:
            identity = linux.per_cpu("xen_vcpu_id", number)
            which = number if identity is None else read_u32(linux.memory, identity)
            vcpu = None if self._domain is None else _vcpu_of(memory, self._domain, which)
            if vcpu is None:
                return None
            data = memory.read(vcpu, PAGE)
            places = [at for at in range(0, PAGE - PT_REGS_SIZE + 1, 8) if _are_guests(data, at)]
            if len(places) != 1:
                return None
            registers = _read_registers(memory, vcpu + places[0])
            task, base = current_task(linux, number), linux.per_cpu_offset(number)
            in_kernel = _is_in_kernel(registers)
            stacks = stacks_of(linux, task, number) if task and in_kernel else []
        except (MemoryFault, NotFound, Corrupt):
            return None

        # Xen does not keep this copy while the vCPU runs, and it may be of long ago.
        if in_kernel and not any(stack.begin < registers["rsp"] <= stack.end for stack in stacks):
            return None
        source = f"user_regs {vcpu + places[0]:#x} in Xen's struct vcpu"
        state = CpuState(number, source, registers, number + 1, cr3=self._place.root)
        return _of_vcpu(state, _Vcpu(number, base, memory))

    @functools.cached_property
    def _domain(self) -> int | None:
        """Xen's `struct domain` of this kernel: the owner of the page that its text begins in."""
        memory = self._kernel_memory
        try:
            page = memory.translate(self._linux.address("_text")) // PAGE
            owner = read_u32(memory, _FRAME_TABLE + _PAGE_INFO * page + _OWNER)
        except (MemoryFault, NotFound):
            return None
        return _DIRECT_MAP + owner * PAGE if owner else None


@dataclass(frozen=True, slots=True)
class _Vcpu:
    """A vCPU that is loaded on a physical CPU: its number, the base of its own data, and what it sees."""

    number: int
    base: int
    memory: AddressSpace


def _of_vcpu(state: CpuState, vcpu: _Vcpu) -> CpuState:
    """A state by the kernel's number, and with its way to say that it is in the kernel.

    The ip says which it is: Xen changes page tables and registers one after the other when the kernel begins or ends.
    """
    numbered = replace(state, cpu=vcpu.number)
    if not _is_in_kernel(state.registers):
        return replace(numbered, gs_base=None, kernel_gs_base=vcpu.base)
    return _in_kernel(replace(numbered, gs_base=vcpu.base, kernel_gs_base=None))


def _is_in_kernel(registers: Mapping[str, int]) -> bool:
    """Whether a guest's registers are its kernel's."""
    ip = registers["rip"]
    return bool(ip >> 63) and ip // PAGE != _VSYSCALLS // PAGE


def _in_kernel(state: CpuState) -> CpuState:
    return replace(state, registers={**state.registers, "cs": PV_KERNEL_CS})


def _from_frame(state: CpuState, saved: Mapping[str, int], pushed_at: int) -> dict[str, int] | None:
    """A guest's registers by what Xen's stack has of them, as far as they are known; None where even the ip is not.

    Entry and exit code saves and restores with moves (SAVE_ALL and RESTORE_ALL, xen/arch/x86/include/asm/asm_defns.h), between
    two moves of the stack pointer. All other code is called from there, and is below.

    Args:
        state: of the physical CPU.
        saved: what its stack has.
        pushed_at: the stack pointer, less where the registers are.
    """
    if pushed_at < 0:
        return dict(saved)
    of_interrupt = {name: saved[name] for name in IRET_FRAME}
    own = {name: value for name, value in state.registers.items() if name in saved and name not in IRET_FRAME}
    if pushed_at == 0:
        return {name: value for name, value in own.items() if saved[name] == value} | of_interrupt
    if pushed_at in (PT_REGS["orig_rax"], PT_REGS["rip"]):
        return {name: value for name, value in own.items() if name not in _SYSCALLS_OWN} | of_interrupt
    return None


def _around_syscall(state: CpuState) -> CpuState:
    """The guest's registers where Xen still, or already, has the guest's stack pointer.

    That is only so behind a `syscall` and before a `sysret`, which keep ip and flags in rcx and r11
    (write_stub_trampoline(), xen/arch/x86/x86_64/traps.c, and restore_all_guest, x86_64/entry.S). The stub takes rax first.
    """
    known = {name: value for name, value in state.registers.items() if name != "rax"}
    of_guest = {"rip": known["rcx"], "rflags": known["r11"], "cs": _GUEST_CS[0], "ss": _GUEST_SS[0]}
    source = f"{state.source}, on the way into or out of Xen by syscall"
    return replace(state, registers=known | of_guest, source=source)


def _guest_registers(memory: AddressSpace, top: int) -> int | None:
    """Where the guest's registers are, below the top of one of Xen's stacks; None where that is not certain."""
    begin = top - _CPU_INFO
    try:
        data = memory.read(begin, _CPU_INFO)
    except MemoryFault:
        return None
    places = [
        at
        for at in range(0, _CPU_INFO - PT_REGS_SIZE + 1, 8)
        if _are_guests(data, at) and any(_are_of_cpu(data, at + size) for size in _TO_PROCESSOR_ID)
    ]
    return begin + places[0] if len(places) == 1 else None


def _are_of_cpu(data: bytes, at: int) -> bool:
    """Whether `processor_id` and `current_vcpu` of `struct cpu_info` may be here."""
    if at + 16 > len(data):
        return False
    processor, vcpu = _word(data, at) & 0xFFFF_FFFF, _word(data, at + 8)
    return processor < _MAX_PROCESSORS and XEN_START <= vcpu < XEN_END and not vcpu % PAGE


def _are_guests(data: bytes, at: int) -> bool:
    """Whether a PV guest's registers may be here."""
    cs, flags, ss = (_word(data, at + PT_REGS[name]) for name in ("cs", "rflags", "ss"))
    # Above the selector is a byte that says whether the guest took no events.
    is_cs = cs & 0xFFFF_FFFF in _GUEST_CS and cs >> 32 in (0, 1)
    return is_cs and ss in _GUEST_SS and bool(flags & _INTERRUPTS) and not flags >> 22


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _read_registers(memory: AddressSpace, address: int) -> dict[str, int]:
    """Registers from `struct cpu_user_regs`, which begins as a pt_regs does."""
    data = memory.read(address, PT_REGS_SIZE)
    registers = {name: _word(data, at) for name, at in PT_REGS.items() if name != "orig_rax"}
    return registers | {name: registers[name] & 0xFFFF for name in ("cs", "ss")}


def _vcpu_of(memory: AddressSpace, domain: int, which: int) -> int | None:
    """A domain's `struct vcpu` of that number: by the first pointer in the domain to an array of such."""
    data = memory.read(domain, PAGE)
    for at in range(0, PAGE, 8):
        array = _word(data, at)
        if not XEN_START <= array < XEN_END or array % 8:
            continue
        try:
            vcpu = read_u64(memory, array + 8 * which)
            if XEN_START <= vcpu < XEN_END and not vcpu % PAGE and _is_vcpu(memory, vcpu, domain, which):
                return vcpu
        except (BadAddress, MemoryFault):
            continue
    return None


def _is_vcpu(memory: AddressSpace, vcpu: int, domain: int, which: int) -> bool:
    """Whether a `struct vcpu` leads back to its domain, and has that number."""
    head = memory.read(vcpu, _VCPU_HEAD.stop)
    return _word(head, 0) & 0xFFFF_FFFF == which and domain in (_word(head, at) for at in _VCPU_HEAD)

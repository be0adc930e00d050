"""How is a suspended VMware guest, its .vmss or .vmsn with or without a .vmem, read as a stopped machine?

VMware published none of the names; they are those that Volatility's reader (framework/layers/vmware.py) and crash's
(vmware_vmss.c) go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource, FilePart, FileSource
from orcdbg.base.sizes import PAGE
from orcdbg.formats import codecs
from orcdbg.formats.vmware import MAGICS, Numbers, Value, parse_groups, parse_numbers, parse_register_blocks
from orcdbg.snapshot.extents import Extent, ExtentMemory, cut_off_warnings
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.readers.reader import SnapshotReader

# A guest has a region a hole of its physical memory, which are two or three; and at most 768 CPUs (vSphere 8).
MAX_REGIONS = 1024
MAX_CPUS = 8192
# Names in the group `cpu`, and ours.
_REGISTERS = {
    **{name: name for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip")},
    **{f"r{number}": f"r{number}" for number in range(8, 16)},
    "eflags": "rflags",
    "EFLAGS": "rflags",
}
# Values `S` and `S.base64` have a CPU's number and one of these (enum SegmentName of crash's vmware_vmss.h).
_SEGMENTS = {"cs": 1, "ss": 2}
_GS = 5


def _extents(numbers: Numbers, saved: ByteSource, size: int) -> list[Extent]:
    """Where the guest's physical memory is: in regions if the guest has holes in it.

    Region n is `regionSize` pages from page `regionPageNum` of the memory on, at page frame `regionPPN` of the guest.

    Args:
        numbers: the values of the group `memory`.
        saved: the saved memory and nothing else. A false region would otherwise show headers, or what a device saved, as
            memory of the guest.
        size: how many bytes of memory there should be; fewer are in a file that is cut off.
    """
    count = numbers.get(("regionsCount", ()), 0)
    if not count:
        return [Extent(0, saved, 0, size, size)]
    if count > MAX_REGIONS:
        raise UnsupportedFormat(saved.name, f"a VMware snapshot of {count} regions of memory")

    extents = []
    for index in range(count):
        page, frame, pages = (numbers.get((name, (index,)), 0) for name in ("regionPageNum", "regionPPN", "regionSize"))
        extents.append(Extent(frame * PAGE, saved, page * PAGE, pages * PAGE, pages * PAGE))
    return extents


def _cpu(numbers: Numbers, cpu: int) -> CpuState | None:
    """The registers of a CPU; None where the file has not those that a walk begins with."""
    registers = {ours: numbers[theirs, (cpu,)] for theirs, ours in _REGISTERS.items() if (theirs, (cpu,)) in numbers}
    if "rip" not in registers or "rsp" not in registers:
        return None

    # A selector has 16 bits, whatever the value's size.
    segments = {name: numbers.get(("S", (cpu, number))) for name, number in _SEGMENTS.items()}
    registers |= {name: value & 0xFFFF for name, value in segments.items() if value is not None}

    # IDTR 0 is the limit, 1 and 2 are the halves of the base.
    low = numbers.get(("IDTR", (cpu, 1)))
    high = numbers.get(("IDTR", (cpu, 2)))
    idt = None if low is None or high is None else low | high << 32

    cr3 = numbers.get(("CR64", (cpu, 3)))
    cr4 = numbers.get(("CR64", (cpu, 4)))
    gs_base = numbers.get(("S.base64", (cpu, _GS)))
    return CpuState(cpu, f"VMware cpu {cpu}", registers, 0, cr3, cr4, idt, gs_base)


def _find_memory(source: ByteSource, values: Sequence[Value], given: ByteSource | None) -> tuple[ByteSource, int]:
    """The guest's memory, a block of the file itself, the file given or the .vmem beside it; and its bytes as it should be."""
    block = next((value for value in values if value.name == "Memory" and value.is_block), None)
    if block is not None and block.is_compressed:
        raise UnsupportedFormat(source.name, "a VMware snapshot with compressed memory: suspend without compression")
    if block is not None:
        return FilePart(source, block.offset, block.size), block.size

    memory = given or memory_beside(source)
    return memory, memory.size


def memory_beside(source: ByteSource) -> ByteSource:
    """The .vmem of a file's name; packed it is unpacked first.

    Raises:
        UnsupportedFormat: there is none.
    """
    beside = Path(source.name).with_suffix(".vmem")
    if beside.is_file():
        return FileSource(str(beside))
    packed = beside.with_name(beside.name + ".gz")
    if packed.is_file():
        return codecs.decompressed(FileSource(str(packed)))
    hint = "name the file with its memory too: orcdbg VMLINUX SNAPSHOT MEMORY"
    raise UnsupportedFormat(source.name, f"its memory is in a file of its own, and {beside} is not there", hint)


def open_vmware(source: ByteSource, given: ByteSource | None = None) -> Snapshot:
    """The snapshot in a .vmss or .vmsn file; its memory may be in a file that is given, or in the .vmem of the same name.

    Raises:
        UnsupportedFormat: damaged, with compressed memory, or without memory.
    """
    groups = parse_groups(source)

    memory_values = groups.get("memory", [])
    saved, size = _find_memory(source, memory_values, given)
    extents = _extents(parse_numbers(source, memory_values), saved, size)

    cpu_values = groups.get("cpu", [])
    cpu_numbers = {**parse_register_blocks(source, cpu_values), **parse_numbers(source, cpu_values)}
    count = min(cpu_numbers.get(("cpu:numVCPUs", ()), 0), MAX_CPUS)
    cpus = [state for cpu in range(count) if (state := _cpu(cpu_numbers, cpu)) is not None]

    return guest_snapshot(source, "VMware snapshot", saved, extents, cpus)


def guest_snapshot(
    source: ByteSource, form: str, saved: ByteSource, extents: Sequence[Extent], cpus: Sequence[CpuState]
) -> Snapshot:
    """A guest as VMware's files have it, which hold no notes.

    Args:
        source: the file that names its CPUs.
        form: what that file is.
        saved: the saved memory.
        extents: where that belongs.
        cpus: those whose registers are known.
    """
    memory = ExtentMemory(extents)
    return Snapshot(
        path=source.name,
        format=form,
        physical=memory,
        cpus=cpus,
        vmcoreinfo={},
        warnings=cut_off_warnings(saved, extents),
        ranges=memory.ranges,
        left_out=memory.left_out,
    )


def detect(head: bytes) -> bool:
    """Whether the header is of one of the four versions."""
    return head.startswith(MAGICS)


READER = SnapshotReader("a VMware snapshot", detect, open_vmware, open_with_memory=open_vmware)


def detect_guest(head: bytes) -> bool:
    """Whether the numbers of a debug.guest's header agree; there is no magic one."""
    if head[1:4] != bytes(3):  # of the version, which is below 256
        return False

    from orcdbg.formats.vmware_guest import parse_header  # few files come so far

    return parse_header(head) is not None


def open_guest(source: ByteSource, given: ByteSource | None = None) -> Snapshot:
    """As `vmware_guest.open_guest`."""
    from orcdbg.snapshot.readers import vmware_guest

    return vmware_guest.open_guest(source, given)


GUEST_READER = SnapshotReader("a VMware debug.guest", detect_guest, open_guest, open_with_memory=open_guest)

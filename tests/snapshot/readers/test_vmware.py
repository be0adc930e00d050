"""VMware files are read with the memory that is in them or beside them."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from orcdbg.base.errors import NotInSnapshot, UnsupportedFormat
from orcdbg.base.sizes import PAGE
from orcdbg.checkup.given_files import open_files
from orcdbg.cli.main import sample_files
from orcdbg.snapshot.machine import CpuState
from orcdbg.snapshot.opening import open_paths
from orcdbg.snapshot.readers import vmware
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame
from tests.build.memory_files import debug_guest, vmss
from tests.snapshot.two_ranges import HIGH, write


def test_vmware_memory_is_in_the_file_or_beside_it(tmp_path: Path) -> None:
    """Regions leave holes in physical memory; registers are optional; packed memory is refused by name."""
    regions = [(0, 0x10, 2), (2, 0x1000, 3)]
    registers = [{"rip": 0x1234, "rsp": 0x8000, "cr3": 0x7000, "cr4": 0x20}]
    inside = open_paths(write(tmp_path / "a.vmss", vmss(HIGH, regions, registers)))
    write(tmp_path / "b.vmem", HIGH)
    beside = open_paths(write(tmp_path / "b.vmss", vmss(None, regions)))
    for snapshot in (inside, beside):
        assert snapshot.physical.read(0x10000, 2 * PAGE) == HIGH[: 2 * PAGE]
        assert snapshot.physical.read(0x1000000, 3 * PAGE) == HIGH[2 * PAGE :]
        with pytest.raises(NotInSnapshot, match="absent"):
            snapshot.physical.read(0x12000, 1)
    (cpu,) = inside.cpus
    assert (cpu.registers["rip"], cpu.registers["rsp"], cpu.cr3, cpu.cr4) == (0x1234, 0x8000, 0x7000, 0x20)
    assert beside.cpus == []
    with pytest.raises(UnsupportedFormat, match=r"c\.vmem is not there"):
        open_paths(write(tmp_path / "c.vmss", vmss(None)))
    with pytest.raises(UnsupportedFormat, match="compressed memory"):
        open_paths(write(tmp_path / "d.vmss", vmss(HIGH, packed=True)))


def test_regions_reach_nothing_but_the_memory(tmp_path: Path) -> None:
    """A false region shows neither what is behind the block of memory in the file, nor what is before it."""
    regions = [(0, 0x10, 2), (2, 0x1000, 4), (9, 0x2000, 1), (0xFFFF_FFFF, 0x3000, 1)]
    whole = vmss(HIGH, regions, [{"rip": 0x1234, "rsp": 0x8000}])
    assert len(whole) - whole.index(HIGH) > len(HIGH)

    snapshot = open_paths(write(tmp_path / "a.vmss", whole + bytes(16 * PAGE)))
    assert snapshot.physical.read(0x1000 * PAGE, 3 * PAGE) == HIGH[2 * PAGE :]
    for frame in (0x1003, 0x2000, 0x3000):
        with pytest.raises(NotInSnapshot, match="cut off"):
            snapshot.physical.read(frame * PAGE, 1)
    assert snapshot.ranges is not None
    assert list(snapshot.ranges()) == [(0x10 * PAGE, 0x12 * PAGE), (0x1000 * PAGE, 0x1003 * PAGE)]
    assert snapshot.left_out is not None
    assert snapshot.left_out()["cut off"] == 3 * PAGE
    assert [f"{3 * PAGE} bytes of memory" in warning for warning in snapshot.warnings] == [True]


def test_a_vmem_that_is_cut_off_says_how_much_it_lacks(tmp_path: Path) -> None:
    """The warning names the file that ends too early."""
    snapshot_file = write(tmp_path / "b.vmss", vmss(None, [(0, 0x10, 2), (2, 0x1000, 3)]))
    write(tmp_path / "b.vmem", HIGH[: 4 * PAGE])
    cut = open_paths(snapshot_file)
    assert cut.left_out is not None
    assert cut.left_out()["cut off"] == PAGE
    lost = f"{PAGE} bytes of memory that its headers name are not in it"
    assert list(cut.warnings) == [f"{tmp_path / 'b.vmem'}: the file is cut off: {lost}"]

    write(tmp_path / "b.vmem", HIGH)
    complete = open_paths(snapshot_file)
    assert complete.left_out is not None
    assert complete.left_out()["cut off"] == 0
    assert list(complete.warnings) == []


REGISTERS = {
    **{name: 0x1000 + number for number, name in enumerate(("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"))},
    **{f"r{number}": 0x2000 + number for number in range(8, 16)},
    "rip": 0xFFFF_FFFF_8100_0000,
    "rsp": 0xFFFF_C900_0000_1000,
    "rflags": 0x246,
    "cs": 0x10,
    "ss": 0x18,
}
OF_CPU = {"cr3": 0x7000, "cr4": 0x20, "idt": 0xFFFF_FE00_0000_0000, "gs_base": 0xFFFF_8880_0000_0000}


def _check(cpu: CpuState) -> None:
    assert cpu.registers == REGISTERS
    assert (cpu.cr3, cpu.cr4, cpu.idt, cpu.gs_base) == tuple(OF_CPU.values())


@pytest.mark.parametrize("in_blocks", [False, True])
def test_registers_are_values_or_stand_in_blocks(tmp_path: Path, in_blocks: bool) -> None:
    """Of each CPU, selectors and the base of GS among them."""
    other = REGISTERS | {"rip": 0xFFFF_FFFF_8200_0000}
    data = vmss(HIGH, (), [REGISTERS | OF_CPU, other | OF_CPU], in_blocks=in_blocks)
    first, second = open_paths(write(tmp_path / "a.vmss", data)).cpus
    _check(first)
    assert second.registers == other
    assert not first.is_in_user_mode


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, False),
        ({"rip": 0x40_1000, "rsp": 0x7FFD_1234_0000}, True),
        ({"rip": 0}, False),  # the kernel called nothing
    ],
)
def test_without_a_code_segment_both_pointers_tell_a_program(
    tmp_path: Path, changed: Mapping[str, int], expected: bool
) -> None:
    """A kernel that was sent to a wrong address has its own stack still."""
    registers = {name: value for name, value in REGISTERS.items() if name not in ("cs", "ss")} | dict(changed)
    (cpu,) = open_paths(write(tmp_path / "a.vmss", vmss(HIGH, (), [registers]))).cpus
    assert "cs" not in cpu.registers
    assert cpu.is_in_user_mode is expected


@pytest.mark.parametrize("version", [1, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("holes", [[], [(2, 3)], [(1, 2), (4, 5)], [(5, 2)]])
def test_a_guest_that_panicked_under_vmware(tmp_path: Path, version: int, holes: list[tuple[int, int]]) -> None:
    """Every version's CPUs, and memory whose holes are not in the file."""
    memory = b"".join(bytes([number]) * PAGE for number in range(5))
    write(tmp_path / "debug.vmem", memory)
    cpus = [REGISTERS | OF_CPU, REGISTERS | OF_CPU | {"rip": 1}]
    snapshot = open_paths(write(tmp_path / "debug.guest", debug_guest(version, 5, cpus, holes)))
    first, second = snapshot.cpus
    _check(first)
    assert second.registers["rip"] == 1

    absent = {frame for start, size in holes for frame in range(start, start + size)}
    frames = [frame for frame in range(5 + len(absent)) if frame not in absent]
    for number, frame in enumerate(frames):
        assert snapshot.physical.read(frame * PAGE, PAGE) == bytes([number]) * PAGE
    for frame in (*absent, 5 + len(absent)):
        with pytest.raises(NotInSnapshot):
            snapshot.physical.read(frame * PAGE, 1)


def test_a_guest_file_whose_numbers_disagree_is_none() -> None:
    """Nothing else tells such a file from any other."""
    good = debug_guest(5, 5, [REGISTERS], [(2, 3)])
    assert vmware.detect_guest(good)
    for at in (0, 22, 30, 42, 54):
        assert not vmware.detect_guest(good[:at] + b"\xee" + good[at + 1 :])
    assert not vmware.detect_guest(good[:60])
    assert not vmware.detect_guest(b"")


def test_a_guest_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    """Its CPUs are not all there."""
    write(tmp_path / "debug.vmem", HIGH)
    data = debug_guest(5, len(HIGH) // PAGE, [REGISTERS, REGISTERS])
    with pytest.raises(UnsupportedFormat, match="truncated: .* bytes for 2 CPUs"):
        open_paths(write(tmp_path / "debug.guest", data[:-PAGE]))


def test_memory_packed_beside_is_unpacked(tmp_path: Path) -> None:
    """VMware writes debug.vmem.gz; debug.guest.gz is read like any packed snapshot once it has the name of its memory."""
    write(tmp_path / "debug.vmem.gz", gzip.compress(HIGH))
    snapshot = open_paths(write(tmp_path / "debug.guest", debug_guest(7, len(HIGH) // PAGE, [REGISTERS])))
    assert snapshot.physical.read(PAGE, 16) == HIGH[PAGE : PAGE + 16]


@pytest.mark.parametrize("kind", ["vmss", "guest"])
def test_memory_of_another_name_is_named_too(tmp_path: Path, kind: str) -> None:
    """In any order; `checkup` says what each file is; a second file of no known kind is refused."""
    vmlinux, core = sample_files()
    pages = 1 << 8
    whole = open_session(vmlinux, core)
    (cpu,) = whole.snapshot.cpus
    assert whole.snapshot.ranges is not None
    ranges = list(whole.snapshot.ranges())
    end = max(end for _, end in ranges)
    with open(tmp_path / "a memory", "wb") as file:
        file.truncate(end)
        for start, stop in ranges:
            for at in range(start, stop, pages * PAGE):
                file.seek(at)
                file.write(whole.snapshot.physical.read(at, min(pages * PAGE, stop - at)))

    registers = {**cpu.registers, "cr3": cpu.cr3 or 0, "cr4": cpu.cr4 or 0, "idt": cpu.idt or 0}
    data = vmss(None, (), [registers]) if kind == "vmss" else debug_guest(5, end // PAGE, [registers])
    snapshot, memory = write(tmp_path / "saved", data), str(tmp_path / "a memory")
    for files in ((vmlinux, snapshot, memory), (memory, snapshot, vmlinux)):
        session = open_session(*files)
        assert [frame.ip for frame in _stack(session)] == [frame.ip for frame in _stack(whole)]
        opened = open_files(files)
        assert {file.path: file.kind for file in opened.files}[memory] == f"the memory of {opened_kind(kind)}"
        assert opened.error is None
    with pytest.raises(UnsupportedFormat):
        open_session(vmlinux, snapshot, memory, write(tmp_path / "text", b"text"))


def _stack(session: Session) -> Sequence[Frame]:
    (task,) = session.unwinder.running
    return session.unwinder.trace(session.task(task)).frames


def opened_kind(kind: str) -> str:
    """What checkup calls the snapshot."""
    return "a VMware snapshot" if kind == "vmss" else "a VMware debug.guest"

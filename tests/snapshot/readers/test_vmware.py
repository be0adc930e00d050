"""VMware files are read with the memory that is in them or beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orcdbg.base.errors import NotInSnapshot, UnsupportedFormat
from orcdbg.base.sizes import PAGE
from orcdbg.snapshot.opening import open_paths
from tests.build.memory_files import vmss
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

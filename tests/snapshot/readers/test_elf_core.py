"""ELF cores are believed in what they hold, and say what they lack."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from orcdbg.base.errors import Absence, NotInSnapshot, UnsupportedFormat
from orcdbg.base.reading import BytesSource, FileSource
from orcdbg.base.sizes import PAGE
from orcdbg.formats import elf
from orcdbg.snapshot.opening import open_paths
from orcdbg.snapshot.readers.elf_core import open_elf_core
from tests.build.elf import Load, core, note, prstatus
from tests.snapshot.two_ranges import HIGH


def test_elf_segments_longer_in_memory_have_their_word() -> None:
    """Neither zeros nor a hole: the file names the memory and does not hold it."""
    data = bytearray(core([Load(0x10000, HIGH), Load(0x40000, HIGH)]))
    struct.pack_into("<Q", data, 64 + 56 + 40, 0x8000)  # p_memsz of the first
    memory = open_elf_core(BytesSource("core", bytes(data))).physical
    assert memory.read(0x10000, len(HIGH)) == HIGH
    states = {}
    for address in (0x15000, 0x17FFF, 0x18000):
        with pytest.raises(NotInSnapshot) as caught:
            memory.read(address, 1)
        states[address] = caught.value.state
    assert states == {0x15000: Absence.ZERO_FILLED, 0x17FFF: Absence.ZERO_FILLED, 0x18000: Absence.ABSENT}


def test_the_running_kernels_memory_has_no_registers() -> None:
    """/proc/kcore's segments of mapped memory name no physical address, and its NT_PRSTATUS is of nobody."""
    notes = prstatus({}, 0) + note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n")
    loads = [Load((1 << 64) - 1, bytes(PAGE), 0xFFFFC90000000000), Load(0x1000, HIGH, 0xFFFF888000001000)]
    snapshot = open_elf_core(BytesSource("/proc/kcore", core(loads, notes)), is_live=True)
    assert snapshot.physical.read(0x1000, len(HIGH)) == HIGH
    assert (list(snapshot.cpus), snapshot.vmcoreinfo["OSRELEASE"]) == ([], "6.1.0")
    assert "running kernel" in snapshot.warnings[0]


def test_a_sparse_core_of_64_gibibytes_opens_like_a_small_one(tmp_path: Path) -> None:
    """Only headers are read, and memory where somebody asks for it."""
    whole = bytearray(core([Load(0x1000, HIGH)], note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n")))
    size = 64 << 30
    struct.pack_into("<QQ", whole, 64 + 56 + 32, size, size)
    path = tmp_path / "sparse"
    path.write_bytes(bytes(whole))
    os.truncate(path, size + (1 << 20))
    began = time.perf_counter()
    tracemalloc.start()
    snapshot = open_paths(str(path))
    assert snapshot.physical.read(0x1000, len(HIGH)) == HIGH
    assert snapshot.physical.read(size - PAGE, PAGE) == bytes(PAGE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - began < 0.5
    assert peak < 1 << 20


@pytest.mark.parametrize("offset", [0, 63, 64, 64 + 56, 64 + 3 * 56 - 1, 64 + 3 * 56, 64 + 3 * 56 + 12])
def test_headers_and_notes_are_never_memory(offset: int) -> None:
    """A segment that was moved over them is refused, wherever it touches them; one of no bytes in the file is not."""
    whole = bytearray(core([Load(0x10000, HIGH), Load(0x40000, HIGH)], note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n")))
    header_of_first = 64 + 56
    struct.pack_into("<Q", whole, header_of_first + 8, offset)
    with pytest.raises(UnsupportedFormat, match="over its own headers or notes"):
        open_elf_core(BytesSource("core", bytes(whole)))

    struct.pack_into("<Q", whole, header_of_first + 32, 0)
    assert open_elf_core(BytesSource("core", bytes(whole))).physical.read(0x40000, len(HIGH)) == HIGH


def test_a_segment_that_ends_in_the_notes_is_refused() -> None:
    """Also where it begins before them: here the notes are behind the memory."""
    whole = bytearray(core([Load(0x10000, HIGH)], note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n")))
    notes_offset, notes_size = struct.unpack_from("<Q16xQ", whole, 64 + 8)
    moved = len(whole)
    whole += whole[notes_offset : notes_offset + notes_size]
    struct.pack_into("<Q", whole, 64 + 8, moved)
    assert open_elf_core(BytesSource("core", bytes(whole))).physical.read(0x10000, len(HIGH)) == HIGH

    struct.pack_into("<Q", whole, 64 + 56 + 32, len(HIGH) + 1)
    with pytest.raises(UnsupportedFormat, match="over its own headers or notes"):
        open_elf_core(BytesSource("core", bytes(whole)))


def test_what_a_driver_dumped_of_its_device_is_not_read(tmp_path: Path) -> None:
    """A note of 3 GiB between those that are needed; a sparse file, whose other notes are all there."""
    before, behind = prstatus({"rip": 0x1234}, 7), note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n")
    size = 3 << 30
    device = struct.pack("<III8s", 6, size, elf.NT_VMCOREDD, b"LINUX")
    whole = bytearray(core([Load(0x1000, HIGH)], before + device + behind))
    # Everything behind the note's head is as much further: the notes after it, and the memory.
    notes_at, notes_size = struct.unpack_from("<Q16xQ", whole, 64 + 8)
    struct.pack_into("<Q", whole, 64 + 8 + 24, notes_size + size)
    memory_at = struct.unpack_from("<Q", whole, 64 + 56 + 8)[0]
    struct.pack_into("<Q", whole, 64 + 56 + 8, memory_at + size)
    head = notes_at + len(before) + len(device)
    with open(tmp_path / "core", "wb") as file:
        file.write(whole[:head])
        file.seek(head + size)
        file.write(whole[head:])

    snapshot = open_elf_core(FileSource(str(tmp_path / "core")))
    assert snapshot.cpus[0].registers["rip"] == 0x1234
    assert snapshot.vmcoreinfo["OSRELEASE"] == "6.1.0"
    assert snapshot.physical.read(0x1000, len(HIGH)) == HIGH
    assert [one.name for one in snapshot.notes] == ["CORE", "VMCOREINFO"]


def test_a_note_of_more_than_may_be_read_costs_no_other() -> None:
    """64 MiB of notes are read, whoever owns them."""
    large = note("OTHER", 9, bytes(elf.MAX_NOTES + 1))
    snapshot = open_elf_core(
        BytesSource("core", core([Load(0x1000, HIGH)], large + note("VMCOREINFO", 0, b"OSRELEASE=6\n")))
    )
    assert [one.name for one in snapshot.notes] == ["VMCOREINFO"]

"""Plain memory, LiME, AVML, VMware, pipes, the running kernel: each is read where it is, and says what it lacks."""

from __future__ import annotations

import os
import random
import struct
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import Absence, NotInSnapshot, OrcdbgError, UnsupportedFormat, UsageError
from orcdbg.base.intervals import Pieces
from orcdbg.base.reading import BytesSource
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.readers import choice as files
from orcdbg.snapshot.readers.choice import open_paths, recognise
from orcdbg.snapshot.readers.elfcore import open_elf_core
from orcdbg.snapshot.readers.raw import open_lime
from orcdbg.snapshot.readers.vmware import open_vmware
from tests.build.elf import Load, core, note, prstatus
from tests.build.kdump import Kdump, flattened
from tests.build.memory_files import avml, lime, vmss

PAGE = 4096
CHANCE = random.Random(5)
LOW = CHANCE.randbytes(30000) + bytes(100000) + CHANCE.randbytes(11000) + bytes(1)
HIGH = CHANCE.randbytes(5 * PAGE)
RANGES = {0x1000: LOW, 0x1_0000_0000: HIGH}


def check_ranges(snapshot: Snapshot) -> None:
    """Both ranges read back, whole and in parts, and between them nothing is there."""
    for start, data in RANGES.items():
        assert snapshot.physical.read(start, len(data)) == data
        for at in (0, 1, 65535, 65536, 65537, len(data) - 9):
            if at + 9 <= len(data):
                assert snapshot.physical.read(start + at, 9) == data[at : at + 9]
        with pytest.raises(NotInSnapshot) as caught:
            snapshot.physical.read(start + len(data) - 4, 8)
        assert (caught.value.state, caught.value.address) == (Absence.ABSENT, start + len(data))
    assert snapshot.ranges is not None
    assert list(snapshot.ranges()) == [(start, start + len(data)) for start, data in RANGES.items()]


def write(path: Path, data: bytes) -> str:
    """A file's name."""
    path.write_bytes(data)
    return str(path)


def test_lime_and_avml_are_told_by_content(tmp_path: Path) -> None:
    """Zeros behind the last range, as on a disk, are none."""
    for name, data in (("lime", lime(RANGES)), ("avml", avml(RANGES)), ("disk", lime(RANGES) + bytes(PAGE))):
        check_ranges(open_paths(write(tmp_path / name, data)))


def test_plain_images_are_given_with_their_addresses(tmp_path: Path) -> None:
    """Several make one machine; a file that is really called so is itself; without an address nothing tells what it is."""
    low, high = write(tmp_path / "low", LOW), write(tmp_path / "high", HIGH)
    check_ranges(open_paths(f"{low}@0x1000", f"{high}@{0x1_0000_0000}"))
    assert recognise(low) is None
    named = write(tmp_path / "x@0x1000", lime(RANGES))
    check_ranges(open_paths(named))
    with pytest.raises(UsageError, match="2 snapshots"):
        open_paths(f"{low}@0x1000", named)


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


@pytest.mark.parametrize("is_flattened", [False, True])
def test_a_snapshot_comes_through_a_pipe(tmp_path: Path, is_flattened: bool) -> None:
    """A stream is kept in a file without a name."""
    data = Kdump({3: HIGH[:PAGE], 5: HIGH[PAGE : 2 * PAGE]}).encode()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(flattened(data) if is_flattened else data,))
    writer.start()
    snapshot = open_paths(str(pipe))
    writer.join()
    assert snapshot.physical.read(5 * PAGE, PAGE) == HIGH[PAGE : 2 * PAGE]
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_flattened_stream_that_breaks_off_in_a_pipe_is_refused(tmp_path: Path) -> None:
    """There is no second try, so nobody is to work with half of it unknowingly."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = flattened(Kdump({3: HIGH[:PAGE]}).encode())[:-100]
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    with pytest.raises(UnsupportedFormat, match="cut off"):
        open_paths(str(pipe))
    writer.join()


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


def test_the_running_kernels_memory_is_not_followed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to it is refused; the file itself is taken when it is named."""
    live = tmp_path / "kcore"
    live.write_bytes(core([Load(0x1000, HIGH)]))
    monkeypatch.setattr(files, "KCORE", str(live))
    link = tmp_path / "innocent"
    link.symlink_to(live)
    with pytest.raises(UnsupportedFormat, match="running kernel"):
        recognise(str(link))
    assert open_paths(str(live)).format == "live memory"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12), st.integers(0, 41))
@settings(max_examples=200, deadline=None)
def test_the_later_of_overlapping_pieces_holds_an_address(ends: list[tuple[int, int]], address: int) -> None:
    """As painting one after another would leave it."""
    painted: dict[int, int] = {}
    for piece, (start, end) in enumerate(ends):
        painted.update(dict.fromkeys(range(start, end), piece))
    pieces = Pieces(ends)
    found = pieces.find(address)
    assert (None if found is None else found.piece) == painted.get(address)
    assert {at: one.piece for one in pieces for at in range(one.start, one.end)} == painted
    starts = [one.start for one in pieces if one.start > address]
    assert pieces.next_start(address) == (min(starts) if starts else None)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_files_give_memory_or_named_errors(data: st.DataObject) -> None:
    """Any bytes in headers, tags and streams: an OrcdbgError or an answer."""
    small = {0x1000: HIGH[:300] + bytes(5000), 0x9000: bytes(70000)}
    opener, whole = data.draw(
        st.sampled_from(
            [
                (open_lime, lime(small)),
                (open_lime, avml(small)),
                (open_vmware, vmss(HIGH, [(0, 1, 2), (2, 9, 3)], [{"rip": 1, "rsp": 2}])),
                (open_elf_core, core([Load(0x1000, HIGH)], prstatus({}, 1))),
            ]
        )
    )
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 800)))
        raw[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\xff", b"\0", b"\x80", b"\1\0\0\0"]))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        snapshot = opener(BytesSource("file", bytes(raw)))
    except OrcdbgError:
        return
    for address in (0, 0x1000, 0x2000, 0x9000, 0x19000, (1 << 64) - 1):
        try:
            assert len(snapshot.physical.read(address, 600)) == 600
        except OrcdbgError:
            continue


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

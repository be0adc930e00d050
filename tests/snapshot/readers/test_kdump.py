"""Compressed kdumps read back what was put into them, whatever version and packing; what is not there has its word."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import NotInSnapshot, OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import BytesSource, FileSource
from orcdbg.base.sizes import PAGE
from orcdbg.formats.flattened import FlattenedSource
from orcdbg.formats.page_bitmap import PageBitmap
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.readers.kdump import open_kdump
from tests.build.elf import note, prstatus
from tests.build.kdump import LZO, SNAPPY, ZLIB, ZSTD, Kdump, flattened
from tests.snapshot.two_ranges import HIGH

INFO = b"OSRELEASE=6.1.0\nPAGESIZE=4096\n"


def pages(frames: list[int], seed: int = 0) -> dict[int, bytes]:
    """Pages that pack, pages that do not, and pages of zeros."""
    chance = random.Random(seed)
    kinds = (
        lambda: bytes(PAGE),
        lambda: chance.randbytes(PAGE),
        lambda: chance.randbytes(8) * (PAGE // 8),
    )
    return {frame: chance.choice(kinds)() for frame in frames}


def opened(*files: bytes) -> Snapshot:
    """The snapshot in these files."""
    return open_kdump([BytesSource(f"file{i}", data) for i, data in enumerate(files)])


def state_at(snapshot: Snapshot, address: int) -> str:
    """Why a byte cannot be read."""
    with pytest.raises(NotInSnapshot) as caught:
        snapshot.physical.read(address, 1)
    assert caught.value.address == address
    return caught.value.state.value


@pytest.mark.parametrize("version", range(1, 7))
@pytest.mark.parametrize("packing", [0, ZLIB, LZO, SNAPPY, ZSTD])
def test_every_page_reads_back(version: int, packing: int) -> None:
    """Decode of encode is the identity, by page, across pages, and in bulk; notes appear from version 4 on."""
    held = pages([1, 2, 3, 7, *range(100, 300)], version)
    notes = prstatus({"rip": 0x1234}, 7) + note("VMCOREINFO", 0, INFO)
    snapshot = opened(Kdump(held, packing, version, notes=notes, vmcoreinfo=INFO).encode())
    for frame, page in held.items():
        assert snapshot.physical.read(frame * PAGE, PAGE) == page
    assert snapshot.physical.read(PAGE + 100, 2 * PAGE) == (held[1] + held[2] + held[3])[100 : 100 + 2 * PAGE]
    whole = b"".join(held[frame] for frame in range(100, 300))
    assert snapshot.physical.read(100 * PAGE, 200 * PAGE) == whole
    assert snapshot.physical.read(100 * PAGE + 9, 199 * PAGE) == whole[9 : 9 + 199 * PAGE]
    assert [cpu.registers["rip"] for cpu in snapshot.cpus] == ([0x1234] if version >= 4 else [])
    assert snapshot.vmcoreinfo.get("OSRELEASE") == ("6.1.0" if version >= 3 else None)
    assert snapshot.ranges is not None
    assert list(snapshot.ranges()) == [(PAGE, 4 * PAGE), (7 * PAGE, 8 * PAGE), (100 * PAGE, 300 * PAGE)]


@pytest.mark.parametrize("is_split", [False, True])
def test_only_what_is_behind_the_descriptors_is_a_page(is_split: bool) -> None:
    """A false descriptor shows neither headers nor bitmaps nor descriptors as memory; the first byte behind them may be."""
    held = {frame: random.Random(frame).randbytes(PAGE) for frame in (1, 2, 9)}
    dump = Kdump(held, 0, frames=64, part=(2, 64) if is_split else None)
    whole = bytearray(dump.encode())
    table = 4 * PAGE
    data_start = table + 24 * (2 if is_split else 3)
    first_frame = 2 if is_split else 1
    assert dump.positions[first_frame][0] == data_start

    for offset in (1, PAGE, 2 * PAGE, 3 * PAGE, table, data_start - 1):
        struct.pack_into("<Q", whole, table, offset)
        snapshot = opened(bytes(whole))
        assert state_at(snapshot, first_frame * PAGE) == "damaged"
        assert snapshot.physical.read(9 * PAGE, PAGE) == held[9]

    struct.pack_into("<Q", whole, table, data_start)
    assert opened(bytes(whole)).physical.read(first_frame * PAGE, PAGE) == held[first_frame]


def test_missing_pages_have_their_words() -> None:
    """Excluded by makedumpfile, absent from the machine, beyond the end of the file: three words."""
    data = Kdump(pages([1, 2, 9]), excluded=[3], unfinished=[2], frames=64).encode()
    snapshot = opened(data)
    assert [state_at(snapshot, frame * PAGE + 5) for frame in (0, 2, 3, 8, 64, 1 << 30)] == [
        *("absent", "cut off", "excluded", "absent", "absent", "absent")
    ]
    assert snapshot.physical.read(9 * PAGE, 8)
    with pytest.raises(NotInSnapshot, match=r"excluded.*0x3000 "):
        snapshot.physical.read(PAGE * 3, 100 * PAGE)


def test_one_bitmap_says_both() -> None:
    """Where there is a single bitmap, what it lacks is absent."""
    snapshot = opened(Kdump(pages([5, 6]), one_bitmap=True, frames=40000).encode())
    assert snapshot.physical.read(5 * PAGE, 2 * PAGE)
    assert state_at(snapshot, 7 * PAGE) == "absent"


def test_split_dumps_are_one_in_any_order() -> None:
    """Each part holds the descriptors of its frames; all together are the dump, and a lost part is named."""
    held = pages(list(range(3, 500, 3)))
    parts = [Kdump(held, version=6, part=part, frames=500).encode() for part in ((0, 111), (111, 400), (400, 500))]
    snapshot = opened(parts[2], parts[0], parts[1])
    assert not snapshot.warnings
    assert all(snapshot.physical.read(frame * PAGE, PAGE) == page for frame, page in held.items())
    lacking = opened(parts[2], parts[0])
    assert len(lacking.warnings) == 1
    assert "not among the files" in lacking.warnings[0]
    assert lacking.physical.read(402 * PAGE, PAGE) == held[402]
    assert state_at(lacking, 300 * PAGE) == "absent"
    with pytest.raises(UnsupportedFormat, match="too"):
        opened(parts[0], parts[0])
    with pytest.raises(UnsupportedFormat, match="same split"):
        opened(parts[0], Kdump(held).encode())


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_flattened_stream_is_the_file(data: st.DataObject) -> None:
    """In any order of blocks, with later blocks over earlier ones, at every place."""
    whole = data.draw(st.binary(min_size=1, max_size=300))
    seed, block = data.draw(st.integers(0, 1 << 32)), data.draw(st.integers(1, 60))
    stream = flattened(whole, random.Random(seed).shuffle, block)
    wrong = struct.pack(">qq", 0, len(whole)) + bytes(len(whole))
    source = FlattenedSource(BytesSource("flat", stream[:4096] + wrong + stream[4096:]))
    assert source.size == len(whole)
    assert source.read_at(0, len(whole)) == whole
    start = data.draw(st.integers(0, len(whole)))
    size = data.draw(st.integers(0, len(whole) - start))
    assert source.read_at(start, size) == whole[start : start + size]


def test_a_flattened_stream_without_its_end_is_named() -> None:
    """What came is read; the rest is cut off, and a warning says so."""
    held = pages(list(range(40)), 3)
    stream = flattened(Kdump(held, packing=0).encode())
    snapshot = open_kdump([FlattenedSource(BytesSource("flat", stream[: len(stream) // 2]))])
    assert "cut off" in snapshot.warnings[0]
    assert snapshot.physical.read(0, PAGE) == held[0]
    assert state_at(snapshot, 39 * PAGE) == "cut off"


def test_lying_sizes_and_bombs_spoil_their_own_page() -> None:
    """A page that unpacks to more or less, or names several packings, is damaged; its neighbours are not."""
    for packing in (ZLIB, LZO, SNAPPY, ZSTD):
        dump = Kdump({frame: bytes([frame]) * PAGE for frame in range(4)}, packing)
        good = dump.encode()
        at = 2 * PAGE + 2 * PAGE
        for flags, size in ((packing, 3), (0, 100), (0xFF, 20), (packing, 1 << 31), (packing, PAGE)):
            bad = bytearray(good + bytes(2 * PAGE))
            struct.pack_into("<II", bad, at + 24 + 8, size, flags)
            snapshot = opened(bytes(bad))
            if (flags, size) != (packing, PAGE):
                assert state_at(snapshot, PAGE) in ("damaged", "cut off")
            assert snapshot.physical.read(0, PAGE) == bytes(PAGE)
            assert snapshot.physical.read(2 * PAGE, PAGE) == b"\2" * PAGE
    from tests.build.kdump import PACKERS

    for packing, pack in PACKERS.items():
        bomb = pack(bytes(1 << 17))
        assert len(bomb) <= 2 * PAGE
        data = bytearray(Kdump({1: bytes(PAGE)}, packing).encode() + bomb)
        struct.pack_into("<QII", data, 4 * PAGE, len(data) - len(bomb), min(len(bomb), PAGE), packing)
        assert state_at(opened(bytes(data)), PAGE) == "damaged"


@given(st.integers(0, 2000), st.lists(st.integers(0, 1999), max_size=200), st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_ranks_and_runs_are_those_of_counting(bits: int, chosen: list[int], bit: int) -> None:
    """The bitmap agrees with a plain list."""
    marks = {one for one in chosen if one < bits}
    raw = bytearray(300)
    for one in chosen:
        raw[7 + one // 8] |= 1 << one % 8
    bitmap = PageBitmap(BytesSource("map", bytes(raw)), 7, bits)
    assert bitmap.test(bit) == (bit in marks)
    assert bitmap.rank(min(bit, bits)) == sum(one < min(bit, bits) for one in marks)
    assert bitmap.rank_so_far(min(bit, bits)) == bitmap.rank(min(bit, bits))
    listed = [one for first, end in bitmap.runs(bit, bits) for one in range(first, end)]
    assert listed == sorted(one for one in marks if one >= bit)


def test_what_is_not_counted_is_not_counted_for_a_lower_bound() -> None:
    """`rank_so_far` has the bits of the spans that earlier questions reached, and reads nothing more."""
    raw = bytes([1]) + bytes((2 << 20) - 2) + bytes([0x80])
    bitmap = PageBitmap(BytesSource("map", raw), 0, len(raw) * 8)
    assert bitmap.rank_so_far(len(raw) * 8) == 0
    assert bitmap.rank(5) == 1
    assert bitmap.rank_so_far(len(raw) * 8) == 1
    assert bitmap.rank(len(raw) * 8) == 2
    assert bitmap.rank_so_far(len(raw) * 8) == 2


def test_the_head_of_four_tebibytes_opens_like_a_small_one(tmp_path: Path) -> None:
    """The bitmap is read as far as questions reach, and its counts stay small."""
    frames, path = 1 << 30, tmp_path / "big"
    small = bytearray(Kdump({1: b"\1" * PAGE}, frames=8 * PAGE).encode())
    struct.pack_into("<I", small, 436, 2 * frames // 8 // PAGE)
    struct.pack_into("<Q", small, PAGE + 96, frames)
    start, dumped = 2 * PAGE, 2 * PAGE + frames // 8
    with path.open("wb") as file:
        file.write(small[:start])
        last = frames - 1
        for base in (start, dumped):
            file.seek(base)
            file.write(b"\2")
            file.seek(base + last // 8)
            file.write(b"\x80")
        table = start + 2 * frames // 8
        file.seek(table)
        file.write(struct.pack("<QIIQ", table + 48, PAGE, 0, 0) + struct.pack("<QIIQ", table + 48 + PAGE, PAGE, 0, 0))
        file.write(b"\1" * PAGE + b"\2" * PAGE)
    began = time.perf_counter()
    snapshot = open_kdump([FileSource(str(path))])
    assert snapshot.physical.read(PAGE, PAGE) == b"\1" * PAGE
    assert time.perf_counter() - began < 0.5
    assert snapshot.physical.read(last * PAGE, PAGE) == b"\2" * PAGE


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_dumps_give_pages_or_named_errors(data: st.DataObject) -> None:
    """Any bytes in headers, bitmaps, descriptors and pages: an OrcdbgError or an answer, nothing else."""
    packing = data.draw(st.sampled_from([ZLIB, LZO, SNAPPY, ZSTD]))
    raw = bytearray(Kdump(pages([0, 1, 5, 80], 1), packing, notes=prstatus({}, 1), vmcoreinfo=INFO).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        region = data.draw(
            st.sampled_from([(0, 480), (4096, 4220), (8192, 8210), (12288, 12310), (16384, len(raw) - 9)])
        )
        at = data.draw(st.integers(*region))
        value = data.draw(st.sampled_from([b"\xff" * 8, bytes(8), b"\xff", b"\0", b"\x7f", b"\x01\0\0\0"]))
        raw[at : at + len(value)] = value
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        snapshot = opened(bytes(raw))
    except OrcdbgError:
        return
    for frame in (0, 1, 5, 80, 81):
        try:
            assert len(snapshot.physical.read(frame * PAGE, PAGE)) == PAGE
        except OrcdbgError:
            continue


@pytest.mark.parametrize("machine", [b"", b"_64", b"xxxxxx", b"\xff\xfe", b"x86_64", b"#1 SMP PREEMPT"])
def test_names_in_the_header_that_say_nothing_are_no_reason_to_refuse(machine: bytes) -> None:
    """Anonymised ones, and ones that were written four bytes away."""
    snapshot = opened(Kdump({3: HIGH[:PAGE]}, machine=machine).encode())
    assert snapshot.physical.read(3 * PAGE, PAGE) == HIGH[:PAGE]


@pytest.mark.parametrize("shift", [-4, 4])
def test_names_four_bytes_away_are_no_reason_to_refuse(shift: int) -> None:
    """The numbers behind them are where they should be."""
    data = bytearray(Kdump({3: HIGH[:PAGE]}).encode())
    names = bytes(data[12:402])
    data[12:402] = bytes(390)
    data[12 + shift : 402 + shift] = names
    data[8:12] = (6).to_bytes(4, "little")
    snapshot = opened(bytes(data))
    assert snapshot.physical.read(3 * PAGE, PAGE) == HIGH[:PAGE]


@pytest.mark.parametrize("machine", [b"aarch64", b"ppc64le", b"s390x", b"i686", b"riscv64", b"loongarch64"])
def test_another_machines_dump_is_named(machine: bytes) -> None:
    """By its own name for itself."""
    with pytest.raises(UnsupportedFormat, match=f"another machine: {machine.decode()}"):
        opened(Kdump({3: HIGH[:PAGE]}, machine=machine).encode())


def test_what_a_driver_dumped_of_its_device_is_not_read_from_a_kdump() -> None:
    """The notes around it are."""
    notes = prstatus({"rip": 0x1234}, 7) + note("LINUX", 0x700, bytes(100_000)) + prstatus({"rip": 0x99}, 8)
    snapshot = opened(Kdump({3: HIGH[:PAGE]}, notes=notes, vmcoreinfo=INFO).encode())
    assert [cpu.registers["rip"] for cpu in snapshot.cpus] == [0x1234, 0x99]
    assert [one.name for one in snapshot.notes] == ["CORE", "CORE", "VMCOREINFO"]

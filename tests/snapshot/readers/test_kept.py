"""Trimmed snapshots: what was read is what is written, what is written is read back, and zeros are not taken for memory."""

from __future__ import annotations

import io
import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import Absence, NotInSnapshot, OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats.core_writing import PAGE, Run, write_core
from orcdbg.formats.elf import Note
from orcdbg.snapshot.readers.elfcore import open_elf_core
from orcdbg.snapshot.readers.kept import NOTE_OWNER, NOTE_TYPE, Recorder, cut_out, encode_kept, parse_kept, runs_of
from tests.build.memory import SparseMemory

SIZE = 64 * PAGE
READS = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 3 * PAGE)), max_size=30)


def machine() -> SparseMemory:
    """Memory whose every byte tells its page, pages of zeros among them."""
    memory = SparseMemory("physical")
    memory.put(0, b"".join(bytes([number % 5]) * PAGE for number in range(SIZE // PAGE)))
    return memory


def trimmed(reads: list[tuple[int, int]], memory: SparseMemory) -> tuple[bytes, list[tuple[int, int]]]:
    """The core that keeps what was read, and the ranges in it."""
    recorder = Recorder(memory)
    for address, size in reads:
        recorder.read(address, min(size, SIZE - address))
    ranges, out = recorder.ranges(), io.BytesIO()
    notes = [Note("VMCOREINFO", 0, b"OSRELEASE=test\n"), encode_kept(ranges)]
    write_core(out, notes, runs_of(ranges, memory), lambda first, n: cut_out(ranges, memory, first * PAGE, n * PAGE))
    return out.getvalue(), ranges


@given(READS)
def test_kept_ranges_are_what_was_read(reads: list[tuple[int, int]]) -> None:
    """Every byte that was read, no other; rising, apart from each other."""
    _, ranges = trimmed(reads, machine())
    expected = np.zeros(SIZE + 1, dtype=bool)
    for address, size in reads:
        expected[address : min(address + size, SIZE)] = True
    found = np.zeros(SIZE + 1, dtype=bool)
    for start, end in ranges:
        assert not found[start] and start < end
        found[start:end] = True
    assert (found == expected).all()
    assert all(first[1] < second[0] for first, second in itertools.pairwise(ranges))


@given(READS.filter(lambda reads: any(address // PAGE % 5 for address, _ in reads)))
def test_what_was_kept_reads_back_and_nothing_else_does(reads: list[tuple[int, int]]) -> None:
    """The core answers what the machine answered; of the rest it says that it was trimmed, though its page is there."""
    memory = machine()
    core, ranges = trimmed(reads, memory)
    snapshot = open_elf_core(BytesSource("core", core))
    assert snapshot.vmcoreinfo == {"OSRELEASE": "test"}
    assert snapshot.ranges is not None
    assert list(snapshot.ranges()) == ranges
    for start, end in ranges:
        assert snapshot.physical.read(start, end - start) == memory.read(start, end - start)
        for low, size in ((start - 1, 2), (end - 1, 2), (end, 1)):
            with pytest.raises(NotInSnapshot) as caught:
                snapshot.physical.read(low, size)
            assert caught.value.state is Absence.TRIMMED


@given(READS)
def test_no_other_byte_gets_into_the_file(reads: list[tuple[int, int]]) -> None:
    """Whatever the bytes are that were not kept, the file is the same."""
    first, ranges = trimmed(reads, machine())
    other = machine()
    data = bytearray(b"\xa5" * SIZE)
    for start, end in ranges:
        data[start:end] = other.read(start, end - start)
    other.put(0, bytes(data))
    assert trimmed(reads, other)[0] == first


def test_blank_pages_are_there_for_others_and_take_no_place() -> None:
    """A page of zeros that was not kept is a PT_LOAD without bytes in the file, and stays absent for orcdbg."""
    memory = machine()
    assert runs_of([(PAGE, PAGE + 8)], memory, blank=[3, 4]) == [Run(1, 1, False), Run(3, 2, True)]


@pytest.mark.parametrize("count", [3, 0xFFFE, 0xFFFF, 70_000])
def test_any_number_of_stretches_is_counted(count: int) -> None:
    """Beyond 65,534 program headers the count is in section 0."""
    out = io.BytesIO()
    runs = [Run(2 * number, 1, number != 1) for number in range(count)]
    size = write_core(out, [], runs, lambda first, pages: b"x" * PAGE * pages)
    assert size == len(out.getvalue())
    snapshot = open_elf_core(BytesSource("core", out.getvalue()))
    assert snapshot.physical.read(2 * PAGE, PAGE) == b"x" * PAGE
    with pytest.raises(NotInSnapshot):
        snapshot.physical.read(2 * (count - 1) * PAGE, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not zlib",
        zlib.compress(b"x" * 15),
        zlib.compress(np.array([5, 4], dtype="<u8").tobytes()),
        zlib.compress(np.array([0, 8, 8, 16], dtype="<u8").tobytes()),
        zlib.compress(bytes(1 << 28), 9),
    ],
    ids=["empty", "noise", "half a row", "backwards", "touching", "bomb"],
)
def test_a_damaged_list_is_an_error(data: bytes) -> None:
    """Nothing is believed of a list that cannot have been written."""
    with pytest.raises(UnsupportedFormat):
        parse_kept(Note(NOTE_OWNER, NOTE_TYPE, data), "core")


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_note_gives_ranges_or_an_error(noise: bytes, at: int) -> None:
    """Whatever stands in the note."""
    good = bytearray(encode_kept([(0, 8), (4096, 8192), (1 << 40, (1 << 40) + 3)]).data)
    good[at : at + len(noise)] = noise
    try:
        rows = parse_kept(Note(NOTE_OWNER, NOTE_TYPE, bytes(good)), "core")
    except OrcdbgError:
        return
    assert (rows[:, 1] > rows[:, 0]).all()

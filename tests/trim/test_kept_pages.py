"""Trimmed snapshots: what was read is what is written, what is written is read back, and zeros are not taken for memory."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import Absence, NotInSnapshot
from orcdbg.base.reading import BytesSource
from orcdbg.base.sizes import PAGE
from orcdbg.formats.elf import Note
from orcdbg.formats.trim_note import encode_trim_note
from orcdbg.snapshot.readers.elf_core import open_elf_core
from orcdbg.trim.core_writing import Run, write_core
from orcdbg.trim.kept_pages import cut_out, runs_of
from orcdbg.trim.recorder import Recorder
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
    notes = [Note("VMCOREINFO", 0, b"OSRELEASE=test\n"), encode_trim_note(ranges)]
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

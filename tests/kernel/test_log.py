"""The kernel's log buffer: made by code, damaged, and the sample's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import Corrupt, NotFound
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.log import find_log_buffer, read_log
from orcdbg.symbols.table import ENTRY, SymbolTable
from orcdbg.target.session import Session
from tests.build.memory import SparseMemory
from tests.conftest import RunProgram

PRB, DESCRIPTORS, INFOS, TEXT, POINTER = (0xFFFFFFFF82000000 + 0x100000 * i for i in range(5))
COUNT_BITS, SIZE_BITS = 4, 8
FINAL, COMMITTED = 2, 1


def symbols(prb: int | None) -> SymbolTable:
    """A symbol table that has `prb`, or nothing."""
    rows = [] if prb is None else [(1, 0x11, 0, 1, prb, 8)]
    return SymbolTable("test", np.array(rows, dtype=ENTRY).tobytes(), b"\0prb\0", [], 1)


def caller_of(number: int) -> int:
    """A pid for odd records, a CPU for even ones."""
    return number % 100 + 1 | (0 if number % 2 else 1 << 31)


@dataclass
class Ring:
    """A log buffer of 16 records and 256 bytes of text, written as the kernel writes one; `exact` as the newest do."""

    sample: Session
    exact: bool = False
    text: bytearray = field(default_factory=lambda: bytearray(1 << SIZE_BITS))
    blocks: dict[int, tuple[int, int]] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    head: int = 0

    def add(self, number: int, text: bytes) -> None:
        """Writes a record's text behind the last."""
        if not text:
            self.blocks[number], self.lengths[number] = (1, 1), 0
            return
        size, ring = -(-(8 + len(text)) // 8) * 8, 1 << SIZE_BITS
        begin, end = self.head, self.head + size
        at = begin % ring
        fits = (end - 1 if self.exact else end) // ring == begin // ring
        if not fits:
            end, at = (begin // ring + 1) * ring + size, 0
        self.text[at : at + 8] = number.to_bytes(8, "little")
        self.text[at + 8 : at + size] = text.ljust(size - 8, b"\0")
        self.blocks[number], self.lengths[number], self.head = (begin, end), len(text), end

    def linux(self, states: dict[int, int] | None = None, count_bits: int = COUNT_BITS) -> Linux:
        """A kernel with this buffer and the sample's types."""
        types, memory = self.sample.types, SparseMemory()
        ring = bytearray(types.size("printk_ringbuffer"))
        last, first = max(self.blocks), min(self.blocks)
        values = {"desc_ring.descs": DESCRIPTORS, "desc_ring.infos": INFOS, "text_data_ring.data": TEXT}
        values |= {"desc_ring.head_id": last, "desc_ring.tail_id": first}
        for path, value in values.items():
            at = types.offset("printk_ringbuffer", path)
            ring[at : at + 8] = value.to_bytes(8, "little")
        for path, value in {"desc_ring.count_bits": count_bits, "text_data_ring.size_bits": SIZE_BITS}.items():
            at = types.offset("printk_ringbuffer", path)
            ring[at : at + 4] = value.to_bytes(4, "little")
        memory.put(PRB, bytes(ring))
        memory.put(TEXT, bytes(self.text))
        memory.put_words(POINTER, PRB)
        self._put_records(memory, states or {})
        return Linux(memory, symbols(POINTER), types, 0)

    def _put_records(self, memory: SparseMemory, states: dict[int, int]) -> None:
        types, count = self.sample.types, 1 << COUNT_BITS
        sizes = types.size("prb_desc"), types.size("printk_info")
        descriptors, infos = bytearray(count * sizes[0]), bytearray(count * sizes[1])
        for number, (begin, end) in self.blocks.items():
            at = number % count * sizes[0]
            words = (states.get(number, FINAL) << 62 | number, begin, end)
            descriptors[at : at + 24] = b"".join(word.to_bytes(8, "little") for word in words)
            info = number.to_bytes(8, "little") + (number * 1_000_000).to_bytes(8, "little")
            info += (
                self.lengths[number].to_bytes(2, "little")
                + bytes([0, 4 << 5])
                + caller_of(number).to_bytes(4, "little")
            )
            at = number % count * sizes[1]
            infos[at : at + len(info)] = info
        memory.put(DESCRIPTORS, bytes(descriptors))
        memory.put(INFOS, bytes(infos))


@pytest.mark.parametrize("exact", [False, True])
@given(texts=st.lists(st.binary(max_size=60), min_size=1, max_size=40), start=st.integers(0, 1 << 40))
def test_a_ring_gives_back_what_was_written(sample: Session, exact: bool, texts: list[bytes], start: int) -> None:
    """The newest records as the ring wraps, also where a text ends exactly at the ring's end."""
    ring = Ring(sample, exact)
    for number, text in enumerate(texts, start):
        ring.add(number, text)
    newest = list(enumerate(texts, start))[-3:]  # three of at most 72 bytes never overwrite each other
    ring.blocks = {number: ring.blocks[number] for number, _ in newest}
    records, problems = read_log(ring.linux())
    shown = [(one.seq, one.text) for one in records]
    assert (shown, problems) == ([(n, text.decode("utf-8", "backslashreplace")) for n, text in newest], [])
    assert {(one.level, one.facility) for one in records} == {(4, 0)}
    assert [one.caller for one in records] == [f"{'CT'[n % 2]}{n % 100 + 1}" for n, _ in newest]


def test_records_that_are_being_written_or_reused_are_left_out(sample: Session) -> None:
    """A committed one is shown: the last words of a panic are."""
    ring = Ring(sample)
    for number, text in enumerate((b"reserved", b"committed", b"reusable")):
        ring.add(number, text)
    records, _ = read_log(ring.linux({0: 0, 1: COMMITTED, 2: 3}))
    assert [one.text for one in records] == ["committed"]


@pytest.mark.parametrize("bits", [0, 21, 63])
def test_a_ring_of_impossible_size_is_refused(sample: Session, bits: int) -> None:
    """Before any time is spent on it."""
    ring = Ring(sample)
    ring.add(0, b"text")
    with pytest.raises(Corrupt):
        read_log(ring.linux(count_bits=bits))


@pytest.mark.parametrize("block", [(0, 4), (0, 1 << 20), (240, 250), (8, 0), (0, 16)])
def test_a_text_outside_its_ring_or_of_another_record_is_a_problem(sample: Session, block: tuple[int, int]) -> None:
    """The other records stay."""
    ring = Ring(sample)
    ring.add(5, b"good")
    ring.add(6, b"bad")
    ring.blocks[6] = block
    records, problems = read_log(ring.linux())
    assert ([one.text for one in records], len(problems)) == (["good"], 1)


def test_a_missing_page_costs_its_records_only(sample: Session) -> None:
    """Each is counted."""
    ring = Ring(sample)
    for number in range(3):
        ring.add(number, b"text")
    linux = ring.linux()
    assert isinstance(linux.memory, SparseMemory)
    del linux.memory.pieces[TEXT]
    records, problems = read_log(linux)
    assert (records, len(problems)) == ([], 3)


def test_a_kernel_without_the_ring_says_so(sample: Session) -> None:
    """Before 5.10 the log was another thing."""
    with pytest.raises(NotFound):
        read_log(Linux(SparseMemory(), symbols(None), sample.types, 0))


def test_log_shows_the_samples_panic(sample: Session, orcdbg_run: RunProgram) -> None:
    """In text with seconds, in JSON with every field; -n and -l choose."""
    records, problems = read_log(sample.linux)
    assert (records[0].seq, records[0].text.startswith("Linux version 5.10."), problems) == (0, True, [])
    text = orcdbg_run("demo", "-e", "log")[1]
    assert "] Kernel panic - not syncing: NMI: Not continuing\n" in text
    assert text.startswith("[    0.000000] Linux version 5.10.")
    last = "[nmi_print_seq of CPU 0] ---[ end Kernel panic - not syncing: NMI: Not continuing ]---\n"
    before, behind = text.split(last)
    assert orcdbg_run("demo", "-e", "log -n 3")[1] == "".join(before.splitlines(keepends=True)[-3:]) + last + behind
    (line,) = orcdbg_run("demo", "--format", "json", "-e", "log -l 0")[1].splitlines()
    urgent = json.loads(line)["result"]["records"]
    assert urgent
    assert {one["level"] for one in urgent} == {0}
    assert orcdbg_run("demo", "-e", "log -n 0")[0] == 2


def test_the_areas_of_the_buffer_are_enough_to_read_it(sample: Session) -> None:
    """What trimming keeps of a log is what the log is read from, and no byte more than the rings."""
    ring = Ring(sample)
    for number in range(3):
        ring.add(number, b"text %d" % number)
    linux = ring.linux()

    kept = SparseMemory()
    kept.put_words(POINTER, PRB)
    for address, size in find_log_buffer(linux).areas():
        kept.put(address, linux.memory.read(address, size))

    assert set(kept.pieces) == {POINTER, PRB, DESCRIPTORS, INFOS, TEXT}
    assert read_log(Linux(kept, linux.symbols, linux.types, 0)) == read_log(linux)

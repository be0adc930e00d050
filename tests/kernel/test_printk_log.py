"""The log buffer of kernels before 5.10: made by code, damaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import Corrupt
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.log import LogRecord, find_log_buffer, read_log
from tests.build.kernel import U8, U32, U64, Structure, made_linux
from tests.build.memory import SparseMemory

BUFFER, VARIABLES = 0xFFFF_FFFF_8230_0000, 0xFFFF_FFFF_8220_0000
SIZE, HEADER = 512, 20
VARIABLE_SIZES = {"log_buf": 8, "log_buf_len": 4, "log_first_idx": 4, "log_next_idx": 4, "log_first_seq": 8}
PLACES = {name: VARIABLES + 8 * number for number, name in enumerate(VARIABLE_SIZES)}


class Buffer:
    """A log buffer of 512 bytes, written as log_store() writes one."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.first = self.next = 0
        self.first_seq = 0
        self.records: list[tuple[int, int]] = []  # where each begins, and its length

    def add(self, number: int, text: bytes, names: bytes = b"") -> None:
        """Writes a record behind the last, over the oldest ones."""
        size = -(-(HEADER + len(text) + len(names)) // 4) * 4
        while self.records and not self._has_room(size):
            self.records.pop(0)
            self.first_seq += 1
        if self.next + size + HEADER > SIZE:
            self.data[self.next : self.next + HEADER] = bytes(len(self.data[self.next : self.next + HEADER]))
            self.next = 0
        head = (number * 1000).to_bytes(8, "little")
        head += b"".join(length.to_bytes(2, "little") for length in (size, len(text), len(names)))
        head += bytes((3, 6 << 5 | 2)) + (number | 1 << 31).to_bytes(4, "little")
        self.data[self.next : self.next + size] = (head + text + names).ljust(size, b"\0")
        self.records.append((self.next, size))
        self.next += size

    def _has_room(self, size: int) -> bool:
        first = self.records[0][0]
        free = max(SIZE - self.next, first) if self.next > first else first - self.next
        return free >= size + HEADER

    def linux(self, **values: int) -> Linux:
        """A kernel with this buffer; `values` of variables are instead of its own."""
        memory = SparseMemory()
        memory.put(BUFFER, bytes(self.data))
        first = self.records[0][0] if self.records else self.next
        known = {"log_buf": BUFFER, "log_buf_len": SIZE, "log_first_idx": first, "log_next_idx": self.next}
        for name, value in (known | {"log_first_seq": self.first_seq} | values).items():
            memory.put(PLACES[name], value.to_bytes(VARIABLE_SIZES[name], "little"))
        symbols = {name: (place, VARIABLE_SIZES[name]) for name, place in PLACES.items()}
        return made_linux(memory, {"u16": (2, {}), "printk_log": PRINTK_LOG}, symbols)


PRINTK_LOG: Structure = (
    HEADER,
    {
        "ts_nsec": (0, U64),
        "len": (8, "u16"),
        "text_len": (10, "u16"),
        "dict_len": (12, "u16"),
        "facility": (14, U8),
        "level": (15, U8),
        "caller_id": (16, U32),
    },
)


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=30))
def test_the_buffer_gives_back_what_it_still_holds(texts: list[bytes]) -> None:
    """Whatever was written over, and wherever the buffer wraps."""
    buffer = Buffer()
    for number, text in enumerate(texts):
        buffer.add(number, text)
    records, problems = read_log(buffer.linux())
    numbers = range(len(texts) - len(buffer.records), len(texts))
    assert problems == []
    assert [(each.seq, each.time, each.text) for each in records] == [
        (number, number * 1000, texts[number].decode("utf-8", "backslashreplace")) for number in numbers
    ]
    assert [each.caller for each in records] == [f"C{number}" for number in numbers]


def test_the_dictionary_names_device_and_subsystem() -> None:
    """As dev_printk() writes it: pairs with a NUL between them."""
    buffer = Buffer()
    buffer.add(1, b"found it", b"SUBSYSTEM=pci\0DEVICE=+pci:0000:00:01.0")
    (record,), _ = read_log(buffer.linux())
    assert isinstance(record, LogRecord)
    assert (record.text, record.subsystem, record.device) == ("found it", "pci", "+pci:0000:00:01.0")


def test_an_empty_log_has_no_records() -> None:
    """First and next are one place."""
    assert read_log(Buffer().linux()) == ([], [])


@pytest.mark.parametrize("values", [{"log_buf_len": 0}, {"log_next_idx": SIZE}, {"log_first_idx": SIZE + 4}])
def test_variables_that_contradict_each_other_are_refused(values: dict[str, int]) -> None:
    """Before anything is read by them."""
    with pytest.raises(Corrupt):
        read_log(Buffer().linux(**values))


@given(st.binary(min_size=HEADER, max_size=HEADER), st.integers(0, 2))
def test_a_damaged_header_costs_the_records_behind_it_at_most(header: bytes, which: int) -> None:
    """Each record's length leads to the next."""
    buffer = Buffer()
    for number in range(3):
        buffer.add(number, b"text %d" % number)
    place, _ = buffer.records[which]
    buffer.data[place : place + HEADER] = header
    records, _ = read_log(buffer.linux())
    assert [each.text for each in records[:which]] == [f"text {number}" for number in range(which)]


def test_the_areas_of_the_buffer_are_enough_to_read_it() -> None:
    """What trimming keeps of such a log is what it is read from."""
    buffer = Buffer()
    buffer.add(1, b"text")
    linux = buffer.linux()
    kept = SparseMemory()
    for address, size in find_log_buffer(linux).areas():
        kept.put(address, linux.memory.read(address, size))
    assert read_log(Linux(kept, linux.symbols, linux.types, 0)) == read_log(linux)

"""What did a kernel before 5.10 print: the records in its log buffer, oldest first?

Mirrors kernel/printk/printk.c, 3.5 to 5.9: `log_buf` is a ring of bytes, in which each record begins with a
`struct printk_log` that has the record's length. A length of zero means that the next record is at the buffer's begin.
5.10 has a ring of descriptors instead (896fbe20b4e2), see kernel/log.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from orcdbg.base.errors import Corrupt, MemoryFault
from orcdbg.base.reading import read_u32, read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Chain
from orcdbg.kernel.linux import Linux

_HEADER = "printk_log"
# log_buf_len= takes up to 2 GiB; a distribution's buffer is 2^18 to 2^20 bytes.
_MAX_SIZE = 1 << 31
_FACTS = ("ts_nsec", "len", "text_len", "dict_len", "facility", "level", "caller_id")
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


class PrintkLog:
    """The log buffer of one kernel.

    Args:
        linux: the kernel.
        most: records that are read, at most.
        most_text: bytes of them, at most.

    Raises:
        NotFound: from the constructor, where the kernel has no such buffer.
        Corrupt: likewise, where the buffer's own numbers contradict each other.
        MemoryFault: likewise, where the variables are not in the snapshot.
    """

    def __init__(self, linux: Linux, most: int, most_text: int) -> None:
        self._linux = linux
        self._at = read_u64(linux.memory, linux.address("log_buf"))
        self._size = self._number("log_buf_len")
        self._first, self._next = self._number("log_first_idx"), self._number("log_next_idx")
        if not 0 < self._size <= _MAX_SIZE or max(self._first, self._next) >= self._size:
            raise Corrupt(
                f"log_buf_len is {self._size}, log_first_idx {self._first} and log_next_idx {self._next}: no log buffer"
            )
        self._header_size = linux.types.size(_HEADER)
        self._budget = Budget(most, most_text)

    def _number(self, name: str) -> int:
        return read_u32(self._linux.memory, self._linux.address(name))

    def areas(self) -> list[tuple[int, int]]:
        """Where all of it lies: (address, size in bytes) of the variables, and of the buffer."""
        linux = self._linux
        sizes = {"log_buf": 8, "log_buf_len": 4, "log_first_idx": 4, "log_next_idx": 4}
        sizes |= {"log_first_seq": 8, "log_next_seq": 8}
        named = [(linux.find_address(name), size) for name, size in sizes.items()]
        return [*((address, size) for address, size in named if address is not None), (self._at, self._size)]

    def records(self) -> Iterator[tuple[dict[str, int], bytes, bytes]]:
        """The facts, the text and the dictionary of each record; what ends the walk early is in `problems`."""
        seq = self._first_number()
        for place in Chain(
            self._at + self._first, self._next_of, self._budget, "the log", ends=(self._at + self._next,)
        ):
            try:
                facts = self._facts(place)
                if not facts["len"]:
                    continue  # the end of the buffer

                data = self._contents(place, facts)
            except (Corrupt, MemoryFault) as error:
                self._budget.note_error("a record of the log", place, error)
                return
            text = data[: facts["text_len"]]
            yield facts | {"seq": seq}, text, data[facts["text_len"] :]
            seq += 1

    @property
    def problems(self) -> list[str]:
        """Why not all records were read, once `records` was."""
        return self._budget.lines()

    def _first_number(self) -> int:
        """The first record's number; 0 where that is not to be had."""
        address = self._linux.find_address("log_first_seq")
        try:
            return 0 if address is None else read_u64(self._linux.memory, address)
        except MemoryFault:
            return 0

    def _next_of(self, place: int) -> int:
        size = self._linux.member(_HEADER, "len", place)
        return place + size if size else self._at

    def _facts(self, place: int) -> dict[str, int]:
        """The header of a record."""
        types = self._linux.types
        if not self._at <= place <= self._at + self._size - self._header_size:
            raise Corrupt(f"it is not in the buffer of {self._size} bytes at {self._at:#x}")
        data = self._linux.memory.read(place, self._header_size)
        facts: dict[str, int] = {}
        for name, member in types.members(_HEADER).items():
            if name not in _FACTS:
                continue
            if member.bit_size:
                byte = data[member.offset]
                facts[name] = byte >> member.bit_offset % 8 & (1 << member.bit_size) - 1
            else:
                (facts[name],) = struct.unpack_from(
                    "<" + _CODES[types.size_of_member(_HEADER, name)], data, member.offset
                )
        return facts

    def _contents(self, place: int, facts: dict[str, int]) -> bytes:
        """Text and dictionary of a record."""
        used = facts["text_len"] + facts["dict_len"]
        end = place + facts["len"]
        if self._header_size + used > facts["len"] or end > self._at + self._size:
            raise Corrupt(f"it claims {used} bytes of text in {facts['len']}")
        return self._budget.read(self._linux.memory, place + self._header_size & U64, used, "text of the log")


def dictionary(data: bytes) -> dict[str, str]:
    """The dictionary behind a record's text: `SUBSYSTEM` and `DEVICE` by dev_printk(), separated by NULs."""
    pairs = (entry.partition(b"=") for entry in data.split(b"\0"))
    return {
        key.decode("ascii", "replace"): value.decode("utf-8", "backslashreplace")
        for key, is_pair, value in pairs
        if is_pair
    }

"""What did the kernel print: the records of its log buffer, oldest first?

Mirrors kernel/printk/printk_ringbuffer.c, 5.10 to 7.2: a ring of descriptors, one of facts about each record, and one of
text. A record's text lies between two logical positions, after a word that repeats the descriptor's number. What kernels had
before is read by kernel/printk_log.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.errors import Corrupt, MemoryFault, NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.printk_log import PrintkLog, dictionary
from orcdbg.symbols.btf import BtfMember

_COMMITTED, _FINALIZED = 1, 2
_STATE_SHIFT = 62
_ID_MASK = (1 << _STATE_SHIFT) - 1
_ID_SIZE = 8
_MAX_COUNT_BITS, _MAX_SIZE_BITS = 20, 31
_MAX_PROBLEMS = 10
# A log of 16 MiB, 32 times a distribution's, holds some 2^17 records; a ring of 2^20 false ones would cost a minute.
MAX_RECORDS = 1 << 18
# Each record has up to 64 KiB of text, and all together lie side by side in the ring; false ones may all lie in one place.
MAX_TEXT = 64 << 20
_CPU_CALLER = 0x8000_0000


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record: `time` in ns since the boot began, `caller` is `T<pid>` or `C<cpu>`, None where it is not kept.

    `text` may hold several lines, and what the kernel was given: it is not safe for a terminal. `subsystem` and `device` are
    those that dev_printk() names, None where another function printed.
    """

    seq: int
    time: int
    level: int
    facility: int
    caller: str | None
    text: str
    subsystem: str | None = None
    device: str | None = None

    @property
    def is_from_user_space(self) -> bool:
        """Whether a program wrote it by /dev/kmsg: devkmsg_write() lets nobody have facility 0, which is the kernel's."""
        return self.facility != 0


class _Ring(NamedTuple):
    """One ring of the buffer: `bits` of its size or count, and where it lies."""

    bits: int
    address: int

    @property
    def mask(self) -> int:
        return (1 << self.bits) - 1


class LogBuffer:
    """The log buffer of one kernel: struct printk_ringbuffer.

    Args:
        linux: the kernel.
        address: of the structure.

    Raises:
        Corrupt: from the constructor, where the rings are larger than any kernel's.
        MemoryFault: likewise, where the structure is not in the snapshot.
    """

    def __init__(self, linux: Linux, address: int) -> None:
        self._linux = linux
        self._at = address
        self._descriptors = _Ring(self._number("desc_ring.count_bits"), self._number("desc_ring.descs"))
        self._text = _Ring(self._number("text_data_ring.size_bits"), self._number("text_data_ring.data"))
        self._infos = self._number("desc_ring.infos")
        self._budget = Budget(MAX_RECORDS, MAX_TEXT)
        if not (0 < self._descriptors.bits <= _MAX_COUNT_BITS and 0 < self._text.bits <= _MAX_SIZE_BITS):
            raise Corrupt(
                f"the log buffer at {address:#x} claims 2^{self._descriptors.bits} records in 2^{self._text.bits} bytes"
            )
        self.left_out = 0
        types = linux.types
        self._sizes = types.size("prb_desc"), types.size("printk_info")
        # A snapshot may claim a quarter of a million records: of each its descriptor is read once, at offsets found once.
        self._words_of_descriptor = [
            slice(types.offset("prb_desc", path), types.offset("prb_desc", path) + 8)
            for path in ("state_var", "text_blk_lpos.begin", "text_blk_lpos.next")
        ]
        self._info = {name: m for name, m in types.members("printk_info").items() if name in _FACTS}
        self._device = [
            (types.offset("printk_info", path), types.size_of_member("printk_info", path))
            for path in ("dev_info.subsystem", "dev_info.device")
            if types.has("printk_info", path)
        ]

    def _number(self, path: str) -> int:
        return self._linux.member("printk_ringbuffer", path, self._at)

    def areas(self) -> list[tuple[int, int]]:
        """Where all of it lies: (address, size in bytes) of the structure itself, descriptors, infos, and text."""
        count = self._descriptors.mask + 1
        descriptor_size, info_size = self._sizes
        return [
            (self._at, self._linux.types.size("printk_ringbuffer")),
            (self._descriptors.address, count * descriptor_size),
            (self._infos, count * info_size),
            (self._text.address, self._text.mask + 1),
        ]

    def ids(self) -> range:
        """Numbers of the descriptors between tail and head, the newest where there are too many; `left_out` counts others."""
        head, tail = self._number("desc_ring.head_id") & _ID_MASK, self._number("desc_ring.tail_id") & _ID_MASK
        count = (head - tail & _ID_MASK) + 1
        if count > self._descriptors.mask + 1:
            raise Corrupt(f"the log buffer at {self._at:#x} claims {count} records of {self._descriptors.mask + 1}")
        self.left_out = max(count - MAX_RECORDS, 0)
        return range(tail + self.left_out, tail + count)

    def record(self, number: int) -> LogRecord | None:
        """The record of a descriptor; None for one that is being written, or was given back."""
        index = number & self._descriptors.mask
        descriptor = self._descriptors.address + index * self._sizes[0] & U64
        words = self._linux.memory.read(descriptor, self._sizes[0])
        state, begin, end = (int.from_bytes(words[place], "little") for place in self._words_of_descriptor)
        if state & _ID_MASK != number & _ID_MASK or state >> _STATE_SHIFT not in (_COMMITTED, _FINALIZED):
            return None
        info = self._infos + index * self._sizes[1] & U64
        data = self._linux.memory.read(info, self._sizes[1])
        facts = {name: _fact(data, member, _FACTS[name]) for name, member in self._info.items()}
        text = self._words(number, begin, end, facts.get("text_len", 0))
        return _record(facts, text, *(_word(data[offset : offset + size]) for offset, size in self._device))

    def _words(self, number: int, begin: int, end: int, length: int) -> str:
        """The text between two logical positions."""
        if begin & end & 1:
            return ""  # a record without text, or whose text found no room
        bits, mask = self._text.bits, self._text.mask
        at, size = begin & mask, end - begin
        if begin >> bits != end >> bits and end & mask:
            at, size = 0, end & mask  # the text did not fit before the ring's end, and begins anew
        if not _ID_SIZE <= size <= mask + 1 or at + size > mask + 1:
            raise Corrupt(f"log record {number}: text from {begin:#x} to {end:#x} of a ring of {mask + 1} bytes")
        place, used = self._text.address + at & U64, min(size, _ID_SIZE + length)
        block = self._budget.read(self._linux.memory, place, used, "text of the log")
        if int.from_bytes(block[:_ID_SIZE], "little") & _ID_MASK != number & _ID_MASK:
            raise Corrupt(f"log record {number}: its text is of another record")
        return block[_ID_SIZE : _ID_SIZE + length].decode("utf-8", "backslashreplace")


# Members of struct printk_info, and the bytes they have; a bit-field's do not matter.
_FACTS = {"seq": 8, "ts_nsec": 8, "text_len": 2, "facility": 1, "level": 1, "caller_id": 4}


def _fact(data: bytes, member: BtfMember, size: int) -> int:
    """A member of `struct printk_info`; `level` is a bit-field."""
    value = int.from_bytes(data[member.offset : member.offset + size], "little")
    return value >> member.bit_offset % 8 & (1 << member.bit_size) - 1 if member.bit_size else value


def _word(data: bytes) -> str | None:
    """A name in a character array; None where it is empty."""
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace") or None


def _record(facts: Mapping[str, int], text: str, subsystem: str | None = None, device: str | None = None) -> LogRecord:
    caller = facts.get("caller_id", 0)
    who = f"C{caller & ~_CPU_CALLER}" if caller & _CPU_CALLER else f"T{caller}" if caller else None
    return LogRecord(facts["seq"], facts["ts_nsec"], facts["level"], facts["facility"], who, text, subsystem, device)


def find_log_buffer(linux: Linux) -> LogBuffer | PrintkLog:
    """The buffer that `prb` points to: printk's static one, or the one that replaced it early in the boot; else `log_buf`.

    Raises:
        NotFound: the kernel keeps its log in nothing that is known here.
        Corrupt: the buffer's own numbers contradict each other.
        MemoryFault: the buffer itself is not in the snapshot.
    """
    pointer = linux.find_address("prb")
    if pointer is not None and linux.types.has("prb_desc_ring", "infos"):
        return LogBuffer(linux, read_u64(linux.memory, pointer))
    if linux.types.has("printk_log", "text_len"):
        return PrintkLog(linux, MAX_RECORDS, MAX_TEXT)
    raise NotFound("log buffer", "prb")


def read_log(linux: Linux) -> tuple[list[LogRecord], list[str]]:
    """The records that can be read, oldest first, and a line for each of the first problems.

    Raises:
        NotFound: the kernel keeps its log in nothing that is known here.
        Corrupt: the buffer's own numbers contradict each other.
        MemoryFault: the buffer itself is not in the snapshot.
    """
    buffer = find_log_buffer(linux)
    return _ring_records(buffer) if isinstance(buffer, LogBuffer) else _printk_records(buffer)


def _printk_records(buffer: PrintkLog) -> tuple[list[LogRecord], list[str]]:
    """As `read_log`, of a kernel before 5.10."""
    records: list[LogRecord] = []
    for facts, text, more in buffer.records():
        names = dictionary(more)
        words = text.decode("utf-8", "backslashreplace")
        records.append(_record(facts, words, names.get("SUBSYSTEM"), names.get("DEVICE")))
    return records, buffer.problems


def _ring_records(buffer: LogBuffer) -> tuple[list[LogRecord], list[str]]:
    """As `read_log`, of a ring of descriptors."""
    records: list[LogRecord] = []
    unread: list[str] = []
    # The newest first: where the budget is spent, the oldest are what is least missed.
    for number in reversed(buffer.ids()):
        try:
            record = buffer.record(number)
        except (Corrupt, MemoryFault) as error:
            unread.append(str(error))
            continue
        if record is not None:
            records.append(record)

    problems = unread[: -_MAX_PROBLEMS - 1 : -1]
    if len(unread) > len(problems):
        problems.append(f"{len(unread) - len(problems)} more records cannot be read")
    if buffer.left_out:
        problems.append(f"the log claims more than {MAX_RECORDS} records: the {buffer.left_out} oldest are left out")
    return records[::-1], problems

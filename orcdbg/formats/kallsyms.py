"""Where among a kernel's read-only data is its own symbol table (kallsyms), and which symbols does it hold?

The tables have no header, and the symbols that name them are among those they hold. They are found by what they must be:
a list of 256 tokens with the index that follows from it; a list of rising markers, one for each 256 names; names that are
as long as the markers say; addresses that rise. Mirrors write_src() in scripts/kallsyms.c and kernel/kallsyms.c.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import signed

MAX_SYMBOLS = 1 << 21
MAX_TEXT = 32 << 20  # bytes of all names spelt out
# Places that look like digits of a token table, like such a table, and like names: of a kernel there are a few.
MAX_DIGITS, MAX_TABLES, MAX_WALKS = 4096, 16, 256
_MIN_SYMBOLS = 512
_BLOCK = 256  # names to a marker
_TOKENS = 256
_MAX_LISTS = 8  # that look like markers, the longest
_DIGITS = b"".join(bytes((digit, 0)) for digit in b"0123456789")
_MAX_TOKEN = 512
_MAX_MARKERS = 4 * MAX_SYMBOLS  # bytes, with the three for each symbol that may follow them
_MAX_STEP = _BLOCK * 600
_BANNER = ("linux_banner", b"Linux version ")
_SLACK = 64  # padding between tables, and then some

KERNEL_BASE = 0xFFFF_FFFF_8000_0000

U64Array = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]


class Kallsyms(NamedTuple):
    """The symbols in the table's order, which is that of addresses.

    Attributes:
        addresses: of each symbol.
        letters: of each, as nm prints them.
        name_at: where in `strings` each name begins; it ends with a NUL.
        strings: all names.
        encoding: how the addresses were kept: `per-cpu`, `base` or `self`.
    """

    addresses: U64Array
    letters: U8Array
    name_at: IntArray
    strings: bytes
    encoding: str

    def find(self, name: str) -> int | None:
        """The address of the first symbol of that name, None where there is none."""
        wanted, at = name.encode() + b"\0", -1
        while (at := self.strings.find(wanted, at + 1)) >= 0:
            row = int(np.searchsorted(self.name_at, at))
            if row < len(self.name_at) and self.name_at[row] == at:
                return int(self.addresses[row])
        return None


class _Tokens(NamedTuple):
    """The token table at `start`, whose index ends at `end`."""

    start: int
    end: int
    texts: list[bytes]


class _Names(NamedTuple):
    """Compressed names: offset of the first record, how many, and offset and length of the token numbers of each."""

    start: int
    total: int
    at: IntArray
    sizes: IntArray


def _find_tokens(data: bytes) -> Iterator[_Tokens]:
    """Every place that looks like token table and index. Digits stand for themselves in each kernel's table."""
    hit = -1
    for _ in range(MAX_DIGITS):
        hit = data.find(_DIGITS, hit + 1)
        if hit < 0:
            return
        start = hit
        for _ in range(ord("0")):
            start = data.rfind(b"\0", max(start - _MAX_TOKEN, 0), start - 1) + 1
            if start <= 0:
                break
        if start <= 0:
            continue
        texts = data[start : start + _TOKENS * 64].split(b"\0", _TOKENS)[:_TOKENS]
        if len(texts) < _TOKENS or not all(text.isascii() and 0 < len(text) < _MAX_TOKEN for text in texts):
            continue
        offsets = np.cumsum([0, *(len(text) + 1 for text in texts)])
        if offsets[-2] > 0xFFFF:
            continue
        table = offsets[:-1].astype("<u2").tobytes()
        end = start + int(offsets[-1])
        index = data.find(table, end, end + _SLACK + len(table))
        if index >= 0:
            yield _Tokens(start, index + len(table), texts)


def _find_markers(data: bytes, before: int) -> Iterator[IntArray]:
    """Lists of rising offsets that end shortly before `before`, the longest first: each with its place as last element.

    Since 6.2 a list of three bytes for each symbol may stand between them and the tokens. To 4.19 an offset takes eight bytes,
    since then four (80ffbaa5b1bd).
    """
    # Of both widths the longest first: what follows costs walks, and other data have short lists that look like markers.
    yield from sorted((*_markers_of(data, before, 4), *_markers_of(data, before, 8)), key=len, reverse=True)[
        :_MAX_LISTS
    ]


def _markers_of(data: bytes, before: int, width: int) -> Iterator[IntArray]:
    """Those lists whose offsets take so many bytes."""
    lowest = max(before - width // 4 * _MAX_MARKERS, 0) & -width
    words = np.frombuffer(data[lowest : before & -width], dtype=f"<u{width}").astype(np.int64)
    zeros = np.flatnonzero(words[:-1] == 0)
    steps = np.diff(words)
    good = (steps >= 2 * _BLOCK) & (steps <= _MAX_STEP)
    # How many good steps follow each place.
    stops = np.flatnonzero(~good)
    at = np.searchsorted(stops, zeros)
    ends = np.append(stops, len(steps))[at]
    runs = ends - zeros
    order = np.argsort(-runs, kind="stable")[:_MAX_LISTS]
    for i in order.tolist():
        if runs[i] + 1 >= _MIN_SYMBOLS // _BLOCK:
            first, count = int(zeros[i]), int(runs[i]) + 1
            yield np.append(words[first : first + count], lowest + width * first)


def _records(data: U8Array, starts: IntArray, count: int) -> tuple[IntArray, IntArray, IntArray] | None:
    """Walks the names of all blocks at once: offsets and sizes of the token numbers, and where each block ends.

    A size of 128 and more takes two bytes since 6.1 (73bbb94466fd), low seven bits first; shorter ones are as ever.
    """
    at = np.zeros((len(starts), _BLOCK), dtype=np.int64)
    sizes = np.zeros((len(starts), _BLOCK), dtype=np.int64)
    position = starts.copy()
    left = np.full(len(starts), _BLOCK, dtype=np.int64)
    left[-1] = count - _BLOCK * (len(starts) - 1)
    for column in range(_BLOCK):
        rows = left > column
        if int(position[rows].max(initial=0)) + 2 > len(data):
            return None
        safe = np.where(rows, position, 0)
        first = data[safe].astype(np.int64)
        big = first >= 0x80
        length = np.where(big, first & 0x7F | data[safe + 1].astype(np.int64) << 7, first)
        head = 1 + big
        if not (length[rows] > 0).all():
            return None
        at[rows, column] = (position + head)[rows]
        sizes[rows, column] = length[rows]
        position = np.where(rows, position + head + length, position)
    return at.ravel()[:count], sizes.ravel()[:count], position


def _find_names(data: bytes, markers: IntArray, walks: Iterator[int]) -> _Names | None:
    """The names that the markers are of: before them, behind a word that counts them; `walks` are those left to try."""
    array = np.frombuffer(data, dtype=np.uint8)
    place, offsets = int(markers[-1]), markers[:-1]
    low, high = (len(offsets) - 1) * _BLOCK, len(offsets) * _BLOCK
    first = max(place - int(offsets[-1]) - _BLOCK * 600, 0) & ~3
    words = np.frombuffer(data[first : place & ~3], dtype="<u4")
    for hit in np.flatnonzero((words > low) & (words <= high)).tolist():
        if next(walks, None) is None:
            raise UnsupportedFormat("kallsyms", f"more than {MAX_WALKS} places that look like names")
        count = int(words[hit])
        for start in (first + 4 * hit + 8, first + 4 * hit + 4):
            if start + int(offsets[-1]) < place and (found := _walked(array, start, offsets, count, place)) is not None:
                return found
    return None


def _walked(array: U8Array, start: int, offsets: IntArray, count: int, place: int) -> _Names | None:
    """The names at `start`, None where they do not agree with the markers."""
    found = _records(array[:place], offsets + start, count) if count > _BLOCK else None
    if found is None:
        return None
    at, sizes, ends = found
    if not np.array_equal(ends[:-1], offsets[1:] + start) or not 0 <= place - int(ends[-1]) < _SLACK:
        return None
    return _Names(start, count, at, sizes)


def _spell(data: bytes, tokens: _Tokens, names: _Names) -> tuple[U8Array, IntArray, bytes]:
    """Letters, offsets of names, and all names with a NUL behind each."""
    total = int(names.sizes.sum())
    if total > MAX_TEXT:
        raise UnsupportedFormat("kallsyms", f"names of {total} tokens")
    ends = np.cumsum(names.sizes)
    # Token numbers of all names in one row.
    places = np.arange(total) + np.repeat(names.at - (ends - names.sizes), names.sizes)
    numbers = np.frombuffer(data, dtype=np.uint8)[places].astype(np.int64)
    lengths = np.array([len(text) for text in tokens.texts], dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    widths = lengths[numbers]
    if int(widths.sum()) + names.total > MAX_TEXT:
        raise UnsupportedFormat("kallsyms", f"names of {int(widths.sum())} bytes")
    alphabet = np.frombuffer(b"".join(tokens.texts) + b"\0", dtype=np.uint8)
    # A NUL as one more token behind each name.
    numbers_z = np.insert(starts[numbers], ends, len(alphabet) - 1)
    widths_z = np.insert(widths, ends, 1)
    done = np.cumsum(widths_z)
    picks = np.arange(int(done[-1]), dtype=np.int32)
    picks += np.repeat((numbers_z - (done - widths_z)).astype(np.int32), widths_z)
    text = alphabet[picks]
    finish = np.flatnonzero(text == 0)
    first = np.concatenate(([0], finish[:-1] + 1))
    if len(first) != names.total:
        raise UnsupportedFormat("kallsyms", "a token holds a NUL")
    return text[first], first + 1, text.tobytes()


def _rising(values: IntArray) -> bool:
    return bool((np.diff(values) >= 0).all())


def _addresses(data: bytes, at: int, count: int, start: int) -> tuple[U64Array, str] | None:
    """The addresses that the offsets at `at` are of, and how they are kept; None where they are no rising list.

    Args:
        data: the search area.
        at: where in it the offsets may be.
        count: of symbols.
        start: the address of the first byte of `data`.
    """
    end = at + 4 * count
    if at < 0 or at % 4 or end > len(data):
        return None
    raw = np.frombuffer(data, dtype="<i4", count=count, offset=at).astype(np.int64)
    if not raw.any():
        return None
    base_at = end + 7 & ~7
    base = int.from_bytes(data[base_at : base_at + 8], "little") if base_at + 8 <= len(data) else 0
    if base >= KERNEL_BASE:
        signed_base = base - (1 << 64)
        # 4.6 to 6.14: a symbol not below zero is absolute (per-CPU data linked at 0), others count down from the base.
        found = np.where(raw >= 0, raw, signed_base - 1 - raw)
        fixed = int((raw >= 0).sum())
        if fixed < count and _rising(found[:fixed]) and _rising(found[fixed:]) and bool((raw[fixed:] < 0).all()):
            return found.view(np.uint64), "per-cpu"
        # 6.15 and later: unsigned distances from the base.
        found = signed_base + (raw & 0xFFFF_FFFF)
        if _rising(found):
            return found.view(np.uint64), "base"
    # 7.0 and later: distances from the words themselves.
    found = raw + 4 * np.arange(count, dtype=np.int64) + signed(start + at, 64)
    if _rising(found) and int(found[-1] - found[0]) < 1 << 31:
        return found.view(np.uint64), "self"
    return None


def _find_addresses(data: bytes, tokens: _Tokens, names: _Names, start: int) -> Iterator[tuple[U64Array, str]]:
    """The addresses: behind the tokens (since 6.5), or before the names, each table at a multiple of eight bytes."""
    behind = range(tokens.end + 3 & ~3, tokens.end + 16, 4)
    first = (names.start & ~7) - 4 * names.total
    before = range((first & ~7) - 32, first + 1, 8)
    for at in (*behind, *before):
        found = _addresses(data, at, names.total, start)
        if found is not None:
            yield found


def _names_banner(found: Kallsyms, data: bytes, start: int) -> bool:
    """Whether `linux_banner` is where it says, as far as `data` reach: all symbols stand or fall with one of them."""
    address = found.find(_BANNER[0])
    if address is None:
        return False
    offset = address - start
    return offset >= len(data) or offset < 0 or data.startswith(_BANNER[1], offset)


def find_kallsyms(data: bytes, start: int, name: str) -> Kallsyms:
    """The kernel's symbols in `data`.

    Args:
        data: bytes of the kernel image that hold all of the tables: its read-only data, or more.
        start: the address of the first byte, a multiple of eight.
        name: of the file, for messages.

    Raises:
        UnsupportedFormat: there are none, or they contradict themselves.
    """
    walks = iter(range(MAX_WALKS))
    for tokens in itertools.islice(_find_tokens(data), MAX_TABLES):
        for markers in _find_markers(data, tokens.start):
            names = _find_names(data, markers, walks)
            if names is None or names.total > MAX_SYMBOLS:
                continue
            letters, name_at, strings = _spell(data, tokens, names)
            for addresses, encoding in _find_addresses(data, tokens, names, start):
                found = Kallsyms(addresses, letters, name_at, strings, encoding)
                if _names_banner(found, data, start):
                    return found
    raise UnsupportedFormat(name, "no symbol table (.symtab), and none of the kernel's own (kallsyms) that is whole")

"""The kernel's own symbol tables, as its build writes them: in each order and with each way to keep addresses."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

PARTS = ("__", "init_", "sys_", "_lock", "read", "write", "get_", "alloc")
_PLAIN = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.$"


class Named(NamedTuple):
    """A symbol: address, nm's letter, name."""

    address: int
    letter: str
    name: str


def tokens() -> list[bytes]:
    """256 tokens: what stands for itself does; parts of names and fillers take the numbers that are free."""
    spare = [*PARTS, *(f"~{n}" for n in range(256))]
    return [chr(n).encode() if chr(n) in _PLAIN else spare.pop(0).encode() for n in range(256)]


def _packed(symbol: Named, tokens: list[bytes]) -> bytes:
    text, out = (symbol.letter + symbol.name).encode(), bytearray()
    numbers = {token: number for number, token in enumerate(tokens)}
    while text:
        token = next(part.encode() for part in (*PARTS, chr(text[0])) if text.startswith(part.encode()))
        out.append(numbers[token])
        text = text[len(token) :]
    head = (len(out),) if len(out) < 128 else (len(out) & 127 | 128, len(out) >> 7)
    return bytes(head) + bytes(out)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def tables(
    symbols: Sequence[Named], encoding: str, start: int, addresses_first: bool, wide_markers: bool = False
) -> bytes:
    """The tables, to lie at `start`, a multiple of eight.

    Args:
        symbols: in order of address, per-CPU ones (below the kernel) first.
        encoding: `per-cpu`, `base` or `self`, as in `orcdbg.formats.kallsyms`.
        start: where the tables will lie.
        addresses_first: True for the order of kernels to 6.4.
        wide_markers: True for markers of eight bytes, as kernels to 4.19 have them.
    """
    texts = tokens()
    names, markers = b"", []
    for number, symbol in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        names += _packed(symbol, texts)
    index, at = [], 0
    for token in texts:
        index.append(at)
        at += len(token) + 1
    count = _aligned(struct.pack("<I", len(symbols)))
    front = count + _aligned(names) + _aligned(struct.pack(f"<{len(markers)}{'Q' if wide_markers else 'I'}", *markers))
    back = _aligned(b"".join(token + b"\0" for token in texts)) + struct.pack("<256H", *index)
    if addresses_first:
        return _addresses(symbols, encoding, start) + front + back
    return front + back + _addresses(symbols, encoding, start + len(front + back)) + bytes(3 * len(symbols))


def _addresses(symbols: Sequence[Named], encoding: str, start: int) -> bytes:
    base = next(symbol.address for symbol in symbols if symbol.address >> 63)
    if encoding == "self":
        words = [symbol.address - (start + 4 * number) for number, symbol in enumerate(symbols)]
        return _aligned(struct.pack(f"<{len(words)}i", *words))
    if encoding == "base":
        words = [symbol.address - base for symbol in symbols]
    else:
        words = [symbol.address if not symbol.address >> 63 else base - 1 - symbol.address for symbol in symbols]
    return _aligned(struct.pack(f"<{len(words)}i", *words)) + struct.pack("<Q", base)

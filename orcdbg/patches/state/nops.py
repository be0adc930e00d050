"""Which bytes does this kernel write where it wants nothing to happen?"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import read_u64
from orcdbg.kernel.linux import Linux

_P6 = ("90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000", "0f1f840000000000")
_LONG = ("2e0f1f840000000000", "662e0f1f840000000000", "66662e0f1f840000000000")
_K8 = ("90", "6690", "666690", "66666690", "6666906690", "666690666690", "66666690666690", "6666669066666690")


@dataclass(frozen=True, slots=True)
class NopTable:
    """NOPs of 1, 2, 3 ... bytes, and the five-byte one that is changed atomically."""

    name: str
    by_length: tuple[bytes, ...]
    atomic: bytes

    def fill(self, size: int) -> bytes:
        """`size` bytes of NOPs: the longest first, the remainder last (add_nops)."""
        longest = len(self.by_length)
        rest = size % longest
        return self.by_length[-1] * (size // longest) + (self.by_length[rest - 1] if rest else b"")


def _table(name: str, words: tuple[str, ...], atomic: str) -> NopTable:
    return NopTable(name, tuple(bytes.fromhex(word) for word in words), bytes.fromhex(atomic))


P6 = _table("p6", _P6, "0f1f440000")
K8 = _table("k8", _K8, "6666666690")
LONG = _table("x86", _P6 + _LONG, "0f1f440000")


def choose_nops(linux: Linux, long_nops: bool) -> NopTable | None:
    """The table this kernel uses; None where its choice is not in the snapshot.

    Before 5.13 the boot chooses by CPU vendor and keeps a pointer (`ideal_nops`); later kernels have one table, since 6.4
    with NOPs of up to 11 bytes.

    Args:
        linux: the kernel.
        long_nops: whether the layout of its alternatives is the one that came with those of 11 bytes.
    """
    pointer = linux.find_address("ideal_nops")
    if pointer is None:
        return LONG if long_nops else P6
    try:
        chosen = read_u64(linux.memory, pointer)
    except MemoryFault:
        return None
    return {linux.find_address("k8_nops"): K8, linux.find_address("p6_nops"): P6}.get(chosen)

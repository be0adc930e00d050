"""How is a whole text moved to where it ran, before the kernel itself changed any of it?

By the linker's list where the image has one. Where it has none, and only for a text that is compared with memory, an operand
is taken for relocated when it is an address of the image, and memory holds the same address moved by the slide.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orcdbg.base.sizes import U64
from orcdbg.image.vmlinux import KERNEL_BASE
from orcdbg.patches.built_text import RelocationList
from orcdbg.patches.site import U8Array, U64Array

_CHUNK = 1 << 20


def relocated_by_difference(
    built: U8Array,
    now: U8Array,
    start: int,
    slide: int,
    image: tuple[int, int],
    per_cpu_size: int,
    boundaries: U64Array,
) -> RelocationList:
    """The places in a text that has no list, told by what memory holds there.

    An attacker who changed an operand by exactly the slide, from one address of the image to another, would not be seen
    by this; any other change of an operand is, because then it does not count as relocated.

    Args:
        built: the text as built.
        now: the text in memory, zeros where it is missing.
        start: its link address.
        slide: run-time minus link address.
        image: link addresses [first, last) that operands may name.
        per_cpu_size: bytes of per-CPU data linked at 0, 0 when they are linked like other data.
        boundaries: link addresses, ascending, at which instructions are known to begin or end: no operand reaches across
            one, though bytes on both sides, written by a patch, may look like one that was moved.
    """
    found: list[npt.NDArray[np.int64]] = []
    signs: list[npt.NDArray[np.int64]] = []
    for first in range(0, len(built), _CHUNK):
        last = min(first + _CHUNK + 3, len(built))
        at, difference = _changes(built[first:last], now[first:last])
        values = _words(built[first:last])
        for sign in (1, -1) if per_cpu_size else (1,):
            mine = at[difference == np.uint32(sign * slide & 0xFFFF_FFFF)]
            mine = mine[_plausible(values[mine].astype(np.int64), mine + first, start, sign, image, per_cpu_size)]
            found.append(mine + first)
            signs.append(np.full(len(mine), sign))
    offsets, kinds = np.concatenate(found), np.concatenate(signs)
    first_after = np.searchsorted(boundaries, offsets.astype(np.uint64) + np.uint64(start), side="right")
    following = np.append(boundaries, np.uint64(U64))[first_after]
    is_whole = following >= offsets.astype(np.uint64) + np.uint64(start + 4)
    return _without_overlaps(offsets[is_whole], kinds[is_whole], start)


def _words(data: U8Array) -> npt.NDArray[np.uint32]:
    """Every four bytes of `data` as a number."""
    return np.ndarray((max(len(data) - 3, 0),), dtype="<u4", buffer=data.data, strides=(1,))


def _changes(built: U8Array, now: U8Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Where four bytes may have grown or shrunk by the slide, and by how much they did.

    The slide is a multiple of 2 MB, so that only the upper two of four bytes differ.
    """
    changed = np.flatnonzero(built != now)
    lonely = np.diff(changed, prepend=-2) != 1
    starts = np.concatenate((changed - 2, changed[lonely] - 3))
    starts = starts[(starts >= 0) & (starts + 4 <= len(built))]
    return starts, _words(now)[starts] - _words(built)[starts]


def _plausible(
    values: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    start: int,
    sign: int,
    image: tuple[int, int],
    per_cpu_size: int,
) -> npt.NDArray[np.bool_]:
    """Whether the operands name the image, or (`sign` -1) per-CPU data by their distance."""
    if sign > 0:
        # Addresses of the image, and physical ones, which count from where link addresses begin.
        low, high, base = (address & 0xFFFF_FFFF for address in (*image, KERNEL_BASE))
        return ((values >= low) & (values < high)) | (values < high - base)
    # The distance counts from the instruction's end, up to eight bytes after the operand's start.
    reach = values + at + (start & 0xFFFF_FFFF) - (1 << 32)
    return (reach >= -12) & (reach < per_cpu_size)


def _without_overlaps(offsets: npt.NDArray[np.int64], signs: npt.NDArray[np.int64], start: int) -> RelocationList:
    order = np.argsort(offsets, kind="stable")
    offsets, signs = offsets[order], signs[order]
    keep = np.concatenate(([True], np.diff(offsets) >= 4)) if len(offsets) else np.empty(0, np.bool_)
    places = offsets[keep].astype(np.uint64) + np.uint64(start)
    return RelocationList(places, np.full(len(places), 4), signs[keep])

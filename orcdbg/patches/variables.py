"""What do many small kernel variables hold, read a page at a time?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.patches.site import U8Array, U64Array, Undecidable, windows


def read_words(memory: AddressSpace, addresses: U64Array, size: int) -> U8Array:
    """`size` bytes at each address, a row each.

    Raises:
        Undecidable: one of them is not in the snapshot.
    """
    if not len(addresses):
        return np.zeros((0, size), dtype=np.uint8)
    unique, which = np.unique(addresses, return_inverse=True)
    out = np.zeros((len(unique), size), dtype=np.uint8)
    pages = unique // np.uint64(PAGE)
    starts = np.flatnonzero(np.concatenate(([True], pages[1:] != pages[:-1])))
    for first, last in zip(starts, np.append(starts[1:], len(unique)), strict=True):
        low, high = int(unique[first]), int(unique[last - 1]) + size
        try:
            chunk = np.frombuffer(memory.read(low, high - low), dtype=np.uint8)
        except MemoryFault as error:
            raise Undecidable(str(error)) from error
        out[first:last] = windows(chunk, size)[(unique[first:last] - np.uint64(low)).view(np.int64)]
    return _rows(out, which)


def _rows(out: U8Array, which: npt.NDArray[np.intp]) -> U8Array:
    return np.ascontiguousarray(out[which.ravel()])

"""What do the replacements of alternatives hold by the time they are used?

They have indirect branches and returns of their own, and the passes that deal with those ran over them too, before.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from orcdbg.base.reading import clamped
from orcdbg.image.vmlinux import Image
from orcdbg.patches.built_text import BuiltText
from orcdbg.patches.site import U64Array, WorkingText
from orcdbg.patches.sweep import Sweep


class PatchedReplacements:
    """`.altinstr_replacement` after earlier passes: an AddressSpace at run-time addresses.

    Args:
        image: where the section is.
        built: text as built, relocated.
        slide: run-time minus link address.
        passes: what ran before alternatives.
    """

    def __init__(self, image: Image, built: BuiltText, slide: int, passes: Sequence[Sweep]) -> None:
        self._built = built
        self._passes = passes
        section = image.find_section(".altinstr_replacement")
        self._start = section.address + slide if section else 0
        self._end = section.end + slide if section else 0

    def _in_section(self, sites: U64Array) -> tuple[U64Array, U64Array]:
        """The sites of a pass inside the section, sorted, and their numbers."""
        rows = np.flatnonzero((sites >= clamped(self._start)) & (sites < clamped(self._end)))
        order = rows[np.argsort(sites[rows], kind="stable")]
        return sites[order], order.astype(np.uint64)

    @functools.cached_property
    def _sites(self) -> list[tuple[Sweep, U64Array, U64Array]]:
        return [(one, *self._in_section(one.spans().starts)) for one in self._passes]

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes of a replacement; MemoryFault where the image has none there."""
        data = self._built.read(address, size)
        for the_pass, starts, numbers in self._sites:
            first = int(np.searchsorted(starts, np.uint64(address)))
            last = int(np.searchsorted(starts, clamped(address + size)))
            if first < last:
                text = WorkingText(address, data)
                the_pass.sweep(text, numbers[first:last].astype(np.intp))
                data = bytes(text.data)
        return data

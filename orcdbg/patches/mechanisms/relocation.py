"""Which fields of a whole text did the boot loader move, because the kernel does not run where it was linked (KASLR)?

Mirrors handle_relocations() in arch/x86/boot/compressed/misc.c. `BuiltText` does the same to the bytes of one place.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from orcdbg.patches.built_text import RelocationList
from orcdbg.patches.site import Applied, U8Array, WorkingText, make_spans
from orcdbg.patches.sweep import IntArray, Sweep, Written


class RelocationsPass(Sweep):
    """The boot loader's relocations of one section as a replay pass.

    Args:
        places: the fields, at link addresses.
        slide: run-time minus link addresses, in bytes.
    """

    mechanism = "relocation"
    table = ".rela.text"

    def __init__(self, places: RelocationList, slide: int) -> None:
        self.places = make_spans(places.places + np.uint64(slide), places.widths)
        self._signs = places.signs
        self._slide = slide

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """Addresses of the image grow by the slide; distances to what does not move shrink by it."""
        if not self._slide:
            return
        for width in (4, 8):
            for sign in (1, -1):
                mine = rows[(self.places.sizes[rows] == width) & (self._signs[rows] == sign)]
                yield Written(mine, _moved(text.gather(self.places.starts[mine], width), sign * self._slide))

    def describe(self, row: int) -> Applied:
        """The slide."""
        return Applied("KASLR", f"slide {self._slide:#x}")


def _moved(rows: U8Array, amount: int) -> U8Array:
    """Little-endian numbers, each increased by `amount`."""
    width = rows.shape[1]
    kind: type[np.unsignedinteger[npt.NBitBase]] = np.uint64 if width == 8 else np.uint32  # type: ignore[assignment]
    words = np.ascontiguousarray(rows).view(kind).ravel() + kind(amount & (1 << 8 * width) - 1)
    return np.ascontiguousarray(words).view(np.uint8).reshape(-1, width)

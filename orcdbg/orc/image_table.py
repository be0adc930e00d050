"""Which ORC table does a vmlinux hold, and in which layout?"""

from __future__ import annotations

import functools

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.orc.layout import EntryShape, LayoutChoice, choose_layout
from orcdbg.orc.rows import ENTRY, OrcLayout
from orcdbg.orc.table import OrcTable
from orcdbg.symbols.btf import StructIndex

_VOTERS = 512


def image_layout(image: Image, types: StructIndex) -> LayoutChoice:
    """The layout of an image's ORC table, and what decided it.

    Raises:
        UnsupportedFormat: the image has no ORC table.
        OrcdbgError: no known layout fits.
    """
    rows = image.section_data(".orc_unwind")
    if not rows:
        raise UnsupportedFormat(image.path, "no ORC tables (.orc_unwind): the kernel was built without ORC")
    return choose_layout(image.section_data(".orc_header"), _entry_shape(types), _voters(rows))


def _entry_shape(types: StructIndex) -> EntryShape | None:
    try:
        members = types.members("orc_entry")
    except OrcdbgError:
        return None
    kind = members.get("type")
    return None if kind is None else EntryShape(kind.bit_size, "end" in members, "signal" in members)


def _voters(rows: bytes) -> list[bytes]:
    """Raw rows from all over the table whose offsets are those of a function entry; nearly all are one."""
    count = len(rows) // ENTRY.size
    step = max(count // (4 * _VOTERS), 1)
    chosen = [rows[i * ENTRY.size : (i + 1) * ENTRY.size] for i in range(0, count, step)]
    shape = b"\x08\x00\x00\x00"  # sp_offset 8, bp_offset 0: true of every function entry whatever the flags mean
    return [raw for raw in chosen if raw.startswith(shape)][:_VOTERS]


def image_table(image: Image, layout: OrcLayout, slide: int) -> OrcTable:
    """An image's ORC table, at run-time addresses."""
    ips, rows = image.find_section(".orc_unwind_ip"), image.find_section(".orc_unwind")
    if ips is None or rows is None:
        raise UnsupportedFormat(image.path, "no ORC tables (.orc_unwind_ip)")
    data, addresses = image.section_data(".orc_unwind"), image.section_data(".orc_unwind_ip")
    return OrcTable("vmlinux", addresses, ips.address + slide, data, rows.address + slide, layout)


class ImageOrc:
    """An image's ORC table, read on first use.

    Args:
        image: the vmlinux.
        types: its structures, which may tell the layout.
        slide: run-time minus link addresses.
        warnings: is told of a layout that is not known for certain.
    """

    def __init__(self, image: Image, types: StructIndex, slide: int, warnings: list[str]) -> None:
        self._image = image
        self._types = types
        self._slide = slide
        self._warnings = warnings

    @functools.cached_property
    def choice(self) -> LayoutChoice:
        """The layout, and what decided it; raises what `image_layout` does."""
        choice = image_layout(self._image, self._types)
        if choice.warning:
            self._warnings.append(choice.warning)
        return choice

    @functools.cached_property
    def table(self) -> OrcTable:
        """The rows, at run-time addresses; raises what `choice` and `image_table` do."""
        return image_table(self._image, self.choice.layout, self._slide)


def sp_indirect_adds_last(linux: Linux) -> bool:
    """Whether SP_INDIRECT means (word at sp) + offset.

    5.12 (a0cfc74d0b00) changed what it means, in the series that added hardirq_stack_inuse.
    """
    return linux.find_address("hardirq_stack_inuse") is not None or linux.types.has("pcpu_hot", "current_task")

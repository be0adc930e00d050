"""A module's file is linked by the relocations that lie inside its sections; all others are left out."""

from __future__ import annotations

import struct

import pytest

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats.elf import ElfFile
from orcdbg.image.module_file import ModuleFile
from tests.build.elf import EHDR, SHDR
from tests.fuzz_elf import sample_module

PLACES = {".text": 0xFFFF_FFFF_C000_0000, ".data": 0xFFFF_FFFF_C000_1000}
PRINTK = 0xFFFF_FFFF_8100_0000


def linked(data: bytes) -> bytes:
    """The module's text."""
    return ModuleFile(BytesSource("made", data)).linked(PLACES, {"printk": PRINTK}.get)[".text"][1]


def with_offset(offset: int, size: int | None = None) -> bytes:
    """The module whose first relocation is of another place, and whose text is so many bytes."""
    data = bytearray(sample_module())
    elf = ElfFile(BytesSource("made", bytes(data)))
    struct.pack_into("<Q", data, elf.by_name[".rela.text"].offset, offset)
    if size is not None:
        struct.pack_into("<Q", data, EHDR.unpack_from(data)[6] + SHDR.size + 32, size)
    return bytes(data)


def test_a_call_leads_to_the_kernel() -> None:
    """Counted from where the module was loaded."""
    text = linked(sample_module())
    place = PLACES[".text"] + 1
    assert int.from_bytes(text[1:5], "little", signed=True) == PRINTK - 4 - place
    assert int.from_bytes(text[9:17], "little") == PLACES[".text"] + 8


@pytest.mark.parametrize("offset", [61, 1 << 63, (1 << 64) - 1, (1 << 64) - 4, (1 << 64) - 60])
def test_a_relocation_outside_its_section_is_left_out(offset: int) -> None:
    """Also where its end would come round to the section's beginning."""
    text = linked(with_offset(offset))
    assert (text[:9], text[60:]) == (bytes(range(9)), bytes(range(60, 64)))
    assert text[9:17] == linked(sample_module())[9:17]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_section_shorter_than_a_field_has_none(size: int) -> None:
    """Whatever place its relocations name."""
    for offset in (0, (1 << 64) - 1, (1 << 64) - 5):
        assert linked(with_offset(offset, size)) == bytes(range(size))


def test_symbols_that_are_not_there_are_named() -> None:
    """As a damaged relocation has them."""
    data = bytearray(sample_module())
    at = ElfFile(BytesSource("made", bytes(data))).by_name[".rela.text"].offset
    struct.pack_into("<I", data, at + 12, 77)
    with pytest.raises(UnsupportedFormat, match="symbol 77 of 3"):
        linked(bytes(data))

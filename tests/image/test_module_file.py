"""A module's file is linked by the relocations that lie inside its sections; all others are left out."""

from __future__ import annotations

import struct

import pytest

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats.elf import ElfFile
from orcdbg.image.module_file import NOWHERE, ModuleFile
from tests.build.elf import EHDR, SHDR, Part, image
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


def with_debug(symbol: int) -> ElfFile:
    """A module with a section that is not loaded, in which 8 bytes are to become a symbol's address."""
    rela = struct.pack("<QQq", 2, symbol << 32 | 1, 4)
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0x10, 0) + struct.pack("<IBBHQQ", 4, 0x10, 0, 0, 0, 0)
    parts = [
        Part(".text", 0, bytes(32), flags=6),
        Part(".debug_info", 0, bytes(12), flags=0),
        Part(".strtab", 0, b"\0in\0out\0", type=3, flags=0),
        Part(".symtab", 0, symbols, type=2, flags=0, link=3),
        Part(".rela.debug_info", 0, rela, type=4, flags=0, link=4),
    ]
    data = bytearray(image(parts))
    data[16:18] = b"\1\0"  # ET_REL
    struct.pack_into("<I", data, EHDR.unpack_from(data)[6] + 5 * SHDR.size + 44, 2)  # the relocations are of section 2
    return ElfFile(BytesSource("made", bytes(data)))


@pytest.mark.parametrize(("symbol", "address"), [(1, PLACES[".text"] + 0x14), (2, PRINTK + 4)])
def test_debugging_information_is_linked_to_where_the_module_is(symbol: int, address: int) -> None:
    """Its own symbols by their section, others by the kernel's."""
    elf = with_debug(symbol)
    relocate = ModuleFile(elf.source).debug_linker(PLACES, {"out": PRINTK}.get)
    section = elf.by_name[".debug_info"]
    assert relocate(section, elf.data(section)) == bytes(2) + struct.pack("<Q", address) + bytes(2)


def test_what_nobody_defines_is_nowhere() -> None:
    """A value by it is no address that might be taken for one."""
    elf = with_debug(2)
    section = elf.by_name[".debug_info"]
    linked_bytes = ModuleFile(elf.source).debug_linker({}, lambda name: None)(section, elf.data(section))
    assert NOWHERE[0] <= int.from_bytes(linked_bytes[2:10], "little") <= NOWHERE[1]

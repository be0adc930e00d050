"""A kernel's image out of its memory: what is told by symbols, and what is refused."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import BadAddress, NotInSnapshot, UnsupportedFormat
from orcdbg.base.sizes import PAGE
from orcdbg.image.memory_image import MemoryImage
from orcdbg.symbols.kallsyms import vmlinux_symbols
from tests.build.kallsyms import Named, tables

SLIDE = 0x1E00_0000
TEXT, RODATA, END = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8110_0000, 0xFFFF_FFFF_8114_0000
BANNER, BTF, ORC = RODATA, RODATA + 0x100, RODATA + 0x200


class Paged:
    """Memory at run-time addresses, some pages of it missing."""

    def __init__(self, data: bytes, missing: int | None = None) -> None:
        self.data, self.missing = data, missing

    def read(self, address: int, size: int) -> bytes:
        """Bytes within [TEXT, END), moved."""
        at = address - SLIDE - TEXT
        if not 0 <= at <= at + size <= len(self.data):
            raise BadAddress("virtual", address, size)
        if self.missing is not None and at // PAGE <= self.missing // PAGE <= (at + size - 1) // PAGE:
            raise NotInSnapshot("virtual", address, size)
        return self.data[at : at + size]


def kernel(banner: bytes = b"Linux version 6.6.6\n\0") -> bytes:
    """Text, and read-only data with the banner, types, ORC rows and the symbol tables, as they are at run time."""
    named = {
        TEXT: ["_text", "_stext"],
        TEXT + 0x8000: ["_etext"],
        BANNER: ["linux_banner"],
        BTF: ["__start_BTF"],
        BTF + 16: ["__stop_BTF"],
        ORC: ["__start_orc_unwind"],
        ORC + 12: ["__stop_orc_unwind"],
        END: ["_end"],
    }
    symbols = [Named(at, "T", f"function_{at:x}") for at in range(TEXT + 16, TEXT + 0x8000, 32)]
    symbols += [Named(at, "D", name) for at, names in named.items() for name in names]
    moved = sorted((one._replace(address=one.address + SLIDE) for one in symbols), key=lambda one: one.address)
    rodata = banner.ljust(0x100, b"\0") + b"\x9f\xeb" + bytes(254) + b"rows of orc!"
    rodata = rodata.ljust(0x2000, b"\0")
    rodata += tables(moved, "base", RODATA + len(rodata) + SLIDE, addresses_first=False)
    return (bytes(range(256)) * ((RODATA - TEXT) // 256) + rodata).ljust(END - TEXT, b"\0")


AREA = TEXT + SLIDE, END + SLIDE


def test_sections_and_symbols_are_at_link_addresses() -> None:
    """Whatever the slide; bytes are read where the kernel ran."""
    image = MemoryImage(Paged(kernel()), SLIDE, AREA, None, "core")
    assert [(one.name, one.address, one.size) for one in image.sections] == [
        (".text", TEXT, 0x8000),
        (".BTF", BTF, 16),
        (".orc_unwind", ORC, 12),
    ]
    assert image.section_data(".orc_unwind") == b"rows of orc!"
    assert image.section_data(".altinstructions") == b""
    assert image.read(TEXT + 5, 2) == b"\5\6"
    symbols = vmlinux_symbols(image)
    assert (symbols.get("_end").address, symbols.get("linux_banner").address) == (END, BANNER)
    found = symbols.at(TEXT + 20)
    assert found is not None
    assert (found.symbol.name, found.size) == (f"function_{TEXT + 16:x}", 32)


def test_tables_are_found_where_vmcoreinfo_says() -> None:
    """In a part of the area, and the banner is read from elsewhere."""
    near = RODATA + SLIDE + 0x1000, END + SLIDE
    assert MemoryImage(Paged(kernel()), SLIDE, AREA, near, "core").find_section(".text") is not None
    with pytest.raises(UnsupportedFormat, match="no banner"):
        MemoryImage(Paged(kernel(b"poem")), SLIDE, AREA, near, "core")


def test_a_missing_page_is_named_when_it_matters() -> None:
    """One of text does not keep the image from being read; one of the tables does."""
    image = MemoryImage(Paged(kernel(), 0x3000), SLIDE, AREA, None, "core")
    with pytest.raises(NotInSnapshot):
        image.read(TEXT + 0x3004, 4)
    with pytest.raises(UnsupportedFormat, match="not whole in this snapshot"):
        MemoryImage(Paged(kernel(), RODATA - TEXT + 0x2000), SLIDE, AREA, None, "core")

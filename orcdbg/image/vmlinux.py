"""What did the build put at each link address, and in each named section, of a vmlinux?"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence

from orcdbg.base.errors import BadAddress, UnsupportedFormat
from orcdbg.base.reading import ByteSource, FileSource
from orcdbg.formats import codecs
from orcdbg.formats.bzimage import BootRelocations, read_boot_image
from orcdbg.formats.detect import FileKind, file_kind
from orcdbg.formats.elf import SHF_ALLOC, SHT_NOBITS, ElfFile, Section, parse_notes

KERNEL_BASE = 0xFFFF_FFFF_8000_0000
MAX_TABLE = 64 << 20  # bytes; the largest of a kernel of 2026 has 8 MB, and its rows become some ten times that
MAX_NOTES = 1 << 20


class Image:
    """A vmlinux: an AddressSpace over the link addresses of its allocated sections, and its sections by name.

    `boot_relocations` is the list of what the boot moves, where the kernel came as a bzImage; `debug_folders` are where the
    user keeps debugging information that was split off, `debug_file` is the file of it that was named.

    Args:
        source: the vmlinux.
        boot_relocations: as above.

    Raises:
        UnsupportedFormat: from the constructor, when the file is not an x86-64 vmlinux.
    """

    boot_relocations: BootRelocations | None = None
    is_memory = False  # see MemoryImage
    debug_folders: Sequence[str] = ()
    debug_file: str | None = None
    is_boot_image = False  # a vmlinux that came out of a bzImage

    def __init__(self, source: ByteSource, boot_relocations: BootRelocations | None = None) -> None:
        self.boot_relocations = boot_relocations
        self.path = source.name
        self.elf = ElfFile(source)
        mapped = [s for s in self.elf.sections if s.flags & SHF_ALLOC and s.size and s.address >= KERNEL_BASE]
        if not mapped:
            raise UnsupportedFormat(source.name, "no section is linked at a kernel address: not a vmlinux")
        self._mapped = sorted(mapped, key=lambda section: section.address)
        self._starts = [section.address for section in self._mapped]

    @property
    def sections(self) -> list[Section]:
        """All sections."""
        return self.elf.sections

    def find_section(self, name: str) -> Section | None:
        """The section of that name, or None."""
        return self.elf.by_name.get(name)

    def section_data(self, name: str) -> bytes:
        """The file's bytes of a section; empty when the image has no such section, or only its space."""
        section = self.find_section(name)
        if section is None or section.type == SHT_NOBITS:
            return b""
        if section.size > MAX_TABLE:
            raise UnsupportedFormat(self.path, f"section {name} of {section.size} bytes")
        return self.elf.data(section)

    def section_at(self, address: int) -> Section | None:
        """The allocated section that holds a link address."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._mapped[index].end:
            return self._mapped[index]
        return None

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes as built, at a link address; zeros where the section has no contents in the file."""
        section = self.section_at(address)
        if section is None or address + size > section.end:
            raise BadAddress("image", address, size)
        if section.type == SHT_NOBITS:
            return bytes(size)
        return self.elf.source.read_at(section.offset + address - section.address, size)

    @functools.cached_property
    def build_id(self) -> str | None:
        """The build-id in hexadecimal, or None where the linker wrote none."""
        for note in parse_notes(self.section_data(".notes")[:MAX_NOTES], self.path):
            if note.name == "GNU" and note.type == 3:
                return note.data.hex()
        return None


def open_source(path: str) -> ByteSource:
    """The file at `path`, decompressed when it is a compressed file."""
    file = FileSource(path)
    if not file.is_regular:
        raise UnsupportedFormat(path, "not a regular file")
    head = file.read_at(0, min(file.size, 8))
    return codecs.decompressed(file) if codecs.is_compressed(head) else file


def open_image(path: str) -> Image:
    """The vmlinux at `path`, or the one in the bzImage there.

    Raises:
        UnsupportedFormat: it is neither.
    """
    source = open_source(path)
    if file_kind(source) is not FileKind.BZIMAGE:
        return Image(source)
    found = read_boot_image(source)
    image = Image(found.vmlinux, found.relocations)
    image.is_boot_image = True
    return image

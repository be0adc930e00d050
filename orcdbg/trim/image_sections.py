"""Which sections of a vmlinux does a debugger need that walks by ORC and takes types from BTF, and a file of just these?"""

from __future__ import annotations

import struct
from typing import IO

from orcdbg.formats.elf import EM_X86_64, ET_EXEC, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, Section
from orcdbg.image.vmlinux import Image

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_NULL, _STRTAB = 0, 3
_ALIGN, _CHUNK = 16, 1 << 20
_NAMES = ".shstrtab"
_SYMBOLS = (".symtab", ".strtab")


def is_essential(section: Section, names_of_code: set[str]) -> bool:
    """True for what is loaded, the symbols, and relocations of code; neither DWARF nor relocations of anything else."""
    is_for_code = section.name.startswith(".rela") and section.name[5:] in names_of_code
    return bool(section.flags & SHF_ALLOC) or is_for_code or section.name in _SYMBOLS


def write_image(image: Image, out: IO[bytes]) -> int:
    """Writes the essential sections as a vmlinux without program headers.

    Every section keeps its number, since symbols and other sections' links name sections by it: what is left out
    leaves an empty header.

    Args:
        image: the whole one.
        out: an empty file that can be written at any place.

    Returns:
        The bytes written.
    """
    sections = image.elf.sections
    code = {section.name for section in sections if section.flags & SHF_EXECINSTR}

    names = bytearray(b"\0")
    headers = []
    position = out.write(bytes(_EHDR.size))  # the file header is written last, when the number of sections is known
    for section in sections:
        if section.name == _NAMES or not is_essential(section, code):
            headers.append(bytes(_SHDR.size))
            continue

        position += out.write(bytes(-position % _ALIGN))
        headers.append(_header(section, len(names), position))
        names += section.name.encode() + b"\0"
        position += _copy(image, section, out)

    # The table of names is our own, in the place of the old one, or behind all others where there was none.
    name_of_names = len(names)
    names += _NAMES.encode() + b"\0"
    number = next((i for i, section in enumerate(sections) if section.name == _NAMES), len(sections))
    names_header = _SHDR.pack(name_of_names, _STRTAB, 0, 0, position, len(names), 0, 0, 1, 0)
    headers[number : number + 1] = [names_header]
    position += out.write(names)

    position += out.write(bytes(-position % _ALIGN))
    out.write(b"".join(headers))

    count = len(headers)
    out.seek(0)
    out.write(_file_header(image.elf.entry, position, count, number))
    out.seek(0, 2)
    return position + count * _SHDR.size


def _file_header(entry: int, sections_at: int, count: int, names: int) -> bytes:
    sizes = (_EHDR.size, 0, 0, _SHDR.size)
    return _EHDR.pack(_IDENT, ET_EXEC, EM_X86_64, 1, entry, 0, sections_at, 0, *sizes, count, names)


def _header(section: Section, name: int, offset: int) -> bytes:
    places = (section.address, offset, section.size, section.link, section.info)
    return _SHDR.pack(name, section.type, section.flags, *places, _ALIGN, section.entry_size)


def _copy(image: Image, section: Section, out: IO[bytes]) -> int:
    """Writes a section's bytes a piece at a time; their number."""
    if section.type in (_NULL, SHT_NOBITS):
        return 0
    for at in range(0, section.size, _CHUNK):
        out.write(image.elf.source.read_at(section.offset + at, min(_CHUNK, section.size - at)))
    return section.size

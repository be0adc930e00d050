"""What does a kernel image for the boot loader (bzImage, "vmlinuz") hold: the packed vmlinux, and the list of what moves?

The setup header is that of Documentation/arch/x86/boot.rst; the list of relocations is what
arch/x86/tools/relocs.c writes and handle_relocations() in arch/x86/boot/compressed/misc.c reads, from its end.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource, BytesSource
from orcdbg.formats import codecs
from orcdbg.formats.elf import ElfFile

HEADER_MAGIC = b"HdrS"
MAX_PAYLOAD = 512 << 20
MAX_RELOCATIONS = 1 << 24
_HEADER_AT = 0x1F1
_SECTOR = 512
_WITH_PAYLOAD = 0x208  # the first version of the boot protocol that says where the payload is

IntArray = npt.NDArray[np.int64]


class BootRelocations(NamedTuple):
    """Link addresses of the fields that the boot moves: to add to in 8 or 4 bytes, and to take off from in 4."""

    wide: IntArray
    narrow: IntArray
    inverse: IntArray


class BootImage(NamedTuple):
    """The stripped vmlinux of a bzImage, and its relocations; None where the kernel was built without."""

    vmlinux: ByteSource
    relocations: BootRelocations | None


def read_boot_image(source: ByteSource) -> BootImage:
    """Unpacks a bzImage.

    Raises:
        UnsupportedFormat: it is none, or damaged, or its payload is packed in an unknown way.
    """
    payload = _payload(source)
    if not codecs.is_compressed(payload[:8]):
        raise UnsupportedFormat(source.name, f"the kernel in it is packed in an unknown way ({payload[:8].hex()})")
    unpacked = codecs.decompressed(BytesSource(source.name, payload), MAX_PAYLOAD)
    end = _elf_end(ElfFile(unpacked))
    return BootImage(unpacked, _relocations(unpacked, end))


def _payload(source: ByteSource) -> bytes:
    head = source.read_at(0, min(source.size, 0x260))
    if len(head) < 0x250 or head[0x202:0x206] != HEADER_MAGIC:
        raise UnsupportedFormat(source.name, "not a bzImage")
    (version,) = struct.unpack_from("<H", head, 0x206)
    if version < _WITH_PAYLOAD:
        raise UnsupportedFormat(source.name, f"boot protocol {version >> 8}.{version & 0xFF:02} is too old")
    sectors = head[_HEADER_AT] or 4
    offset, size = struct.unpack_from("<II", head, 0x248)
    return source.read_at((sectors + 1) * _SECTOR + offset, size)


def _elf_end(elf: ElfFile) -> int:
    """Where the ELF file ends and what was appended begins."""
    return max(elf.headers_end, max((s.file_end for s in elf.sections), default=0))


def _relocations(source: ByteSource, end: int) -> BootRelocations | None:
    """The lists behind the ELF file: each ends, towards the front, at a zero. Since 6.15 there is none of inverse ones.

    Raises:
        UnsupportedFormat: what is there are no such lists.
    """
    size = source.size - end
    if size < 4 or size > 4 * MAX_RELOCATIONS:
        return None
    tail = source.read_at(source.size - size // 4 * 4, size // 4 * 4)
    words = np.frombuffer(tail, dtype="<i4").astype(np.int64)
    zeros = np.flatnonzero(words == 0)
    if len(zeros) not in (2, 3):
        raise UnsupportedFormat(source.name, f"the list of relocations has {len(zeros)} parts, not 2 or 3")
    parts = [words[a + 1 : b] for a, b in zip(zeros, [*zeros[1:], len(words)], strict=True)]
    if any(bool((part >= 0).any()) for part in parts):
        raise UnsupportedFormat(source.name, "the list of relocations names an address that is not the kernel's")
    empty = np.empty(0, dtype=np.int64)
    return BootRelocations(np.sort(parts[0]), np.sort(parts[-1]), np.sort(parts[1]) if len(parts) == 3 else empty)

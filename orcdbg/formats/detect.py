"""What kind of file is this that is no snapshot, told by its content and never by its name?

Which snapshot a file is, the readers tell (`snapshot/readers/`).
"""

from __future__ import annotations

import enum

from orcdbg.base.reading import ByteSource
from orcdbg.formats import codecs, flattened
from orcdbg.formats.elf import MAGIC

_DISKDUMP = b"DISKDUMP"
# Documentation/arch/x86/boot.rst: the setup header's magic number, at a fixed place since the first bzImage.
_BZIMAGE = b"HdrS"
_BZIMAGE_OFFSET = 0x202


class FileKind(enum.Enum):
    """What a file's first bytes say it is; the value is the word for messages."""

    ELF = "an ELF image"
    COMPRESSED = "a compressed file"
    DISKDUMP = "a diskdump, as kernels before ORC wrote"
    FLATTENED = "a flattened makedumpfile stream"
    BZIMAGE = "a bzImage"
    UNKNOWN = "of no known format"


def file_kind(source: ByteSource) -> FileKind:
    """The kind of `source` by its first bytes."""
    head = source.read_at(0, min(source.size, _BZIMAGE_OFFSET + len(_BZIMAGE)))

    if head.startswith(MAGIC):
        return FileKind.ELF
    if codecs.is_compressed(head):
        return FileKind.COMPRESSED
    if head.startswith(_DISKDUMP):
        return FileKind.DISKDUMP
    if head.startswith(flattened.MAGIC):
        return FileKind.FLATTENED
    if head[_BZIMAGE_OFFSET:] == _BZIMAGE:
        return FileKind.BZIMAGE
    return FileKind.UNKNOWN

"""What kind of file is this, told by its content and never by its name?"""

from __future__ import annotations

import enum

from orcdbg.base.reading import ByteSource
from orcdbg.formats import codecs, flattened, kdump, lime, vmware
from orcdbg.formats.elf import ET_CORE, MAGIC


class FileKind(enum.Enum):
    """What a file's first bytes say it is; the value is the word for messages."""

    ELF_IMAGE = "an ELF image"
    ELF_CORE = "an ELF core"
    COMPRESSED = "a compressed file"
    COMPRESSED_CORE = "a compressed ELF core"
    KDUMP = "a compressed kdump"
    LIME = "a LiME or AVML memory image"
    VMWARE = "a VMware snapshot"
    DISKDUMP = "a diskdump, as kernels before ORC wrote"
    FLATTENED = "a flattened makedumpfile stream"
    BZIMAGE = "a bzImage"
    UNKNOWN = "of no known format"


_MAGICS = (
    (kdump.MAGIC, FileKind.KDUMP),
    (b"DISKDUMP", FileKind.DISKDUMP),
    (flattened.MAGIC, FileKind.FLATTENED),
    (lime.LIME, FileKind.LIME),
    (lime.AVML, FileKind.LIME),
    *((magic, FileKind.VMWARE) for magic in vmware.MAGICS),
)


def _is_core(head: bytes) -> bool:
    return head.startswith(MAGIC) and head[16:18] == ET_CORE.to_bytes(2, "little")


def file_kind(source: ByteSource) -> FileKind:
    """The kind of `source` by its first bytes."""
    head = source.read_at(0, min(source.size, 0x206))
    if head.startswith(MAGIC):
        return FileKind.ELF_CORE if _is_core(head) else FileKind.ELF_IMAGE
    if codecs.is_compressed(head):
        return FileKind.COMPRESSED_CORE if _is_core(codecs.unpacked_head(source, 18)) else FileKind.COMPRESSED
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    return FileKind.BZIMAGE if head[0x202:0x206] == b"HdrS" else FileKind.UNKNOWN

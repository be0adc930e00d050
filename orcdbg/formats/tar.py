"""Which files does a tar archive hold, as BTFHub packs one kernel's types?

Headers of POSIX tar and GNU tar. A file's name is what its own header says: long names that stand in a block of their own
are passed over, as no kernel's release is as long as that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource, FilePart

_BLOCK = 512
# "ustar", at this offset, followed by a NUL (POSIX) or a blank (GNU).
_MAGIC = b"ustar"
_MAGIC_AT = 257
_REGULAR = (b"0", b"\0")
# An archive of all kernels of a distribution has some thousands.
MAX_ENTRIES = 1 << 16


class TarEntry(NamedTuple):
    """A regular file in an archive: its name without a folder, and its contents."""

    name: str
    contents: ByteSource


def is_tar(head: bytes) -> bool:
    """True for a file that begins like a tar archive; `head` is its first block."""
    return head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def tar_entries(source: ByteSource) -> Iterator[TarEntry]:
    """The regular files of an archive, in its order.

    Raises:
        UnsupportedFormat: damaged, cut off, or of more entries than anybody packs.
    """
    offset = 0
    for _ in range(MAX_ENTRIES):
        if offset + _BLOCK > source.size:
            return
        header = source.read_at(offset, _BLOCK)
        if not header.strip(b"\0"):
            return  # two blocks of zeros end it
        if not is_tar(header):
            raise UnsupportedFormat(source.name, f"a damaged tar header at offset {offset:#x}")

        size = _octal(source, header[124:136])
        contents = offset + _BLOCK
        if contents + size > source.size:
            raise UnsupportedFormat(source.name, "the tar archive is cut off")
        name = header[:100].partition(b"\0")[0].decode("utf-8", "replace")
        # Old archives tell a folder by the slash behind its name alone.
        if header[156:157] in _REGULAR and not name.endswith("/"):
            yield TarEntry(name.rpartition("/")[2], FilePart(source, contents, size))
        offset = contents + -(-size // _BLOCK) * _BLOCK
    raise UnsupportedFormat(source.name, f"a tar archive of more than {MAX_ENTRIES} entries")


def _octal(source: ByteSource, field: bytes) -> int:
    """A number of a header; GNU's other form is for files of 8 GiB and more."""
    try:
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError as error:
        raise UnsupportedFormat(source.name, "a damaged number in a tar header") from error

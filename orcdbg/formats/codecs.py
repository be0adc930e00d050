"""How does a compressed whole file become bytes, without a small file becoming all of memory?"""

from __future__ import annotations

import lzma
import zlib

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource, BytesSource

MAX_OUTPUT = 2 << 30
MAX_INPUT = 1 << 30

GZIP = b"\x1f\x8b"
XZ = b"\xfd7zXZ\0"


def is_compressed(head: bytes) -> bool:
    """True for a file that begins like one that `decompressed` can read."""
    return head.startswith((GZIP, XZ))


def decompressed(source: ByteSource) -> BytesSource:
    """The contents of a gzip or xz file.

    Raises:
        UnsupportedFormat: damaged, cut off, or larger than 2 GiB when unpacked.
    """
    if source.size > MAX_INPUT:
        raise UnsupportedFormat(source.name, f"a compressed file of {source.size} bytes is larger than any kernel")
    data = source.read_at(0, source.size)
    try:
        if data.startswith(GZIP):
            inflate = zlib.decompressobj(wbits=31)
            out, complete = inflate.decompress(data, MAX_OUTPUT), inflate.eof
        else:
            unxz = lzma.LZMADecompressor(memlimit=512 << 20)
            out, complete = unxz.decompress(data, MAX_OUTPUT), unxz.eof
    except (zlib.error, lzma.LZMAError) as error:
        raise UnsupportedFormat(source.name, f"damaged compressed data: {error}") from error
    if not complete:
        raise UnsupportedFormat(source.name, "compressed data are cut off, or larger than 2 GiB unpacked")
    return BytesSource(source.name, out)

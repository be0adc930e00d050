"""How does one packed page of a dump become its 4096 bytes, and never more?

The libraries are imported when the first page needs them; the flags are those of makedumpfile's diskdump_mod.h.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import PAGE

ZLIB, LZO, SNAPPY, ZSTD = 1, 2, 4, 0x20
NAMES = {ZLIB: "zlib", LZO: "lzo", SNAPPY: "snappy", ZSTD: "zstd"}
PACKED = ZLIB | LZO | SNAPPY | ZSTD

Unpack = Callable[[bytes], bytes]


class DamagedPage(OrcdbgError):
    """Packed data are not those of one page."""

    kind = "corrupt"


def _sized(page: bytes, what: str) -> bytes:
    if len(page) != PAGE:
        raise DamagedPage(f"{what} data of {len(page)} bytes where a page has {PAGE}")
    return page


def _zlib(data: bytes) -> bytes:
    try:
        # Output is at most some 1000 times the input, which is at most a page.
        return _sized(zlib.decompress(data, bufsize=PAGE), "zlib")
    except zlib.error as error:
        raise DamagedPage(f"zlib: {error}") from error


@functools.cache
def _lzo() -> Unpack:
    import lzallright

    def unpack(data: bytes) -> bytes:
        try:
            # Output is at most some 255 times the input, which is at most a page.
            return _sized(lzallright.LZOCompressor.decompress(data, PAGE), "lzo")
        except (lzallright.LZOError, lzallright.InputNotConsumed) as error:
            raise DamagedPage(f"lzo: {error}") from error

    return unpack


@functools.cache
def _snappy() -> Unpack:
    import cramjam

    def unpack(data: bytes) -> bytes:
        page = bytearray(PAGE)
        try:
            count = cramjam.snappy.decompress_raw_into(data, page)
        except cramjam.DecompressionError as error:
            raise DamagedPage(f"snappy: {error}") from error
        return _sized(bytes(page[:count]), "snappy")

    return unpack


@functools.cache
def _zstd() -> Unpack:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 23)

    def unpack(data: bytes) -> bytes:
        try:
            # A size in the frame's header would be allocated before anything is checked.
            if zstandard.frame_content_size(data) not in (-1, PAGE):
                raise DamagedPage(f"zstd data of {zstandard.frame_content_size(data)} bytes")
            return _sized(unpacker.decompress(data, max_output_size=PAGE), "zstd")
        except zstandard.ZstdError as error:
            raise DamagedPage(f"zstd: {error}") from error

    return unpack


def unpack_page(data: bytes, flags: int) -> bytes:
    """The page that `data`, at most 4096 bytes, packed as `flags` say, stand for.

    Raises:
        DamagedPage: they stand for nothing, or not for one page.
    """
    kind = flags & PACKED
    if not kind:
        return _sized(data, "unpacked")
    if kind == ZLIB:
        return _zlib(data)
    if kind == LZO:
        return _lzo()(data)
    if kind == SNAPPY:
        return _snappy()(data)
    if kind == ZSTD:
        return _zstd()(data)
    raise DamagedPage(f"page flags {flags:#x} name several kinds of packing")

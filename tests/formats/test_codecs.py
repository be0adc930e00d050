"""Compressed files: what they hold, and what damaged ones do."""

from __future__ import annotations

import gzip
import lzma

import pytest

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats import codecs


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_compressed_file_holds_what_was_compressed(compress: object) -> None:
    """gzip and xz come back byte for byte."""
    data = b"kernel" * 1000
    packed = compress(data)  # type: ignore[operator]
    assert codecs.is_compressed(packed[:8])
    assert codecs.decompressed(BytesSource("file", packed)).read_at(0, len(data)) == data


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_cut_compressed_file_is_an_error(compress: object) -> None:
    """A file that ends early is not taken for a shorter one."""
    packed = compress(bytes(range(256)) * 100)  # type: ignore[operator]
    with pytest.raises(UnsupportedFormat, match="cut off|damaged"):
        codecs.decompressed(BytesSource("file", packed[: len(packed) // 2]))

"""A file that is no snapshot is told by its first bytes."""

from __future__ import annotations

import pytest

from orcdbg.base.reading import BytesSource
from orcdbg.formats.detect import FileKind, file_kind
from tests.build import elf


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (elf.image([]), FileKind.ELF),
        (b"\x1f\x8b\x08", FileKind.COMPRESSED),
        (b"DISKDUMP".ljust(600, b"\0"), FileKind.DISKDUMP),
        (b"makedumpfile\0\0\0\0", FileKind.FLATTENED),
        (bytes(0x202) + b"HdrS", FileKind.BZIMAGE),
        (b"", FileKind.UNKNOWN),
        (b"text", FileKind.UNKNOWN),
    ],
)
def test_a_file_is_told_by_its_first_bytes(head: bytes, kind: FileKind) -> None:
    """The name of the file plays no part."""
    assert file_kind(BytesSource("any name", head)) is kind

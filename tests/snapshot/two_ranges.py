"""A machine of two ranges of memory, which tests write into files of each format and read back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from orcdbg.base.errors import Absence, NotInSnapshot
from orcdbg.base.sizes import PAGE
from orcdbg.snapshot.machine import Snapshot

CHANCE = random.Random(5)
LOW = CHANCE.randbytes(30000) + bytes(100000) + CHANCE.randbytes(11000) + bytes(1)
HIGH = CHANCE.randbytes(5 * PAGE)
RANGES = {0x1000: LOW, 0x1_0000_0000: HIGH}


def check_ranges(snapshot: Snapshot, ranges: Mapping[int, bytes] = RANGES) -> None:
    """All ranges read back, whole and in parts, and between them nothing is there.

    Args:
        snapshot: what was made of the file.
        ranges: contents by physical address, which the file was made of; they do not touch. Formats of whole pages bring
            others than `RANGES`, whose first ends inside a page.
    """
    for start, data in ranges.items():
        assert snapshot.physical.read(start, len(data)) == data
        for at in (0, 1, 65535, 65536, 65537, len(data) - 9):
            if at + 9 <= len(data):
                assert snapshot.physical.read(start + at, 9) == data[at : at + 9]
        with pytest.raises(NotInSnapshot) as caught:
            snapshot.physical.read(start + len(data) - 4, 8)
        assert (caught.value.state, caught.value.address) == (Absence.ABSENT, start + len(data))
    assert snapshot.ranges is not None
    assert list(snapshot.ranges()) == [(start, start + len(data)) for start, data in ranges.items()]


def write(path: Path, data: bytes) -> str:
    """A file's name."""
    path.write_bytes(data)
    return str(path)

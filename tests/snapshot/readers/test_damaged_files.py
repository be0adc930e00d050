"""Damaged snapshot files of every format.

Crosses the readers: one kind of damage is tried on each. The good files are those of `tests/fuzz.py`.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import BytesSource
from orcdbg.snapshot.readers.reader import SnapshotReader
from orcdbg.snapshot.readers.registry import READERS
from tests.fuzz import make_formats


def good_files() -> list[tuple[SnapshotReader, bytes]]:
    """A file of each format, with its reader."""
    wholes = [make().whole for name, make in make_formats().items() if name != "btf"]
    return [(reader, whole) for whole in wholes for reader in READERS if reader.detect(whole)]


GOOD_FILES = good_files()


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_files_give_memory_or_named_errors(data: st.DataObject) -> None:
    """Any bytes in headers, tags and streams: an OrcdbgError or an answer."""
    reader, whole = data.draw(st.sampled_from(GOOD_FILES))
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 800)))
        raw[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\xff", b"\0", b"\x80", b"\1\0\0\0"]))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        snapshot = reader.open(BytesSource("file", bytes(raw)))
    except OrcdbgError:
        return
    for address in (0, 0x1000, 0x2000, 0x9000, 0x19000, (1 << 64) - 1):
        try:
            assert len(snapshot.physical.read(address, 600)) == 600
        except OrcdbgError:
            continue

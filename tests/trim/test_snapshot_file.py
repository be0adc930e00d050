"""A trimmed snapshot holds what was kept, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.base.reading import AddressSpace
from orcdbg.cli.main import sample_files
from orcdbg.image.vmlinux import open_image
from orcdbg.snapshot.opening import open_paths
from orcdbg.target.session import Session
from orcdbg.trim.recorder import Recorder
from orcdbg.trim.selection import Selection, TrimChoice, select
from orcdbg.trim.snapshot_file import write_trimmed


class Noise:
    """A machine whose memory outside some ranges is other than it was."""

    def __init__(self, memory: AddressSpace, ranges: Sequence[tuple[int, int]]) -> None:
        self._memory, self._ranges = memory, ranges

    def read(self, address: int, size: int) -> bytes:
        """Memory inside the ranges, noise elsewhere."""
        data = bytearray(self._memory.read(address, size))
        noise = bytearray(b"\xa5" * size)
        for start, end in self._ranges:
            low, high = max(start, address), min(end, address + size)
            if low < high:
                noise[low - address : high - address] = data[low - address : high - address]
        return bytes(noise)


def trimmed(session: Session, recorder: Recorder, memory: AddressSpace) -> tuple[bytes, Sequence[tuple[int, int]]]:
    """The file of a trimmed snapshot, and the ranges that were kept."""
    out = io.BytesIO()
    selection = select(session, recorder, TrimChoice())
    assert write_trimmed(session.snapshot, selection, memory, out, zstd=False) == len(out.getvalue())
    return out.getvalue(), selection.ranges


def test_nothing_but_what_was_kept_has_any_influence_on_the_file() -> None:
    """All memory that was not kept may be anything, keys and user data included: the file is the same, byte for byte."""
    vmlinux, whole = sample_files()
    snapshot, image = open_paths(whole), open_image(vmlinux)
    recorder = Recorder(snapshot.physical)
    file, ranges = trimmed(Session(image, replace(snapshot, physical=recorder)), recorder, snapshot.physical)

    memory = Noise(snapshot.physical, ranges)
    recorder = Recorder(memory)
    assert trimmed(Session(image, replace(snapshot, physical=recorder)), recorder, memory) == (file, ranges)


def test_snapshots_without_notes_are_refused() -> None:
    """There is nothing to say where the kernel is."""
    snapshot = replace(open_paths(sample_files()[1]), notes=())
    with pytest.raises(UsageError, match="no ELF notes"):
        write_trimmed(snapshot, Selection((), frozenset(), 0, 0), snapshot.physical, io.BytesIO(), zstd=False)

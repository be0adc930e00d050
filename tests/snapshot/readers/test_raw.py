"""Plain images of memory are read where their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.snapshot.opening import open_paths, recognise
from tests.build.memory_files import lime
from tests.snapshot.two_ranges import HIGH, LOW, RANGES, check_ranges, write


def test_plain_images_are_given_with_their_addresses(tmp_path: Path) -> None:
    """Several make one machine; a file that is really called so is itself; without an address nothing tells what it is."""
    low, high = write(tmp_path / "low", LOW), write(tmp_path / "high", HIGH)
    check_ranges(open_paths(f"{low}@0x1000", f"{high}@{0x1_0000_0000}"))
    assert recognise(low) is None
    named = write(tmp_path / "x@0x1000", lime(RANGES))
    check_ranges(open_paths(named))
    with pytest.raises(UsageError, match="2 snapshots"):
        open_paths(f"{low}@0x1000", named)

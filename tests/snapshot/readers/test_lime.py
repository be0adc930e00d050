"""LiME and AVML files are read where they are."""

from __future__ import annotations

from pathlib import Path

from orcdbg.base.sizes import PAGE
from orcdbg.snapshot.opening import open_paths
from tests.build.memory_files import avml, lime
from tests.snapshot.two_ranges import RANGES, check_ranges, write


def test_lime_and_avml_are_told_by_content(tmp_path: Path) -> None:
    """Zeros behind the last range, as on a disk, are none."""
    for name, data in (("lime", lime(RANGES)), ("avml", avml(RANGES)), ("disk", lime(RANGES) + bytes(PAGE))):
        check_ranges(open_paths(write(tmp_path / name, data)))

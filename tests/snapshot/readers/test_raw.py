"""Plain images of memory are read where their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from orcdbg.base.errors import NotInSnapshot, UnsupportedFormat, UsageError
from orcdbg.base.sizes import PAGE
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


def test_an_image_without_its_holes_is_named_in_pieces(tmp_path: Path) -> None:
    """Each by its address, where it is in the file, and how long; the last one up to the file's end."""
    image = write(tmp_path / "ram.img", LOW + HIGH)
    check_ranges(open_paths(f"{image}@0x1000+0:{len(LOW)}", f"{image}@0x100000000+{len(LOW):#x}"))
    check_ranges(open_paths(f"{image}@{1 << 32}+{len(LOW)}:{len(HIGH):#x}", f"{image}@4096+0x0:{len(LOW):#x}"))
    named = write(tmp_path / "ram.img@0+0:1", lime(RANGES))
    check_ranges(open_paths(named))


def test_a_piece_that_is_not_in_the_file_is_said(tmp_path: Path) -> None:
    """One that begins behind it is no piece; of one that ends behind it the rest is cut off."""
    image = write(tmp_path / "ram.img", HIGH)
    with pytest.raises(UnsupportedFormat, match="bytes, and the piece begins at 0x"):
        open_paths(f"{image}@0+{len(HIGH)}")
    snapshot = open_paths(f"{image}@0x1000+{PAGE}:{len(HIGH)}")
    assert list(snapshot.warnings) == [
        f"{image}: the piece at 0x1000 is longer than the file: {PAGE} bytes are not in it"
    ]
    assert snapshot.physical.read(0x1000, PAGE) == HIGH[PAGE : 2 * PAGE]
    with pytest.raises(NotInSnapshot, match="cut off"):
        snapshot.physical.read(0x1000 + len(HIGH) - PAGE, 1)

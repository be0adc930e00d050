"""The kernel's image in each form in which it comes: the same session from all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orcdbg.base.errors import UsageError
from orcdbg.cli.main import sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.formats.bzimage import BootRelocations
from orcdbg.formats.elf import Section
from orcdbg.image.vmlinux import open_source
from orcdbg.patches.built_text import boot_list
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from tests.build import elf
from tests.build.bzimage import PACKERS, bzimage, relocation_list
from tests.conftest import RunProgram

TEXT = 0xFFFF_FFFF_8100_0000


def sample_image() -> bytes:
    """The sample's vmlinux, unpacked."""
    source = open_source(sample_files()[0])
    return source.read_at(0, source.size)


def stacks(session: Session) -> Any:
    """All stacks, as JSON."""
    return encode(standard_commands().run(Debugger(session), "foreach bt"))["stacks"]


@pytest.mark.parametrize("packer", ["zstd", "lz4"])
def test_a_packed_image_is_the_image(packer: str, tmp_path: Path, sample: Session) -> None:
    """As a compressed file, and as a boot image."""
    (tmp_path / "packed").write_bytes(PACKERS[packer](sample_image()))
    (tmp_path / "vmlinuz").write_bytes(bzimage(sample_image(), packer))
    for name in ("packed", "vmlinuz"):
        assert stacks(open_session(tmp_path / name, sample_files()[1])) == stacks(sample)


def test_a_boot_image_adds_its_relocations(tmp_path: Path) -> None:
    """Beside the vmlinux, in any order."""
    tail = relocation_list([], [], [TEXT + 1, TEXT + 77])
    (tmp_path / "vmlinuz").write_bytes(bzimage(sample_image() + tail, "zstd"))
    vmlinux, snapshot = sample_files()
    session = open_session(snapshot, tmp_path / "vmlinuz", vmlinux)
    assert session.image.path == vmlinux
    found = session.built.relocations(Section(".text", 1, 6, TEXT, 0, 4096, 0, 0, 0))
    assert found is not None
    assert found.places.tolist() == [TEXT + 1, TEXT + 77]


def test_a_boot_image_of_another_build_is_refused(tmp_path: Path, orcdbg_run: RunProgram) -> None:
    """Its list would move the wrong bytes."""
    other = elf.image([elf.Part(".text", TEXT, bytes(64), flags=6)])
    (tmp_path / "vmlinuz").write_bytes(bzimage(other, "gzip"))
    vmlinux, snapshot = sample_files()
    with pytest.raises(UsageError, match="different kernels"):
        open_session(vmlinux, tmp_path / "vmlinuz", snapshot)
    status, _, err = orcdbg_run(vmlinux, str(tmp_path / "vmlinuz"), snapshot, "-e", "bt")
    assert (status, "different kernels" in err) == (2, True)


def test_relocations_are_those_of_the_section() -> None:
    """In order of address, with widths and signs."""
    low = TEXT - (1 << 64)
    wide, narrow = np.array([low - 8, low + 16]), np.array([low, low + 4096])
    found = boot_list(
        BootRelocations(wide, narrow, np.array([low + 8])), Section(".text", 1, 6, TEXT, 0, 4096, 0, 0, 0)
    )
    rows = list(zip(*(column.tolist() for column in found), strict=True))
    assert rows == [(TEXT, 4, 1), (TEXT + 8, 4, -1), (TEXT + 16, 8, 1)]

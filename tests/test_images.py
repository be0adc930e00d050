"""The kernel's image in each form in which it comes: the same session from all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orcdbg.base.errors import UnsupportedFormat, UsageError
from orcdbg.checkup.given_files import open_files
from orcdbg.cli.main import sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.formats.bzimage import BootRelocations
from orcdbg.formats.elf import SHT_NOBITS, Section
from orcdbg.image.debug_files import find_debug_file
from orcdbg.image.vmlinux import open_source
from orcdbg.patches.built_text import boot_list
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from tests.build import elf
from tests.build.bzimage import PACKERS, bzimage, relocation_list
from tests.build.debug_files import notes
from tests.build.dwarf import debug_sections
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


def split_off(path: Path, build_id: str, with_code: bool = False) -> str:
    """A file as objcopy --only-keep-debug makes it of an image: its sections of code have no contents."""
    kind = 1 if with_code else SHT_NOBITS
    parts = [elf.Part(".text", 0xFFFF_FFFF_8100_0000, b"\x90" * 64, type=kind, flags=6), notes(bytes.fromhex(build_id))]
    parts += [elf.Part(name, 0, data, flags=0) for name, data in debug_sections(5).items()]
    path.write_bytes(elf.image(parts))
    return str(path)


def test_what_was_split_off_an_image_is_named_beside_it(tmp_path: Path, sample: Session) -> None:
    """In any order: code is the image's, lines and types are the other's; a second image, or another build's, is refused."""
    vmlinux, core = sample_files()
    build_id = sample.image.build_id
    assert build_id is not None
    debug = split_off(tmp_path / "debug", build_id)
    for files in ((vmlinux, debug, core), (debug, core, vmlinux)):
        session = open_session(*files)
        assert session.image.path == vmlinux
        file = find_debug_file(session.image, (), list[str]().append)
        assert file is not None
        assert file.source.name == debug
        assert debug in session.files

    with pytest.raises(UsageError, match="2 images: one is needed"):
        open_session(vmlinux, split_off(tmp_path / "second", build_id, with_code=True), core)
    with pytest.raises(UsageError, match="of different kernels: build-ids"):
        open_session(vmlinux, split_off(tmp_path / "other", "ab" * 20), core)


def test_without_its_image_what_was_split_off_is_used_with_the_kernel_in_memory(
    tmp_path: Path, sample: Session
) -> None:
    """It is no other kernel because it lacks a banner; the bundled sample's memory lacks the symbols too, and that is said."""
    _, core = sample_files()
    assert sample.image.build_id is not None
    debug = split_off(tmp_path / "debug", sample.image.build_id)
    with pytest.raises(UnsupportedFormat, match="no image is given, and the kernel's own symbol tables are not whole"):
        open_session(debug, core)
    opened = open_files([debug, core])
    assert opened.files[0].kind == "debugging information that was split off an image"
    assert opened.image is None

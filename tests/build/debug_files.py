"""Files of split-off DWARF, and the places below a folder where debuggers look for them."""

from __future__ import annotations

from pathlib import Path

from tests.build import elf
from tests.build.dwarf import debug_sections

BUILD, OTHER = bytes(range(20)), bytes(20)


def notes(build_id: bytes) -> elf.Part:
    """A section with a build-id."""
    return elf.Part(".notes", 0, elf.note("GNU", 3, build_id), flags=0)


def debug_file(build_id: bytes | None = BUILD) -> bytes:
    """What was split off."""
    parts = [elf.Part(name, 0, data, flags=0) for name, data in debug_sections(5).items()]
    return elf.image([*([notes(build_id)] if build_id else []), *parts])


def put(path: Path, data: bytes) -> None:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def by_build_id(root: Path, build_id: str = BUILD.hex()) -> Path:
    """Where below a folder the file of a build is."""
    return root / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"

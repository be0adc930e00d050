"""DWARF that was split off, or packed, is found where it is said to be, and refused where it is another build's."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats.dwarf_lines import SourceLine
from orcdbg.formats.dwarf_sections import DebugSection
from orcdbg.formats.elf import ElfFile
from orcdbg.image.debug_files import DebugLink, find_debug_file, parse_link
from orcdbg.image.source_lines import SourceLines
from orcdbg.image.vmlinux import open_image
from tests.build import elf
from tests.build.debug_files import BUILD, OTHER, by_build_id, debug_file, notes, put
from tests.build.dwarf import SIZE, TEXT, debug_sections, image_with

KERNEL_TEXT = 0xFFFFFFFF81000000


def stripped(folder: Path, link: bytes | None = None) -> str:
    """An image without DWARF, with a debug link or without."""
    parts = [elf.Part(".text", KERNEL_TEXT, b"\x90" * 64, flags=6), notes(BUILD)]
    parts += [elf.Part(".gnu_debuglink", 0, link, flags=0)] if link is not None else []
    folder.mkdir(exist_ok=True)
    (folder / "vmlinux").write_bytes(elf.image(parts))
    return str(folder / "vmlinux")


def linked(name: str, data: bytes, change: int = 0) -> bytes:
    """The contents of `.gnu_debuglink` for a file."""
    text = name.encode() + b"\0"
    return text + bytes(-len(text) % 4) + struct.pack("<I", zlib.crc32(data) ^ change)


def found(image: str, *folders: Path) -> tuple[str | None, list[str]]:
    """Which file was found, and the warnings."""
    warnings: list[str] = []
    elf_file = find_debug_file(open_image(image), [str(one) for one in folders], warnings.append)
    return None if elf_file is None else elf_file.source.name, warnings


@pytest.mark.parametrize("place", ["named", "beside"])
def test_a_file_is_found_by_build_id(tmp_path: Path, place: str) -> None:
    """Below a folder that was named, and beside the image."""
    image = stripped(tmp_path / "image")
    root = tmp_path / ("named" if place == "named" else "image")
    put(by_build_id(root), debug_file())
    assert found(image, tmp_path / "named") == (str(by_build_id(root)), [])


@pytest.mark.parametrize("folder", ["", ".debug/"])
def test_a_file_is_found_by_debug_link(tmp_path: Path, folder: str) -> None:
    """Beside the image; without a build-id of its own its checksum is enough."""
    image = stripped(tmp_path, linked("vmlinux.debug", debug_file(None)))
    path = tmp_path / f"{folder}vmlinux.debug"
    put(path, debug_file(None))
    assert found(image) == (str(path), [])


def test_nothing_is_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by name nor by build-id."""
    image = stripped(tmp_path / "image", linked("vmlinux.debug", debug_file()))
    put(tmp_path / "here" / "vmlinux.debug", debug_file())
    put(by_build_id(tmp_path / "here"), debug_file())
    monkeypatch.chdir(tmp_path / "here")
    assert found(image) == (None, [])


def test_another_checksum_is_refused(tmp_path: Path) -> None:
    """With a warning that says both."""
    image = stripped(tmp_path, linked("vmlinux.debug", debug_file(None), change=1))
    put(tmp_path / "vmlinux.debug", debug_file(None))
    path, warnings = found(image)
    assert path is None
    assert len(warnings) == 1
    assert "CRC32" in warnings[0]


@pytest.mark.parametrize("build_id", [OTHER, None])
def test_another_build_is_refused_and_the_next_place_asked(tmp_path: Path, build_id: bytes | None) -> None:
    """A file under this build's name whose build-id is another, or that has none."""
    image = stripped(tmp_path / "image")
    put(by_build_id(tmp_path / "named"), debug_file(build_id))
    path, warnings = found(image, tmp_path / "named")
    assert path is None
    assert "build" in warnings[0]
    put(by_build_id(tmp_path / "image"), debug_file())
    assert found(image, tmp_path / "named")[0] == str(by_build_id(tmp_path / "image"))


@pytest.mark.parametrize("name", [b"/etc/passwd", b"../x", b".", b"..", b"", b"x" * 5000])
def test_a_link_out_of_its_folder_is_no_link(name: bytes) -> None:
    """The image's maker has no say in which folder is read."""
    assert parse_link(name + b"\0" + bytes(8)) is None


@given(st.binary(max_size=64))
def test_any_link_is_a_name_without_a_folder_or_none(data: bytes) -> None:
    """And never an error."""
    link = parse_link(data)
    assert link is None or (isinstance(link, DebugLink) and "/" not in link.name and link.name)


# Packed sections


def packed(data: bytes, kind: int, size: int | None = None) -> bytes:
    """A section as SHF_COMPRESSED has it."""
    body = zlib.compress(data) if kind == 1 else zstandard.ZstdCompressor().compress(data)
    return struct.pack("<IIQQ", kind, 0, len(data) if size is None else size, 1) + body


def packed_image(kind: str) -> bytes:
    """The image of the line tests with its sections packed."""
    parts = [elf.Part(".text", TEXT, b"\x90" * SIZE, flags=6)]
    for name, data in debug_sections(5).items():
        if kind == "zdebug":
            body = b"ZLIB" + struct.pack(">Q", len(data)) + zlib.compress(data)
            parts.append(elf.Part(name.replace(".debug", ".zdebug"), 0, body, flags=0))
        else:
            parts.append(elf.Part(name, 0, packed(data, 1 if kind == "zlib" else 2), flags=0x800))
    return elf.image(parts)


@pytest.mark.parametrize("kind", ["zlib", "zstd", "zdebug"])
def test_packed_sections_give_the_same_lines(kind: str) -> None:
    """As those that are not packed."""
    lines = SourceLines(ElfFile(BytesSource("made", packed_image(kind))))
    plain = SourceLines(ElfFile(BytesSource("made", image_with(debug_sections(5)))))
    assert lines.is_there
    for offset in range(SIZE):
        assert lines.at(TEXT + offset) == plain.at(TEXT + offset)
    assert lines.at(TEXT) is not None
    assert lines.at(TEXT).line == SourceLine("made.c", 10)  # type: ignore[union-attr]


def section(data: bytes, name: str = ".debug_info", flags: int = 0x800) -> DebugSection:
    """A section with these contents."""
    return DebugSection(ElfFile(BytesSource("made", elf.image([elf.Part(name, 0, data, flags=flags)]))), ".debug_info")


@pytest.mark.parametrize(
    "data",
    [
        packed(b"x" * 100, 1, 99),
        packed(b"x" * 100, 2, 101),
        packed(b"x" * 100, 1, 1 << 40),
        packed(b"\0" * (64 << 20), 1, 100),  # a bomb: it is left when its size is passed
        packed(b"x" * 100, 2)[:-3],
        packed(b"x" * 100, 1)[:-6],
        struct.pack("<IIQQ", 7, 0, 100, 1) + b"x",
        b"short",
    ],
)
def test_sections_that_lie_about_themselves_are_refused(data: bytes) -> None:
    """By size, by kind, or by being cut off."""
    with pytest.raises(UnsupportedFormat):
        section(data).read(0, 1)


@given(st.integers(0), st.integers(1, 255), st.sampled_from([1, 2]))
def test_damage_to_packed_data_gives_the_data_or_an_error_of_ours(place: int, change: int, kind: int) -> None:
    """One byte is another."""
    data = bytearray(packed(bytes(range(200)), kind))
    data[place % len(data)] ^= change
    try:
        section(bytes(data)).read(0, 1)
    except OrcdbgError:
        return

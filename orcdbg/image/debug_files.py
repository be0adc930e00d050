"""Which file holds the debugging information that was split off an image?

It is looked for by build-id, and by the name and checksum in `.gnu_debuglink`: below the folders that the user names,
below `/usr/lib/debug`, and beside the image; nowhere else. Nothing of what is found is executed, and a file that is of
another build is refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.formats.elf import SHT_NOBITS, ElfFile, parse_notes
from orcdbg.image.vmlinux import Image, open_source

SYSTEM_FOLDER = "/usr/lib/debug"

# A link holds a file's name and four bytes.
MAX_LINK = 4096
# A kernel's debugging information has some hundreds of MiB. All of it is read for its checksum.
MAX_FILE = 4 << 30
MAX_NOTES = 1 << 20

_STEP = 1 << 22
# What becomes a path on this machine: hexadecimal digits and nothing else.
_BUILD_ID = re.compile(r"[0-9a-f]{6,128}")
_NOTES = (".notes", ".note.gnu.build-id")
_NT_GNU_BUILD_ID = 3
INFO = (".debug_info", ".zdebug_info")


class DebugLink(NamedTuple):
    """What an image says of the file that was split off: its name, without a folder, and the CRC32 of its bytes."""

    name: str
    checksum: int


def has_debug(elf: ElfFile) -> bool:
    """True for a file with DWARF of its own."""
    sections = map(elf.by_name.get, INFO)
    return any(section is not None and section.size and section.type != SHT_NOBITS for section in sections)


def is_debug_alone(elf: ElfFile) -> bool:
    """True for what was split off an image: DWARF, and sections of code without any."""
    return not elf.has_code and has_debug(elf)


def parse_link(data: bytes) -> DebugLink | None:
    """The contents of `.gnu_debuglink`, None where they are not a file's name and a checksum."""
    name, end, _ = data.partition(b"\0")
    if not end or not name or len(data) > MAX_LINK:
        return None

    # The checksum is on the next multiple of four.
    checksum_offset = -(-(len(name) + 1) // 4) * 4
    if checksum_offset + 4 > len(data):
        return None

    # A name in a hostile file must not lead out of the folders that are looked in.
    if b"/" in name or name in (b".", b".."):
        return None
    crc = int.from_bytes(data[checksum_offset : checksum_offset + 4], "little")
    return DebugLink(name.decode("utf-8", "surrogateescape"), crc)


def checksum(source: ByteSource) -> int:
    """The CRC32 of a file.

    Raises:
        UnsupportedFormat: it is too large to be a file of debugging information.
    """
    if source.size > MAX_FILE:
        raise UnsupportedFormat(source.name, f"{source.size} bytes are too many for debugging information")

    crc = 0
    for offset in range(0, source.size, _STEP):
        crc = zlib.crc32(source.read_at(offset, min(_STEP, source.size - offset)), crc)
    return crc


def build_id_of(elf: ElfFile) -> str | None:
    """A file's build-id in hexadecimal, None without one."""
    for section in filter(None, map(elf.by_name.get, _NOTES)):
        if section.type == SHT_NOBITS or section.size > MAX_NOTES:
            continue
        for note in parse_notes(elf.data(section), elf.source.name):
            if (note.name, note.type) == ("GNU", _NT_GNU_BUILD_ID):
                return note.data.hex()
    return None


def _by_build_id(build_id: str, roots: Sequence[Path]) -> Iterator[tuple[Path, None]]:
    """Where distributions put it: .build-id/ and the first two digits, as gdb looks for it."""
    if _BUILD_ID.fullmatch(build_id):
        for root in roots:
            yield root / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug", None


def _by_link(link: DebugLink, image: Path, roots: Sequence[Path]) -> Iterator[tuple[Path, DebugLink]]:
    """Where gdb looks for a debug link's file: beside the image, in .debug there, and below each root."""
    beside = image.absolute().parent
    for folder in (beside, beside / ".debug", *roots, *(root / beside.relative_to("/") for root in roots)):
        yield folder / link.name, link


def _checked(path: Path, link: DebugLink | None, build_id: str | None) -> ElfFile:
    """The file at `path`, if it is the debugging information that is looked for.

    Args:
        path: a file that is there.
        link: what the image's debug link says, where the link gave the name.
        build_id: the image's.

    Raises:
        UnsupportedFormat: it is of another build, or nobody can tell, or has no debugging information.
    """
    source = open_source(str(path))
    elf = ElfFile(source)

    theirs = build_id_of(elf)
    if build_id is not None and theirs is not None and theirs != build_id:
        raise UnsupportedFormat(str(path), f"debugging information of another build: {theirs}")

    if link is not None:
        crc = checksum(source)
        if crc != link.checksum:
            what = f"its CRC32 is {crc:#010x}, the image's debug link says {link.checksum:#010x}"
            raise UnsupportedFormat(str(path), f"not the debugging information of this image: {what}")
    elif theirs is None:
        raise UnsupportedFormat(str(path), "a file without a build-id, so nobody can tell whose it is")

    if not has_debug(elf):
        raise UnsupportedFormat(str(path), "no debugging information in it")
    return elf


def find_debug_file(image: Image, folders: Sequence[str], warn: Callable[[str], None]) -> ElfFile | None:
    """The file with an image's DWARF: itself, or what was split off; None where there is none.

    Args:
        image: the image.
        folders: to look below, before the usual ones.
        warn: is told of files that were there and are not the image's.
    """
    elf = None if image.is_memory else image.elf
    if elf is not None and has_debug(elf):
        return elf

    here = Path(image.path)
    for path, expected in candidates(image, folders):
        try:
            if path.is_file() and not path.samefile(here):
                return _checked(path, expected, image.build_id)
        except OrcdbgError as error:
            warn(error.message)
        except (OSError, ValueError):
            # No such folder, or a name that no file can have.
            continue
    return None


def candidates(image: Image, folders: Sequence[str]) -> list[tuple[Path, DebugLink | None]]:
    """Where debugging information that was split off an image may lie, the likeliest first.

    Args:
        image: the image.
        folders: to look below, before the usual ones.

    Returns:
        Paths; with each what the image's debug link says of that file, None where the build-id gave the name.
    """
    elf = None if image.is_memory else image.elf
    here = Path(image.path)
    roots = [*map(Path, folders), Path(SYSTEM_FOLDER)]
    if elf is not None:
        roots.append(here.absolute().parent)

    wanted: list[tuple[Path, DebugLink | None]] = []
    if image.debug_file is not None:
        wanted.append((Path(image.debug_file), None))
    if image.build_id is not None:
        wanted += _by_build_id(image.build_id, roots)
    link = parse_link(image.section_data(".gnu_debuglink"))
    if link is not None:
        wanted += _by_link(link, here, roots)

    return list(dict.fromkeys(wanted))

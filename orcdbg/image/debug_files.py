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
MAX_LINK, MAX_FILE = 4096, 4 << 30
_STEP = 1 << 22
_BUILD_ID = re.compile(r"[0-9a-f]{6,128}")
_NOTES = (".notes", ".note.gnu.build-id")
INFO = (".debug_info", ".zdebug_info")


class DebugLink(NamedTuple):
    """What an image says of the file that was split off: its name, without a folder, and the CRC32 of its bytes."""

    name: str
    checksum: int


def has_debug(elf: ElfFile) -> bool:
    """True for a file with DWARF of its own."""
    return any(one is not None and one.size and one.type != SHT_NOBITS for one in map(elf.by_name.get, INFO))


def parse_link(data: bytes) -> DebugLink | None:
    """The contents of `.gnu_debuglink`, None where they are not a file's name and a checksum."""
    name, end, _ = data.partition(b"\0")
    at = -(-(len(name) + 1) // 4) * 4
    if not end or not name or len(data) > MAX_LINK or at + 4 > len(data) or b"/" in name or name in (b".", b".."):
        return None
    return DebugLink(name.decode("utf-8", "surrogateescape"), int.from_bytes(data[at : at + 4], "little"))


def checksum(source: ByteSource) -> int:
    """The CRC32 of a file.

    Raises:
        UnsupportedFormat: it is too large to be a file of debugging information.
    """
    if source.size > MAX_FILE:
        raise UnsupportedFormat(source.name, f"{source.size} bytes are too many for debugging information")
    crc = 0
    for at in range(0, source.size, _STEP):
        crc = zlib.crc32(source.read_at(at, min(_STEP, source.size - at)), crc)
    return crc


def build_id_of(elf: ElfFile) -> str | None:
    """A file's build-id in hexadecimal, None without one."""
    for section in filter(None, map(elf.by_name.get, _NOTES)):
        if section.type != SHT_NOBITS and section.size <= 1 << 20:
            for note in parse_notes(elf.data(section), elf.source.name):
                if (note.name, note.type) == ("GNU", 3):
                    return note.data.hex()
    return None


def _by_build_id(build_id: str, roots: Sequence[Path]) -> Iterator[tuple[Path, None]]:
    if _BUILD_ID.fullmatch(build_id):
        for root in roots:
            yield root / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug", None


def _by_link(link: DebugLink, image: Path, roots: Sequence[Path]) -> Iterator[tuple[Path, DebugLink]]:
    beside = image.absolute().parent
    for folder in (beside, beside / ".debug", *roots, *(root / beside.relative_to("/") for root in roots)):
        yield folder / link.name, link


def _checked(path: Path, link: DebugLink | None, build_id: str | None) -> ElfFile:
    source = open_source(str(path))
    elf = ElfFile(source)
    theirs = build_id_of(elf)
    if build_id is not None and theirs is not None and theirs != build_id:
        raise UnsupportedFormat(str(path), f"debugging information of another build: {theirs}")
    if link is not None and (crc := checksum(source)) != link.checksum:
        what = f"its CRC32 is {crc:#010x}, the image's debug link says {link.checksum:#010x}"
        raise UnsupportedFormat(str(path), f"not the debugging information of this image: {what}")
    if link is None and theirs is None:
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
        except (OSError, ValueError):  # no such folder, a name that no file can have
            continue
    return None


def candidates(image: Image, folders: Sequence[str]) -> list[tuple[Path, DebugLink | None]]:
    """Where debugging information that was split off an image may lie, the likeliest first; arguments as above.

    With each path what the image's debug link says of that file, None where the build-id gave the name.
    """
    elf = None if image.is_memory else image.elf
    here = Path(image.path)
    roots = [*map(Path, folders), Path(SYSTEM_FOLDER), *([] if elf is None else [here.absolute().parent])]
    wanted: list[tuple[Path, DebugLink | None]] = []
    if image.build_id is not None:
        wanted += _by_build_id(image.build_id, roots)
    link = parse_link(image.section_data(".gnu_debuglink"))
    if link is not None:
        wanted += _by_link(link, here, roots)
    return list(dict.fromkeys(wanted))

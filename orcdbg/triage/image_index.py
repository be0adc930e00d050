"""Which file is the image of a build, among all that lie in some folders?

Each file is looked into once. What was found is kept for the next run, by the file's name, size and last change; a damaged or
foreign cache is made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orcdbg.base.cache_files import CacheFiles
from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.base.folders import is_folder, names_below
from orcdbg.base.inputs import remember
from orcdbg.base.reading import FileSource
from orcdbg.formats import codecs
from orcdbg.formats.detect import FileKind, file_kind
from orcdbg.formats.elf import MAGIC, SHT_NOBITS
from orcdbg.image.vmlinux import open_image

# Of what is kept: another number makes it anew.
VERSION = 1
CACHE_KIND = "triage"
CACHE_NAME = "images.json"
MAX_FILES = 1 << 17
_MAX_CACHE = 64 << 20

# The smallest kernels have some MiB, packed too; modules and split-off pieces have less.
_SMALLEST = 1 << 18
_ELF_TYPE = 16  # offset of e_type, two bytes
_IMAGE_TYPES = (2, 3)  # ET_EXEC, ET_DYN: neither a module nor a core
_BZIMAGE_HEAD = 0x206


class Looked(NamedTuple):
    """What was found in a file: its build-id, None of no image, and its rank, of which the lowest is the best to open."""

    size: int
    modified: int
    build_id: str | None
    rank: int


_PLAIN, _PACKED, _BOOT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """The images.

    Attributes:
        paths: the image of a build-id.
        files: how many files there were.
        problems: what of the folders could not be read, in words.
    """

    paths: Mapping[str, str]
    files: int
    problems: Sequence[str]


def index_images(
    folders: Sequence[str], environment: Mapping[str, str], tell: Callable[[int], None] = lambda files: None
) -> ImageIndex:
    """Looks into all files below the folders.

    Args:
        folders: where they lie; links are not followed to further folders.
        environment: where XDG_CACHE_HOME is from.
        tell: is told how many files were looked at.

    Raises:
        UsageError: one of the folders is none.
    """
    cache = CacheFiles(CACHE_KIND, environment)
    problems: list[str] = []
    known = _read(cache, problems)
    index = _Index(known)
    try:
        for path in _files(folders, problems):
            index.look(path)
            tell(index.files)
    finally:
        # What took long to unpack is kept also where somebody loses patience.
        if index.is_new:
            _keep(cache, {**known, **index.looked}, problems)
    return ImageIndex(index.best(), index.files, problems)


class _Index:
    """What is found; `known` is what an earlier run has found."""

    def __init__(self, known: Mapping[str, Looked]) -> None:
        self._known = known
        self.looked: dict[str, Looked] = {}
        self.files = 0
        self.is_new = False

    def look(self, path: str) -> None:
        """Looks into a file, unless it is known as it is now."""
        self.files += 1
        try:
            info = Path(path).stat()
        except OSError:
            return
        if info.st_size < _SMALLEST:
            return
        known = self._known.get(path)
        if known is None or (known.size, known.modified) != (info.st_size, info.st_mtime_ns):
            self.is_new = True
            known = Looked(info.st_size, info.st_mtime_ns, *_look(path))
        self.looked[path] = known

    def best(self) -> dict[str, str]:
        """The file of each build that is opened fastest; of equal ones the first by name."""
        ordered = sorted(
            (looked.rank, path, looked.build_id) for path, looked in self.looked.items() if looked.build_id
        )
        paths: dict[str, str] = {}
        for _, path, build_id in ordered:
            assert build_id is not None
            paths.setdefault(build_id, path)
        remember(*paths.values())
        return paths


def _files(folders: Sequence[str], problems: list[str]) -> Iterator[str]:
    """The regular files below the folders, in order of name, each once."""
    seen: set[str] = set()
    for folder in folders:
        if not is_folder(folder):
            raise UsageError(f"{folder}: not a folder")
        for path in names_below(os.path.abspath(folder), problems):  # noqa: PTH100  no link is followed
            if path in seen or not os.path.isfile(path):  # noqa: PTH113
                continue
            if len(seen) >= MAX_FILES:
                problems.append(f"more than {MAX_FILES} files: those from {path} on are not looked at")
                return
            seen.add(path)
            yield path


def _look(path: str) -> tuple[str | None, int]:
    """A file's build-id, None of no image, and its rank."""
    try:
        rank = _rank(FileSource(path))
        if rank is None:
            return None, 0
        image = open_image(path)
        text = image.find_section(".text")
        # Split-off debugging information has the section's header, and not its code.
        if text is None or text.type == SHT_NOBITS:
            return None, 0
        return image.build_id, rank
    except OrcdbgError:
        return None, 0


def _rank(source: FileSource) -> int | None:
    """How long a file takes to open, by its kind; None of one that begins as no image does. Nothing is unpacked for that."""
    if not source.is_regular:
        return None
    kind = file_kind(source)
    if kind is FileKind.ELF:
        return _PLAIN if _is_image_head(source.read_at(0, min(source.size, _BZIMAGE_HEAD))) else None
    if kind is FileKind.COMPRESSED:
        return _PACKED if _is_image_head(codecs.unpacked_head(source, _BZIMAGE_HEAD)) else None
    return _BOOT if kind is FileKind.BZIMAGE else None


def _is_image_head(head: bytes) -> bool:
    if head.startswith(MAGIC):
        return int.from_bytes(head[_ELF_TYPE : _ELF_TYPE + 2], "little") in _IMAGE_TYPES
    return head[-4:] == b"HdrS"


# What is kept


def _read(cache: CacheFiles, problems: list[str]) -> dict[str, Looked]:
    """What an earlier run has kept; nothing where that is damaged, or of another version."""
    try:
        data = cache.read(CACHE_NAME, _MAX_CACHE)
    except OrcdbgError as error:
        problems.append(error.message)
        return {}
    if data is None:
        return {}
    try:
        kept = json.loads(data)
        return _parsed(kept["files"]) if kept["version"] == VERSION else {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _parsed(files: Any) -> dict[str, Looked]:
    found = {}
    for path, (size, modified, build_id, rank) in files.items():
        if not isinstance(build_id, str | None):
            raise TypeError(build_id)
        found[path] = Looked(int(size), int(modified), build_id, int(rank))
    return found


def _keep(cache: CacheFiles, looked: Mapping[str, Looked], problems: list[str]) -> None:
    """Keeps what was found, of files that are still there."""
    there = {path: list(each) for path, each in looked.items() if os.path.lexists(path)}
    data = json.dumps({"version": VERSION, "files": there}, ensure_ascii=True).encode()
    if len(data) > _MAX_CACHE:
        return
    try:
        cache.write(CACHE_NAME, data)
    except OrcdbgError as error:
        problems.append(f"{error.message}; the images are looked at again the next time")

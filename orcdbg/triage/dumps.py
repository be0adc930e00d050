"""Which dumps does a user mean who names files and folders?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.folders import is_folder, names_below
from orcdbg.base.inputs import remember
from orcdbg.snapshot.opening import looks_like_snapshot
from orcdbg.snapshot.spool import STANDARD_INPUT

MAX_DUMPS = 1 << 20


@dataclass(frozen=True, slots=True)
class FoundDumps:
    """The dumps.

    Attributes:
        paths: absolute, each once, in the order in which they were named; those of a folder by name.
        passed_over: how many files of folders are something else.
        problems: what of the folders cannot be read, in words.
    """

    paths: Sequence[str]
    passed_over: int
    problems: Sequence[str]


def find_dumps(names: Sequence[str]) -> FoundDumps:
    """The files that were named, whatever they are, and the snapshots in folders and all that are below them.

    In a folder, what an empty or unreadable file was to be cannot be told: it counts as a dump, and its record says what is
    wrong.

    Raises:
        UsageError: standard input, which can be read only once, or more dumps than any machine has.
        NotFound: there is no dump.
    """
    paths: dict[str, None] = {}
    problems: list[str] = []
    passed_over = 0
    for name in names:
        if name == STANDARD_INPUT:
            raise UsageError("a dump from standard input can be read only once", "write it to a file")
        absolute = os.path.abspath(name)  # noqa: PTH100  a link keeps its name
        if not _is_folder(absolute):
            paths[absolute] = None
            continue
        for path in _files(absolute, problems):
            if not _may_be_dump(path):
                passed_over += 1
                continue
            paths[path] = None
            if len(paths) > MAX_DUMPS:
                raise UsageError(f"more than {MAX_DUMPS} dumps", "name fewer folders at once")
    if not paths:
        raise NotFound("dump", ", ".join(names), "orcdbg triage DUMP... or a folder of them")
    remember(*paths)
    return FoundDumps(list(paths), passed_over, problems)


def _is_folder(path: str) -> bool:
    try:
        return is_folder(path)
    except (OSError, ValueError):
        return False  # its record says what is wrong with the name


def _files(folder: str, problems: list[str]) -> Iterator[str]:
    """All regular files below a folder, by name; links are not followed."""
    for path in names_below(folder, problems):
        if os.path.isfile(path) and not os.path.islink(path):  # noqa: PTH113, PTH114
            yield path


def _may_be_dump(path: str) -> bool:
    try:
        return os.path.getsize(path) == 0 or looks_like_snapshot(path)  # noqa: PTH202
    except (OrcdbgError, OSError):
        return True

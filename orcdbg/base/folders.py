"""Is this a folder, may anything have that name at all, and what lies below it?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def is_folder(path: str) -> bool:
    """Whether a path names a folder.

    Raises:
        OSError: the system refuses the name, as one of more than 255 characters. Since Python 3.14 pathlib says "no" to that.
    """
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def names_below(folder: str, problems: list[str]) -> Iterator[str]:
    """The paths of all that is no folder below one, folder by folder and by name; links to folders are not followed.

    Args:
        folder: where to begin.
        problems: is given a line for each folder that cannot be read.
    """

    def refused(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read: {error.strerror}")

    for place, below, names in os.walk(folder, onerror=refused):
        below.sort()
        for name in sorted(names):
            yield os.path.join(place, name)  # noqa: PTH118  some hundred thousand

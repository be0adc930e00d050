"""Is this a folder, and may anything have that name at all?"""

from __future__ import annotations

import stat
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

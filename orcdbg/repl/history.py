"""Where are typed lines kept from one session to the next?"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path


def history_file(environment: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/orcdbg/history`; a relative XDG_STATE_HOME counts for nothing, as its specification says."""
    state = Path(environment.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "orcdbg" / "history"


_NOT_KEPT = "this session's lines will not be kept"


def make_folder(file: Path) -> str | None:
    """Makes the folder of the history, for its owner only; what is in the way there, or in the file's place, or None.

    At its end a session writes the file anew: through a symbolic link that would be whatever file the link names, and a pipe
    would wait for a reader.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return f"{file.parent}: {error.strerror}: {_NOT_KEPT}"
    try:
        found = file.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{file}: {error.strerror}: {_NOT_KEPT}"
    if stat.S_ISLNK(found.st_mode):
        return f"{file}: it is a symbolic link: {_NOT_KEPT}"
    if not stat.S_ISREG(found.st_mode):
        return f"{file}: it is no regular file: {_NOT_KEPT}"
    if found.st_uid != os.geteuid():
        return f"{file}: it is another user's: {_NOT_KEPT}"
    return None

"""Where are typed lines kept from one session to the next?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def history_file(environment: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/orcdbg/history`; a relative XDG_STATE_HOME counts for nothing, as its specification says."""
    state = Path(environment.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "orcdbg" / "history"


def make_folder(file: Path) -> str | None:
    """Makes the folder of the history, for its owner only; what is in the way, or None."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return f"{file.parent}: {error.strerror}: this session's lines will not be kept"
    return None

"""--patches FILE: which journal does the session take its patches from?"""

from __future__ import annotations

from pathlib import Path

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.inputs import remember
from orcdbg.patches.journal import read_journal
from orcdbg.target.session import Session


def apply_patches(session: Session, path: str) -> None:
    """Reads a journal and has the session use it.

    Raises:
        UnsupportedFormat: it cannot be read, is damaged, or of another boot.
        Mismatch: it is of another kernel.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise UnsupportedFormat(path, "not a regular file")
    remember(path)
    try:
        with open(path, "rb") as file:
            journal = read_journal(file, path)
    except OSError as error:
        raise UnsupportedFormat(path, f"cannot be read: {error.strerror}") from error
    session.apply_journal(journal)

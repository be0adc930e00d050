"""Which files has this run of the program read, so that nothing that it writes takes the place of one?"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar

# Files are opened in many layers, by plug-ins too, and most of them know nothing of who writes what. What is forgotten
# here costs a user the only copy of a snapshot, so the places that open files say so to the run, and not to a caller.
_read: ContextVar[dict[str, None] | None] = ContextVar("_read", default=None)


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """From here to the end of the block, or of the decorated function, `remember` keeps what it is told."""
    token = _read.set({})
    try:
        yield
    finally:
        _read.reset(token)


def remember(*paths: str) -> None:
    """Notes files that are read, or will be. Outside `remembering`, as in a program that uses the library, nothing is."""
    kept = _read.get()
    if kept is not None:
        # Links are followed when something is to be written, for they may change.
        kept.update((os.path.abspath(path), None) for path in paths)  # noqa: PTH100


def remembered() -> list[str]:
    """The files noted so far, and those that the program's own modules and its plug-ins were loaded from."""
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return [*(_read.get() or ()), *(file for file in modules if isinstance(file, str))]

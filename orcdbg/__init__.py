"""orcdbg: a debugger for stopped Linux kernels that knows which patches the kernel applied to its own text.

import orcdbg
session = orcdbg.open("vmlinux", "snapshot.core")
for task in session.tasks:
    trace = session.unwinder.trace(task)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orcdbg.target.session import Session

__version__ = "0.1.0"


def open(*paths: str | Path, slide: int | None = None, phys_base: int | None = None) -> Session:
    """Opens an image and a snapshot, in any order; see `orcdbg.target.opening.open_session`."""
    from orcdbg.target.opening import open_session

    return open_session(*paths, slide=slide, phys_base=phys_base)

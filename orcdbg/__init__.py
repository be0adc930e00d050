"""orcdbg: a debugger for stopped Linux kernels that knows which patches the kernel applied to its own text.

import orcdbg
session = orcdbg.open("vmlinux", "snapshot.core")
for task in session.tasks:
    trace = session.unwinder.trace(task)
"""

# Nothing is imported here, not even `from __future__`: `python -m orcdbg` runs this file while the current folder is
# still the first place where Python looks for modules (see `__main__`).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from orcdbg.target.session import Session

__version__ = "0.1.0"


def open(*paths: "str | Path", slide: int | None = None, phys_base: int | None = None) -> "Session":
    """Opens an image and a snapshot, in any order; see `orcdbg.target.opening.open_session`."""
    from orcdbg.target.opening import open_session

    return open_session(*paths, slide=slide, phys_base=phys_base)

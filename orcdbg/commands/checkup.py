"""checkup: what is in these files, what is missing, what does that cost, and how is it got?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orcdbg.checkup.account import Checkup, take_account
from orcdbg.checkup.given_files import open_files
from orcdbg.target.session import Session


def checkup(
    paths: Sequence[str], debug_folders: Sequence[str] = (), prepare: Callable[[Session], None] | None = None
) -> Checkup:
    """The account of these files; arguments as of `open_files`. Nothing is raised: a file that cannot be read is a line."""
    return take_account(open_files(paths, debug_folders, prepare))

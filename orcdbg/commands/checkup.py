"""checkup: what is in these files, what is missing, what does that cost, and how is it got?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.base.exit_status import ExitStatus
from orcdbg.checkup.account import Checkup, take_account
from orcdbg.checkup.given_files import open_files
from orcdbg.commands.result import Result
from orcdbg.target.session import Session

if TYPE_CHECKING:
    from orcdbg.target.kernel_types import TypeOptions


@dataclass(frozen=True, slots=True)
class CheckedFiles(Result):
    """The account of some files."""

    account: Checkup

    @property
    def exit_status(self) -> ExitStatus:
        """0 where orcdbg can work with these files, else what opening them would end with."""
        error = self.account.error
        return ExitStatus.DONE if error is None else error.exit_status


def checkup(
    paths: Sequence[str],
    debug_folders: Sequence[str] = (),
    prepare: Callable[[Session], None] | None = None,
    type_options: TypeOptions | None = None,
) -> CheckedFiles:
    """The account of these files; arguments as of `open_files`. Nothing is raised: a file that cannot be read is a line."""
    return CheckedFiles(take_account(open_files(paths, debug_folders, prepare, type_options)))

"""What do these files come to: what is in them, what is missing, and can orcdbg work with them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.checkup.facts import Facts, gather_facts
from orcdbg.checkup.given_files import GivenFile, OpenedFiles
from orcdbg.checkup.missing import Missing, find_missing
from orcdbg.checkup.obstacles import find_obstacle


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found and what is missing; `error` is what keeps the files from being of use."""

    files: Sequence[GivenFile]
    facts: Facts
    missing: Sequence[Missing]
    warnings: Sequence[str]
    error: OrcdbgError | None = None


def take_account(opened: OpenedFiles) -> Checkup:
    """The account of what was opened; whatever cannot be read of it becomes a line of the account."""
    warnings: list[str] = []
    if opened.snapshot is not None:
        warnings += opened.snapshot.warnings

    facts = gather_facts(opened, warnings.append)
    if opened.error is None:
        opened.error = find_obstacle(opened)
    missing = list(find_missing(opened, facts))

    if opened.session is not None:
        warnings += [warning for warning in opened.session.warnings if warning not in warnings]
    return Checkup(opened.files, facts, missing, warnings, opened.error)

"""orcdbg triage: what came out of looking at many dumps?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.exit_status import ExitStatus
from orcdbg.commands.result import Result
from orcdbg.triage.groups import DumpGroup
from orcdbg.triage.records import DumpRecord, Outcome


@dataclass(frozen=True, slots=True)
class TriageResult(Result):
    """The groups, and what belongs to all of them.

    Attributes:
        records: of all dumps that were looked at, now or in an earlier run.
        groups: of them.
        kept: how many of the records an earlier run had made.
        undone: how many dumps were not looked at, since somebody pressed Ctrl-C.
        passed_over: how many files of the folders are no dumps.
        images: how many builds there are images of.
        output: the file of the records; None without.
        report: the folder of the pages; None without.
        pages: the page of a dump, its name in that folder.
        problems: what went wrong beside the dumps, in words.
    """

    records: Sequence[DumpRecord]
    groups: Sequence[DumpGroup]
    kept: int = 0
    undone: int = 0
    passed_over: int = 0
    images: int = 0
    output: str | None = None
    report: str | None = None
    pages: Mapping[str, str] | None = None
    problems: Sequence[str] = ()

    def count(self, outcome: Outcome) -> int:
        """How many dumps ended so."""
        return sum(record.outcome is outcome for record in self.records)

    @property
    def exit_status(self) -> ExitStatus:
        """Done, whatever the dumps say; failed where not one of them could be looked at."""
        if self.undone:
            return ExitStatus.INTERRUPTED
        return ExitStatus.DONE if self.count(Outcome.FAILED) < len(self.records) else ExitStatus.FAILED

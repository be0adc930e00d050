"""orcdbg report: what is there to send along of a dead kernel, in one file?"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.result import Result, own_result
from orcdbg.patches.ledger import PatchLedger
from orcdbg.patches.site import CANNOT_TELL, PatchPass


class ReportPart(enum.Enum):
    """A part of a report; the values are its anchors in a page."""

    ANALYSIS = "analysis"
    CRASHING_STACK = "crashing-stack"
    CPUS = "cpus"
    BLOCKED = "blocked"
    PATCHES = "patches"
    LOG = "log"
    MODULES = "modules"
    MACHINE = "machine"


class DocumentForm(enum.Enum):
    """What a report is written as; the values are the suffixes that choose it."""

    HTML = ".html"
    MARKDOWN = ".md"
    TEXT = ".txt"


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """One command's answer in a report.

    Attributes:
        command: what the reader runs to see the same.
        result: None where it could not be had.
        problem: why not.
    """

    command: str
    result: Result | None
    problem: OrcdbgError | None = None


@dataclass(frozen=True, slots=True)
class MechanismSites:
    """How many places a mechanism may have patched; None where that cannot be told."""

    mechanism: str
    sites: int | None


@dataclass(frozen=True, slots=True)
class PatchSummary(Result):
    """The places of each pass of the kernel over its own text, in the order of the passes."""

    passes: Sequence[MechanismSites]


@dataclass(frozen=True, slots=True)
class Report(Result):
    """Everything that a report holds.

    Attributes:
        parts: the answers of each part, in the order of the report.
        files: the files that it was made of.
        words: the command line that made it.
        warnings: what the session had to say of the files.
    """

    parts: Sequence[tuple[ReportPart, Sequence[PartAnswer]]]
    files: Sequence[str]
    words: Sequence[str]
    warnings: Sequence[str]

    @property
    def missing(self) -> list[tuple[ReportPart, PartAnswer]]:
        """What could not be had."""
        return [(part, answer) for part, answers in self.parts for answer in answers if answer.problem is not None]

    def answer(self, part: ReportPart, kind: type[Result]) -> Result | None:
        """The first answer of a kind in a part; None without."""
        for name, answers in self.parts:
            found = next(
                (answer.result for answer in answers if name is part and isinstance(answer.result, kind)), None
            )
            if found is not None:
                return found
        return None


@dataclass(frozen=True, slots=True)
class WrittenReport(Result):
    """A report that was written: where, bytes, and what it lacks."""

    path: str
    size: int
    missing: Sequence[tuple[ReportPart, PartAnswer]]


Ask = Callable[[Debugger, Registry], Result]


def _run(line: str) -> tuple[str, Ask]:
    return line, lambda debugger, registry: registry.run(debugger, line)


def _blocked(debugger: Debugger, registry: Registry) -> Result:
    """The stacks of blocked tasks; no groups where no task is."""
    return own_result(registry.run(debugger, _BLOCKED))


def summarize_patches(debugger: Debugger, registry: Registry) -> PatchSummary:
    """The places of each mechanism, of which there are more than anybody reads one by one."""
    session = debugger.session
    session.patches.need_listed()
    ledger = session.ledger
    if isinstance(ledger, PatchLedger):
        return PatchSummary([_counted(each) for each in ledger.passes])
    counts = Counter(site.mechanism for cluster in ledger.clusters() for site in cluster.sites)
    return PatchSummary([MechanismSites(mechanism, count) for mechanism, count in counts.items()])


def _counted(the_pass: PatchPass) -> MechanismSites:
    try:
        return MechanismSites(the_pass.mechanism, len(the_pass.spans().starts))
    except CANNOT_TELL:
        return MechanismSites(the_pass.mechanism, None)


_BLOCKED = "foreach UN bt --group"
# Commands that show the memory or the arguments of processes are none of them: user memory is never in a report.
_COMMANDS: Sequence[tuple[ReportPart, Sequence[tuple[str, Ask]]]] = (
    (ReportPart.ANALYSIS, (_run("analyze -v"),)),
    (ReportPart.CRASHING_STACK, (_run("bt -p -l"),)),
    (ReportPart.CPUS, (_run("bt -a"),)),
    (ReportPart.BLOCKED, ((_BLOCKED, _blocked),)),
    (ReportPart.PATCHES, (("patch list", summarize_patches),)),
    (ReportPart.LOG, (_run("log"),)),
    (ReportPart.MODULES, (_run("mod"), _run("sys -t"))),
    (ReportPart.MACHINE, (_run("sys"),)),
)


def document_form(path: str) -> DocumentForm:
    """The form that a file's suffix chooses; UsageError for any other suffix."""
    for form in DocumentForm:
        if path.lower().endswith(form.value):
            return form
    raise UsageError(f"{path}: its suffix does not say what to write", "name it .html, .md or .txt")


def make_report(debugger: Debugger, registry: Registry, files: Sequence[str], words: Sequence[str]) -> Report:
    """Asks the session everything that a report holds; what cannot be had costs nothing but itself.

    Args:
        debugger: a session that nothing was selected in.
        registry: the commands.
        files: the files that the session was opened from.
        words: the command line.
    """
    parts = [(part, [_answer(debugger, registry, *one) for one in asked]) for part, asked in _COMMANDS]
    return Report(parts, files, words, list(debugger.session.warnings))


def _answer(debugger: Debugger, registry: Registry, line: str, ask: Ask) -> PartAnswer:
    try:
        return PartAnswer(line, ask(debugger, registry))
    except OrcdbgError as error:
        return PartAnswer(line, None, error)

"""How does a report look: as a page, as Markdown, as text? All are made of the lines that commands print.

Whatever the snapshot put into a line is text: `safe` leaves no control character and no sign that turns the direction of
writing, and each form escapes its own signs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from orcdbg import __version__
from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.analyze import Analyzed
from orcdbg.commands.folded import folded_frames
from orcdbg.commands.report import DocumentForm, PartAnswer, PatchSummary, Report, ReportPart, WrittenReport
from orcdbg.commands.stacks import StackGroups
from orcdbg.views.analyze import title_of
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.columns import columns
from orcdbg.views.flame_graph import flame_graph
from orcdbg.views.page import Line, line
from orcdbg.views.reasons import message_of
from orcdbg.views.view import Json, Width, view

TITLES = {
    ReportPart.ANALYSIS: "What it died of",
    ReportPart.CRASHING_STACK: "The crashing stack",
    ReportPart.CPUS: "Every CPU",
    ReportPart.BLOCKED: "Blocked tasks",
    ReportPart.PATCHES: "Patches",
    ReportPart.LOG: "Log",
    ReportPart.MODULES: "Modules and taint",
    ReportPart.MACHINE: "Machine",
}


def heading(report: Report) -> tuple[str, str | None]:
    """What it died of in a line, and the signature."""
    found = report.answer(ReportPart.ANALYSIS, Analyzed)
    if not isinstance(found, Analyzed):
        return "Report of a kernel", None
    return title_of(found.analysis), found.analysis.signature


def made_by(report: Report) -> Iterator[tuple[str, str]]:
    """What the report was made with: labels and values."""
    yield "made with", f"orcdbg {__version__}"
    yield "command line", shlex.join(report.words)
    for file in report.files:
        yield "file", file
    for warning in report.warnings:
        yield "warning", warning


def answer_lines(answer: PartAnswer) -> list[Line]:
    """An answer's lines; what cannot be shown says why."""
    if answer.result is None:
        return [_why_not(answer.problem)]
    if isinstance(answer.result, StackGroups) and not answer.result.groups:
        return [line(("no task is in uninterruptible sleep", "note"))]
    try:
        return list(lines_of(answer.result, None))
    except OrcdbgError as error:
        # Some answers read memory only while they are written.
        return [_why_not(error)]


def _why_not(error: OrcdbgError | None) -> Line:
    return line(("! ", "doubt"), "not in this report: " + ("no answer" if error is None else message_of(error)))


def graph_of(answers: Sequence[PartAnswer]) -> str:
    """The flame graph of groups of tasks among the answers, as SVG; empty without."""
    groups = [group for answer in answers if isinstance(answer.result, StackGroups) for group in answer.result.groups]
    return flame_graph([(folded_frames(group.trace), len(group.pids)) for group in groups])


def document(report: Report, form: DocumentForm) -> str:
    """The report as a file's text."""
    if form is DocumentForm.HTML:
        from orcdbg.views.report_page import page_of

        return page_of(report)
    from orcdbg.views.report_text import markdown_of, text_of

    return markdown_of(report) if form is DocumentForm.MARKDOWN else text_of(report)


def _patch_lines(result: PatchSummary, width: Width) -> Iterator[Line]:
    rows = [("cannot be told" if one.sites is None else one.sites, one.mechanism) for one in result.passes]
    yield from columns((">PLACES", "MECHANISM"), rows)
    yield line(("`patch audit` accounts for every byte of text", "note"))


def _patch_json(result: PatchSummary) -> Json:
    return {"passes": [{"mechanism": one.mechanism, "sites": one.sites} for one in result.passes]}


def _lines(result: Report, width: Width) -> Iterator[Line]:
    from orcdbg.views.report_text import report_lines

    yield from report_lines(result)


def _json(result: Report) -> Json:
    parts = {
        part.value: [{"command": one.command, **_answer_json(one)} for one in answers] for part, answers in result.parts
    }
    return {"files": list(result.files), "parts": parts}


def _answer_json(answer: PartAnswer) -> Json:
    if answer.result is None:
        return {"result": None, "problem": None if answer.problem is None else message_of(answer.problem)}
    return {"result": encode(answer.result), "problem": None}


def _written_lines(result: WrittenReport, width: Width) -> Iterator[Line]:
    yield line(f"{result.path}: {result.size} bytes")
    for part, answer in result.missing:
        why = "" if answer.problem is None else message_of(answer.problem)
        yield line(("! ", "doubt"), f"{TITLES[part]}: {answer.command}: {why}")


def _written_json(result: WrittenReport) -> Json:
    missing = [
        {"part": part.value, "command": answer.command, "why": message_of(answer.problem) if answer.problem else None}
        for part, answer in result.missing
    ]
    return {"path": result.path, "size": result.size, "missing": missing}


view(PatchSummary, text=_patch_lines, json=_patch_json)
view(Report, text=_lines, json=_json)
view(WrittenReport, text=_written_lines, json=_written_json)

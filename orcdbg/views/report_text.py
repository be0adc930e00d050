"""How does a report look in a ticket: as Markdown, or as plain text?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from orcdbg.commands.report import Report
from orcdbg.views.page import Line, line, plain, safe
from orcdbg.views.report import TITLES, answer_lines, heading, made_by


def report_lines(report: Report) -> Iterator[Line]:
    """The whole report, part by part."""
    title, signature = heading(report)
    yield line((title, "header"))
    if signature is not None:
        yield line(("signature: ", "label"), signature)
    for part, answers in report.parts:
        yield []
        yield line((TITLES[part], "header"))
        yield line(("=" * len(TITLES[part]), "header"))
        for answer in answers:
            yield line(("orcdbg> ", "label"), answer.command)
            yield from answer_lines(answer)
    yield []
    yield line(("This report", "header"))
    yield line(("===========", "header"))
    for label, value in made_by(report):
        yield line((f"{label}: ", "label"), value)


def text_of(report: Report) -> str:
    """The report as plain text."""
    return plain(report_lines(report))


_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&@:])")


def _escaped(text: str) -> str:
    """Text that Markdown takes for no sign of its own: no emphasis, no link, no tag, no mention of a person."""
    return _MARKDOWN.sub(r"\\\1", safe(text))


def _block(text: str) -> str:
    """A block of code whose fence is longer than any row of backticks in it."""
    longest = max((len(row) for row in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}{fence}\n"


def markdown_of(report: Report) -> str:
    """The report as Markdown: what comes from the snapshot stands in blocks of code, but for the title."""
    title, signature = heading(report)
    pieces = [f"# {_escaped(title)}\n"]
    if signature is not None:
        pieces.append(_block(plain([line("signature: ", signature)])))
    for part, answers in report.parts:
        pieces.append(f"## {TITLES[part]}\n")
        for answer in answers:
            shown = line("orcdbg> ", answer.command)
            pieces.append(_block(plain([shown, *answer_lines(answer)])))
    pieces.append("## This report\n")
    pieces.append(_block(plain(line(f"{label}: ", value) for label, value in made_by(report))))
    return "\n".join(pieces)

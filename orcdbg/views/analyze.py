"""How does an analysis look?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orcdbg.analysis.analysis import Analysis
from orcdbg.analysis.findings import Finding, FindingKind
from orcdbg.analysis.head import HeadPoint
from orcdbg.commands.analyze import Analyzed
from orcdbg.views.finding_words import CERTAINTIES, words_of
from orcdbg.views.page import Line, fold, line
from orcdbg.views.view import Json, Width, hexadecimal, view

_TITLES = {
    HeadPoint.MESSAGE: "Message",
    HeadPoint.CONTEXT: "Context",
    HeadPoint.INSTRUCTION: "Instruction",
    HeadPoint.POINTERS: "Pointers",
    HeadPoint.TEXT: "Text",
    HeadPoint.FRAME: "First frame outside",
    HeadPoint.CPUS: "CPUs",
    HeadPoint.BLOCKED: "Blocked",
    HeadPoint.MEMORY: "Memory",
    HeadPoint.LOG: "Log",
}
_EVIDENCE_SHOWN = 1 << 10  # characters of one piece
_TITLE = 160


def title_of(analysis: Analysis) -> str:
    """The death in a line."""
    if analysis.cause is not None:
        return words_of(analysis.cause)[:_TITLE]
    stated = [finding for findings in analysis.head.values() for finding in findings]
    for kind in (FindingKind.MESSAGE, FindingKind.ANNOUNCED, FindingKind.NO_DEATH):
        found = next((finding for finding in stated if finding.kind is kind), None)
        if found is not None:
            return words_of(found)[:_TITLE]
    return "not known"


def _lines(result: Analyzed, width: Width) -> Iterator[Line]:
    analysis = result.analysis
    yield from fold(line((title_of(analysis), "header")), width, 2)
    if analysis.signature is not None:
        yield from fold(line(("signature: ", "label"), analysis.signature), width, 11)
    if analysis.findings:
        yield []
        yield line(("What it died of" if analysis.cause is not None else "What was found", "header"))
        yield from _findings(analysis.findings, result.verbose, width)
    for point, findings in analysis.head.items():
        if findings:
            yield []
            yield line((_TITLES[point], "header"))
            yield from _findings(findings, result.verbose, width)
    if analysis.unknown:
        yield []
        yield line(("Not known", "header"))
        for unknown in analysis.unknown:
            yield from fold(line("  ", (unknown.what, "label"), f": {unknown.why}"), width, 4)


def _findings(findings: Sequence[Finding], verbose: bool, width: Width) -> Iterator[Line]:
    for finding in findings:
        word = CERTAINTIES[finding.certainty]
        yield from fold(line("  ", (f"{word:<11}", "mark"), words_of(finding)), width, 13)
        if verbose:
            for evidence in finding.evidence:
                shown = line(" " * 13, (evidence.text[:_EVIDENCE_SHOWN], "note"), ("   < ", "label"), evidence.command)
                yield from fold(shown, width, 15)


def _json(result: Analyzed) -> Json:
    analysis = result.analysis
    return {
        "title": title_of(analysis),
        "signature": analysis.signature,
        "cause": None if analysis.cause is None else _finding(analysis.cause),
        "findings": [_finding(finding) for finding in analysis.findings],
        "head": {point.value: [_finding(finding) for finding in found] for point, found in analysis.head.items()},
        "unknown": [{"what": unknown.what, "why": unknown.why} for unknown in analysis.unknown],
    }


def _finding(finding: Finding) -> Json:
    return {
        "kind": finding.kind.value,
        "certainty": finding.certainty.value,
        "text": words_of(finding),
        "evidence": [{"text": one.text, "command": one.command} for one in finding.evidence],
        "addresses": [hexadecimal(address) for address in finding.addresses],
    }


view(Analyzed, text=_lines, json=_json)

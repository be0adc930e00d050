"""How do the groups of many dumps look?"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from orcdbg.commands.triage import TriageResult
from orcdbg.triage.groups import DumpGroup, GroupKind
from orcdbg.triage.records import DumpRecord, Outcome, to_json
from orcdbg.views.page import Line, fold, line, problem_lines
from orcdbg.views.view import Json, Width, view

_MOST_RELEASES = 4
_INDENT = 7

_KINDS = {
    GroupKind.NOT_KNOWN: "not known",
    GroupKind.NO_DEATH: "no panic or oops is recorded",
}


def words_of_group(group: DumpGroup) -> str:
    """What the dumps of a group have in common."""
    if group.key.kind is GroupKind.SIGNATURE:
        return group.key.word
    if group.key.kind is GroupKind.FAILED:
        return f"failed: {group.key.word}"
    return _KINDS[group.key.kind]


def words_of_record(record: DumpRecord) -> str:
    """A dump in a line."""
    if record.failure is not None:
        return record.failure.message
    if record.outcome is Outcome.DUPLICATE:
        return f"the same bytes as {record.duplicate_of}"
    return record.title or "not known"


def day(seconds: int | None) -> str:
    """A date, to the minute."""
    if seconds is None:
        return "-"
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "-"


def releases_of(group: DumpGroup) -> str:
    """The releases of a group's kernels."""
    names = list(group.releases)
    shown = ", ".join(names[:_MOST_RELEASES])
    more = f" and {len(names) - _MOST_RELEASES} more" if len(names) > _MOST_RELEASES else ""
    return f"{shown}{more}" or "-"


def certainties_of(group: DumpGroup) -> str:
    """How sure the causes are, such as `3 derived`; empty where there is none."""
    return ", ".join(f"{count} {word}" for word, count in group.certainties.items())


def summary(result: TriageResult) -> str:
    """All dumps in a line."""
    counts = [f"{result.count(Outcome.ANALYZED)} analyzed"]
    counts.append(counted(result.count(Outcome.DUPLICATE), "duplicate"))
    counts.append(f"{result.count(Outcome.FAILED)} failed")
    return f"{counted(len(result.records), 'dump')}: {', '.join(counts)}"


def counted(count: int, thing: str) -> str:
    """So many things."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _lines(result: TriageResult, width: Width) -> Iterator[Line]:
    yield line((summary(result), "header"))
    if result.kept:
        yield line((f"{result.kept} of them in an earlier run", "note"))
    if result.undone:
        yield line(("! ", "doubt"), f"interrupted: not looked at: {counted(result.undone, 'dump')}")
    if result.passed_over:
        yield line((f"passed over in folders, since they are no dumps: {counted(result.passed_over, 'file')}", "note"))
    if result.groups:
        yield []
        yield line(("COUNT  FIRST             LAST              RELEASES", "label"))
    for group in result.groups:
        yield from _group_lines(group, result, width)
    if result.output is not None:
        yield line(("records: ", "label"), result.output)
    if result.report is not None:
        yield line(("pages: ", "label"), f"{result.report}/index.html")
    yield from problem_lines(result.problems)


def _group_lines(group: DumpGroup, result: TriageResult, width: Width) -> Iterator[Line]:
    count = len(group.records)
    head = f"{count:>5}  {day(group.first):<16}  {day(group.last):<16}  {releases_of(group)}"
    yield from fold(line(head), width, 43)
    style = "doubt" if group.key.kind is GroupKind.FAILED else "symbol"
    yield from fold(line(" " * _INDENT, (words_of_group(group), style)), width, _INDENT + 2)

    exemplar = group.exemplar
    notes = [certainties_of(group)] if group.certainties else []
    if group.duplicates:
        notes.append(f"{counted(group.duplicates, 'more file')} with the same bytes")
    words = words_of_record(exemplar)
    said = line(" " * _INDENT, words if words != words_of_group(group) else "")
    if notes:
        said += line((f"  ({'; '.join(notes)})", "note"))
    if any(piece.text.strip() for piece in said):
        yield from fold(said, width, _INDENT + 2)
    yield from fold(line(" " * _INDENT, (exemplar.dump, "note")), width, _INDENT + 2)


def _group_json(group: DumpGroup, result: TriageResult) -> Json:
    exemplar = group.exemplar
    pages = result.pages or {}
    return {
        "kind": group.key.kind.value,
        "signature": group.key.word if group.key.kind is GroupKind.SIGNATURE else None,
        "failure": group.key.word if group.key.kind is GroupKind.FAILED else None,
        "count": len(group.records),
        "duplicates": group.duplicates,
        "first": group.first,
        "last": group.last,
        "releases": dict(group.releases),
        "certainties": dict(group.certainties),
        "exemplar": to_json(exemplar),
        "page": pages.get(exemplar.dump),
    }


def _json(result: TriageResult) -> Json:
    return {
        "dumps": len(result.records),
        **{outcome.value: result.count(outcome) for outcome in Outcome},
        "kept": result.kept,
        "undone": result.undone,
        "passed_over": result.passed_over,
        "images": result.images,
        "groups": [_group_json(group, result) for group in result.groups],
        "output": result.output,
        "report": result.report,
        "problems": list(result.problems),
    }


view(TriageResult, text=_lines, json=_json)

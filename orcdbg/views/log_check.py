"""How does a stack look beside the trace that the kernel printed of it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.log_check import ComparedLine, LogCheck, LogChecks, RowStatus
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.reasons import words_or_none
from orcdbg.views.view import Width, view

_WORDS = {
    RowStatus.SAME: "",
    RowStatus.GUESS: "the log has it after a ?",
    RowStatus.DOUBT: "marked here",
    RowStatus.RETURNED: "had returned when the machine stopped",
    RowStatus.SINCE: "called since",
    RowStatus.STALE: "",
    RowStatus.BEYOND: "past the end of the trace",
    RowStatus.MISSING: "NOT AMONG OUR FRAMES",
    RowStatus.OMITTED: "the kernel's own rows leave it out",
    RowStatus.EXTRA: "NOT IN THE LOG",
    RowStatus.UNCOMPARED: "nothing here to compare with",
}


def checks_lines(result: LogChecks, width: Width) -> Iterator[Line]:
    """Two columns a stack, and what it comes to."""
    for check in result.checks:
        yield from _check_lines(check)
    for task in result.without:
        yield line((f'PID {task.pid} "{task.comm}": the log has no trace of it', "note"))
    yield from problem_lines(result.problems)


def _check_lines(check: LogCheck) -> Iterator[Line]:
    trace, printed = check.trace, check.printed
    seconds = f"{printed.time / 1e9:.6f}"
    yield line((f'PID: {trace.pid}  COMMAND: "{trace.comm}"  trace printed at {seconds} s', "header"))
    rows = [row for row in check.rows if row.status is not RowStatus.STALE]
    column = max([len(_printed(row)) for row in rows] + [12])
    yield line((f"      {'in the log':<{column}}  here", "label"))
    for row in rows:
        style = "doubt" if row.contradicts else "mark" if row.status is RowStatus.GUESS else ""
        number = f"{row.frame.mark.value}#{row.frame.index} " if row.frame else ""
        word = _WORDS[row.status]
        yield line(
            ("!!    " if row.contradicts else "      ", "doubt"),
            f"{_printed(row):<{column}}  ",
            (f"{number}{row.name or ''}", "symbol"),
            (f"{'   ' if row.name else ''}{word}" if word else "", style),
        )
    counts = {status: sum(row.status is status for row in check.rows) for status in _WORDS}
    stale = f", {counts[RowStatus.STALE]} stale `?` in the log" if counts[RowStatus.STALE] else ""
    summary = f"{counts[RowStatus.SAME]} the same, {counts[RowStatus.GUESS]} that the log only guesses{stale}."
    yield line(summary, (f" {_verdict(check)}", "" if check.agrees else "doubt"))


def _verdict(check: LogCheck) -> str:
    if check.contradictions:
        return f"{check.contradictions} CONTRADICT THE LOG."
    if check.agrees:
        return "No contradiction."
    if not check.trace.frames:
        why = f": {words_or_none(check.trace.end_reason) or 'no reason known'}"
        return f"NOTHING WAS COMPARED, since this stack has no frames{why}."
    return "NOTHING WAS COMPARED: no frame that is sure is in the log's trace."


def _printed(row: ComparedLine) -> str:
    if row.printed is None:
        return "-"
    before = "RIP: " if row.printed.is_rip else "" if row.printed.sure else "? "
    return before + row.printed.name


def checks_json(result: LogChecks) -> dict[str, Any]:
    """LOGCHECKS of the contract."""
    return {
        "checks": [_check(one) for one in result.checks],
        "without": [task.pid for task in result.without],
        "problems": list(result.problems),
    }


def _check(check: LogCheck) -> dict[str, Any]:
    return {
        "task": f"{check.trace.task:#x}",
        "pid": check.trace.pid,
        "comm": check.trace.comm,
        "cpu": check.printed.cpu,
        "time": check.printed.time,
        "agrees": check.agrees,
        "compared": check.compared,
        "contradictions": check.contradictions,
        "rows": [_row(row) for row in check.rows],
    }


def _row(row: ComparedLine) -> dict[str, Any]:
    return {
        "status": row.status.value,
        "printed": row.printed.name if row.printed else None,
        "sure": row.printed.sure if row.printed else None,
        "index": row.frame.index if row.frame else None,
        "ours": row.name,
    }


view(LogChecks, text=checks_lines, json=checks_json)

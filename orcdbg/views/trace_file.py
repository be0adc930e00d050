"""How is a trace.dat that was written described?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.trace_file import TraceFile
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, view


def _lines(result: TraceFile, width: Width) -> Iterator[Line]:
    count = sum(records for _, records in result.records)
    plural = "record" if count == 1 else "records"
    yield line(f"{result.path}: {count} {plural} of the trace {result.instance}, {result.events} kinds described")
    for cpu, records in result.records:
        yield line((f"  CPU {cpu}: {records}", "label"))
    yield from problem_lines(result.problems)


def _json(result: TraceFile) -> Json:
    return {
        "path": result.path,
        "instance": result.instance,
        "size": result.size,
        "records": [{"cpu": cpu, "records": records} for cpu, records in result.records],
        "events": result.events,
        "problems": list(result.problems),
    }


view(TraceFile, text=_lines, json=_json)

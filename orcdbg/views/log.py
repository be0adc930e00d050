"""How do the records of the kernel's log look?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.log import Log
from orcdbg.kernel.log import LogRecord
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Width, view

_WARNING = 4


def log_lines(result: Log, width: Width) -> Iterator[Line]:
    """A line of text each, in front of it the time since the boot began, in seconds."""
    for record in result.records:
        seconds, rest = divmod(record.time, 1_000_000_000)
        for text in record.text.split("\n"):
            style = "doubt" if record.level < _WARNING else ""
            yield line((f"[{seconds:>5}.{rest // 1000:06}] ", "label"), (text, style))
    yield from problem_lines(result.problems)


def log_json(result: Log) -> dict[str, Any]:
    """LOG of the contract."""
    return {"records": [_record(record) for record in result.records], "problems": list(result.problems)}


def _record(record: LogRecord) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "time": record.time,
        "level": record.level,
        "facility": record.facility,
        "caller": record.caller,
        "text": record.text,
    }


view(Log, text=log_lines, json=log_json)

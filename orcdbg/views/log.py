"""How do the records of the kernel's log look?"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from orcdbg.commands.log import AuditLog, Log
from orcdbg.kernel.log import LogRecord
from orcdbg.views.page import Line, Piece, line, problem_lines
from orcdbg.views.view import Width, view

_WARNING = 4
_SECOND = 1_000_000_000
_FROM_USER = "[user] "


def log_lines(result: Log, width: Width) -> Iterator[Line]:
    """A line of text each, in front of it the time since the boot began, in seconds; what a program wrote says so."""
    for record in result.records:
        before = list(_before(result, record))
        for text in record.text.split("\n"):
            style = "doubt" if record.level < _WARNING else ""
            yield [*before, Piece(text, style)]
        if result.columns.device:
            for label, value in (("SUBSYSTEM", record.subsystem), ("DEVICE", record.device)):
                yield from [line((f" {label}=", "label"), value)] if value else []
    for unflushed in result.unflushed:
        style = "doubt" if unflushed.level < _WARNING else ""
        yield line((f"[{unflushed.buffer} of CPU {unflushed.cpu}] ", "label"), (unflushed.text, style))
    yield from problem_lines(result.problems)


def _before(result: Log, record: LogRecord) -> Iterator[Piece]:
    columns = result.columns
    if columns.level:
        yield Piece(f"<{record.facility << 3 | record.level}>", "label")
    if columns.time:
        yield Piece(f"[{_time(result, record)}] ", "label")
    if columns.caller:
        yield Piece(f"[{record.caller or '-':>6}] ", "label")
    if record.is_from_user_space:
        yield Piece(_FROM_USER, "note")


def _time(result: Log, record: LogRecord) -> str:
    seconds, rest = divmod(record.time, _SECOND)
    if result.columns.date and result.boot_date is not None:
        try:
            # Whole seconds: the log's clock and the wall clock drift apart, and are set against each other by NTP.
            moment = datetime.datetime.fromtimestamp((result.boot_date + record.time) // _SECOND, datetime.UTC)
            return moment.strftime("%a %b %d %H:%M:%S UTC %Y")
        except (OverflowError, ValueError, OSError):
            pass  # a damaged time
    return f"{seconds:>5}.{rest // 1000:06}"


def log_json(result: Log) -> dict[str, Any]:
    """LOG of the contract."""
    return {
        "records": [_record(record) for record in result.records],
        "boot_date": result.boot_date,
        "unflushed": [
            {"buffer": one.buffer, "cpu": one.cpu, "level": one.level, "text": one.text} for one in result.unflushed
        ],
        "problems": list(result.problems),
    }


def _record(record: LogRecord) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "time": record.time,
        "level": record.level,
        "facility": record.facility,
        "from_user": record.is_from_user_space,
        "caller": record.caller,
        "subsystem": record.subsystem,
        "device": record.device,
        "text": record.text,
    }


def _audit_lines(result: AuditLog, width: Width) -> Iterator[Line]:
    for message in result.messages:
        yield line((f"{message.queue} type={message.type} ", "label"), message.text)
    if not result.messages and not result.problems:
        yield line(("no messages: all were read, or audit is off", "note"))
    yield from problem_lines(result.problems)


def _audit_json(result: AuditLog) -> dict[str, Any]:
    messages = [{"queue": message.queue, "type": message.type, "text": message.text} for message in result.messages]
    return {"messages": messages, "problems": list(result.problems)}


view(Log, text=log_lines, json=log_json)
view(AuditLog, text=_audit_lines, json=_audit_json)

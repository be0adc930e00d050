"""log: what the kernel printed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.kernel.audit_queues import AuditMessage, read_audit
from orcdbg.kernel.log import LogRecord, read_log
from orcdbg.kernel.unflushed_log import UnflushedLine, read_unflushed
from orcdbg.subsystems.machine import boot_date

# include/linux/kern_levels.h, by number.
LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_OTHER_WORDS = {"panic": 0, "error": 3, "warning": 4}


@dataclass(frozen=True, slots=True)
class LogColumns:
    """What a line of the log says beside its text."""

    time: bool = True
    date: bool = False
    level: bool = False
    caller: bool = False
    device: bool = False


@dataclass(frozen=True, slots=True)
class Log(Result):
    """Records of the kernel's log, oldest first; `boot_date` in ns since 1970, None where nobody asked or it is unknown.

    `unflushed` are lines that no CPU had moved into the log yet.
    """

    records: Sequence[LogRecord]
    problems: Sequence[str]
    columns: LogColumns = LogColumns()
    boot_date: int | None = None
    unflushed: Sequence[UnflushedLine] = ()


@dataclass(frozen=True, slots=True)
class AuditLog(Result):
    """Audit messages that no reader had got."""

    messages: Sequence[AuditMessage]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", metavar="LEVEL", help="as -l; also a word: " + ", ".join(LEVELS))
    parser.add_argument("-n", "--last", type=int, metavar="N", help="only the last N records")
    parser.add_argument(
        "-l", "--level", metavar="LEVEL", help="only records of this level (0 to 7, or its word) or more urgent"
    )
    parser.add_argument(
        "-T", "--dates", action="store_true", help="the date and time of day, in UTC, in place of seconds"
    )
    parser.add_argument("-t", "--no-time", action="store_true", help="no time")
    parser.add_argument("-m", "--show-level", action="store_true", help="the level in front of each line, such as <6>")
    parser.add_argument("-c", "--caller", action="store_true", help="the task (T) or CPU (C) that printed it")
    parser.add_argument("-d", "--device", action="store_true", help="the subsystem and device that a record is about")
    parser.add_argument("-a", "--audit", action="store_true", help="the audit messages that no reader had got")


def level_number(word: str) -> int:
    """The level that a number or a word names; UsageError for any other word."""
    if word in _OTHER_WORDS:
        return _OTHER_WORDS[word]
    if word in LEVELS:
        return LEVELS.index(word)
    if word.isdecimal() and int(word) < len(LEVELS):
        return int(word)
    raise UsageError(f"not a level: {word}", "0 to 7, or one of " + ", ".join(LEVELS), word=word)


def _limit(arguments: argparse.Namespace) -> int | None:
    words = [word for word in (arguments.word, arguments.level) if word is not None]
    if len(words) > 1:
        raise UsageError("two levels", "for example: log err")
    return level_number(words[0]) if words else None


@command(
    "log",
    summary="show the kernel's log",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("dmesg",),
    examples=(
        ("log -n 20", "the last 20 records"),
        ("log err", "errors and worse"),
        ("log -T -c", "with dates, and who printed"),
        ("log -a", "audit messages that nobody had read"),
    ),
)
def log(debugger: Debugger, arguments: argparse.Namespace) -> Log | AuditLog:
    """Answers with the records that the options leave."""
    linux = debugger.session.linux
    if arguments.last is not None and arguments.last <= 0:
        raise UsageError(f"not a number of records: {arguments.last}", "for example: log -n 20")
    if arguments.no_time and arguments.dates:
        raise UsageError("-t and -T contradict each other")
    limit = _limit(arguments)

    if arguments.audit:
        messages, problems = read_audit(linux)
        return AuditLog(messages[-arguments.last :] if arguments.last else messages, problems)

    records, problems = read_log(linux)
    chosen = [record for record in records if limit is None or record.level <= limit]
    date = None
    if arguments.dates:
        try:
            date = boot_date(debugger.session.program)
        except OrcdbgError as error:
            problems = [*problems, f"no dates, but seconds since the boot began: {error}"]
    columns = LogColumns(
        not arguments.no_time, date is not None, arguments.show_level, arguments.caller, arguments.device
    )
    unflushed, more_problems = read_unflushed(linux)
    return Log(
        chosen[-arguments.last :] if arguments.last else chosen,
        [*problems, *more_problems],
        columns,
        date,
        [text for text in unflushed if limit is None or text.level <= limit],
    )

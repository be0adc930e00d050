"""log: what the kernel printed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.kernel.log import LogRecord, read_log


@dataclass(frozen=True, slots=True)
class Log(Result):
    """Records of the kernel's log, oldest first."""

    records: Sequence[LogRecord]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--last", type=int, metavar="N", help="only the last N records")
    parser.add_argument(
        "-l", "--level", type=int, metavar="LEVEL", help="only records of this level (0 to 7) or more urgent"
    )


@command(
    "log",
    summary="show the kernel's log",
    group="machine",
    arguments=_arguments,
    aliases=("dmesg",),
    examples=(("log -n 20", "the last 20 records"), ("log -l 3", "errors and worse")),
)
def log(debugger: Debugger, arguments: argparse.Namespace) -> Log:
    """Answers with the records that the options leave."""
    if arguments.last is not None and arguments.last <= 0:
        raise UsageError(f"not a number of records: {arguments.last}", "for example: log -n 20")
    records, problems = read_log(debugger.session.linux)
    chosen = [record for record in records if arguments.level is None or record.level <= arguments.level]
    return Log(chosen[-arguments.last :] if arguments.last else chosen, problems)

"""Which lines of the kernel are in a text that somebody pasted: of a console, a mail, a bug tracker?

Quote marks, timestamps, levels, syslog's heads and colours are taken off, and lines that a mailer broke are joined where the
first part alone makes no sense. What a program wrote cannot be told from the kernel's lines, unless a level says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.kernel.log import LogRecord

# A console of days has some 10^5 lines; each is looked at by some ten patterns.
MAX_BYTES = 16 << 20
MAX_LINES = 1 << 17
MAX_LINE = 4096  # characters of a line that are kept
_MAX_PREFIXES = 8
_MAX_JOINED = 16  # parts of a line
_USERS_FACILITY = 8  # the lowest number of a level with a facility that is not the kernel's

_ESCAPE = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]")
_LEVEL = re.compile(r"<(\d{1,3})>")
_TIME = re.compile(r"\[ {0,12}(\d{1,12})\.(\d{6})\](?: |$|(?=\[))")
_CALLER = re.compile(r"\[ {0,12}([TC]\d{1,9})\] ")
_PREFIXES = (
    re.compile(r"(?:> ?)+"),
    re.compile(r"\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\] ?"),
    re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S{1,64} kernel: ?"),
    re.compile(r"\d{4}-\d\d-\d\dT\S{8,32} \S{1,64} kernel: ?"),
    re.compile(r"kern {0,2}:\w{1,8} {0,4}: "),
)
# What a line that was broken begins with, and what its rest looks like.
_BROKEN: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(begin), re.compile(rest))
    for begin, rest in (
        (r"Code: ", r"(?:<?\(?[0-9a-f]{2}\)?>?(?: |$))+$"),
        (r"\s*(?:\? )?[\w.$]+\+0x[0-9a-f]+/0x[0-9a-f]+\s*$", r"\[\w+(?:[( ][\w() +-]*)?\]$"),
        (r"RIP: [0-9a-f]{4}:\s*$", r"\S+"),
        (
            r"(?:RSP|R[ADX]X|RDX|RBP|R1[03]|FS|CS|CR2): ",
            r"(?:RBX|RCX|R[SD]I|R0[89]|R1[1245]|CR[034]|EFLAGS|ORIG_RAX|GS|knlGS|[DE]S):",
        ),
        (r"(?:RSP|R[ADX]X|RDX|RBP|R1[03]|FS|CS|CR2): .*:\s*$", r"(?:[0-9a-f]{4}:)?[0-9a-f]{8,16}\b"),
        (r"\s*\?$", r"[\w.$]+\+0x"),
        (r".*(?:address|at|address:|at:)\s*$", r"(?:0x)?[0-9a-f]{1,16}\b"),
        (r"Modules linked in:", r"(?:\w+(?:\([A-Z+-]{1,16}\))?(?: |$))+(?:\[last unloaded: .*)?$"),
        (r"CPU: \d+ (?!.*ainted.* \d+\.\d+\S* #\d)", r"(?!RIP|Hardware|Call Trace|Code:).*(?:ainted|#\d)"),
        (r"(?:BUG|INFO|WARNING|watchdog|Kernel panic)\b.*(?:for more|stuck for|for|than|not)\s*$", r"\S+"),
    )
)


@dataclass(frozen=True, slots=True)
class PastedText:
    """A pasted text.

    Attributes:
        records: the kernel's lines; `seq` and `time` are both the line's number in the text, from 1.
        problems: what was left out.
    """

    records: list[LogRecord]
    problems: list[str]


@dataclass(slots=True)
class _Open:
    """A line that may go on."""

    number: int
    text: str
    facility: int
    caller: str | None
    parts: int = 1


def read_pasted(data: bytes) -> PastedText:
    """The kernel's lines in a text.

    Raises:
        UnsupportedFormat: it is no text, or empty.
    """
    problems = []
    if len(data) > MAX_BYTES:
        problems.append(f"only the first {MAX_BYTES >> 20} MiB of the text are looked at")
    if b"\0" in data[:MAX_LINE]:
        raise UnsupportedFormat("the text", "not a text: it has bytes of 0 in it")
    lines = data[:MAX_BYTES].decode("utf-8", "backslashreplace").split("\n")
    if len(lines) > MAX_LINES:
        problems.append(f"only the first {MAX_LINES} lines of the text are looked at")
    if not any(line.strip() for line in lines[:MAX_LINES]):
        raise UnsupportedFormat("the text", "empty", "paste the report on standard input: orcdbg decode < oops.txt")
    return PastedText(list(_records(lines[:MAX_LINES])), problems)


def _records(lines: list[str]) -> Iterator[LogRecord]:
    open_line: _Open | None = None
    for number, raw in enumerate(lines, 1):
        line = _cleaned(raw, number)
        if open_line is not None and open_line.parts < _MAX_JOINED and _goes_on(open_line.text, line.text):
            open_line.text = f"{open_line.text.rstrip()} {line.text.strip()}"[:MAX_LINE]
            open_line.parts += 1
            continue
        if open_line is not None:
            yield _record(open_line)
        open_line = line
    if open_line is not None:
        yield _record(open_line)


def _record(line: _Open) -> LogRecord:
    return LogRecord(line.number, line.number, 6, line.facility, line.caller, line.text)


def _goes_on(text: str, rest: str) -> bool:
    stripped = rest.strip()
    return bool(stripped) and any(begin.match(text) and goes.match(stripped) for begin, goes in _BROKEN)


def _cleaned(raw: str, number: int) -> _Open:
    """A line without what stands in front of the kernel's words."""
    text = _ESCAPE.sub("", raw[:MAX_LINE].rstrip("\r"))
    facility, caller = 0, None
    for _ in range(_MAX_PREFIXES):
        # A trace's lines begin with a blank of their own, behind that which the timestamp ends with.
        stripped = text.lstrip()
        level, time, who = _LEVEL.match(stripped), _TIME.match(stripped), _CALLER.match(stripped)
        if level is not None:
            facility = int(level[1]) // _USERS_FACILITY
            text = stripped[level.end() :]
        elif time is not None:
            text = stripped[time.end() :]
        elif who is not None:
            caller = who[1]
            text = stripped[who.end() :]
        else:
            found = next((match for each in _PREFIXES if (match := each.match(stripped))), None)
            if found is None:
                break
            text = stripped[found.end() :]
    return _Open(number, text, facility, caller)

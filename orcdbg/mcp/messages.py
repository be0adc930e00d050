"""What do the server and the process that has a snapshot say to each other?

One line of JSON each: a `Opening`, then a `Question` at a time, and a `Reply` to each of them. No line holds more than
`MAX_LINE` bytes.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FIRST_COMMAND = "sys"
"""What is answered when a snapshot was opened."""
MAX_ANSWER = 4 << 20
"""Characters of an answer: some thousand pages of a book. What is longer is cut, and says so."""
MAX_LINE = 12 * MAX_ANSWER
"""Bytes of a message, in which a character may be an escape of 12 bytes."""


class Form(enum.Enum):
    """How an answer is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Opening:
    """The files of a snapshot.

    Attributes:
        files: vmlinux and snapshot, in any order; `demo` for the sample.
        modules: folders with modules' files.
        sources: folders with source trees.
        btf: a file or folder with types.
        debug_folders: where debugging information is looked for that was split off.
        plugins: files of plug-ins.
        readable: folders below which files may be read.
    """

    files: Sequence[str]
    modules: Sequence[str] = ()
    sources: Sequence[str] = ()
    btf: str | None = None
    debug_folders: Sequence[str] = ()
    plugins: Sequence[str] = ()
    readable: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A command line, and the form of its answer."""

    line: str
    form: Form


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command answered.

    Attributes:
        ok: whether it succeeded.
        status: the exit status that goes with the answer.
        text: the answer, or the error.
        is_cut: the answer was longer than `MAX_ANSWER`.
        warnings: of the session, those that were not told before.
        is_interrupted: the command was stopped from outside.
    """

    ok: bool
    status: int
    text: str
    is_cut: bool = False
    warnings: Sequence[str] = ()
    is_interrupted: bool = False


def encode(message: Opening | Question | Reply) -> bytes:
    """A message's line."""
    fields = dataclasses.asdict(message)
    return json.dumps(fields, ensure_ascii=True, default=lambda value: value.value).encode() + b"\n"


def _fields(line: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(line)
    return fields


def parse_opening(line: bytes) -> Opening:
    """The opening that a line is."""
    return Opening(**_fields(line))


def parse_question(line: bytes) -> Question:
    """The question that a line is."""
    fields = _fields(line)
    return Question(fields["line"], Form(fields["form"]))


def parse_reply(line: bytes) -> Reply:
    """The reply that a line is."""
    return Reply(**_fields(line))

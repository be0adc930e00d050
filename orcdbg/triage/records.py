"""What is kept of a dump that was looked at: one record, one line of JSON (docs/contract.md)."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orcdbg.base.errors import Corrupt

SCHEMA = 1


class Outcome(enum.Enum):
    """How it went with a dump; the values are the contract's words."""

    ANALYZED = "analyzed"
    DUPLICATE = "duplicate"
    FAILED = "failed"


class Death(enum.Enum):
    """What is known of a death; the values are the contract's words."""

    NAMED = "named"
    """There is a cause."""

    NONE = "none"
    """No panic or oops is recorded."""

    UNKNOWN = "unknown"
    """It is not known what it died of, or whether it died."""


class LimitKind(enum.Enum):
    """How a worker came to end without a record; the values are the contract's words, beside those of errors."""

    TIME = "time-limit"
    MEMORY = "memory-limit"
    ENDED = "worker-ended"
    SIZE = "answer-too-long"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no analysis.

    Attributes:
        kind: a word of the contract: an error's, or a LimitKind's.
        message: a sentence, which may quote the dump.
        hint: the next step.
    """

    kind: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class FileState:
    """A dump's file as it was when it was looked at.

    Attributes:
        size: in bytes.
        modified: nanoseconds from 1970.
        sample: a hash of its size and of some of its blocks; equal of equal files, and of few others.
    """

    size: int
    modified: int
    sample: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a dump took: seconds that passed, seconds of a CPU, and the most bytes of memory; None where nobody can say."""

    seconds: float
    cpu_seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """What it died of: the kind of the finding, and how sure it is, in the contract's words."""

    kind: str
    certainty: str


@dataclass(frozen=True, slots=True)
class DumpRecord:
    """A dump.

    Attributes:
        dump: its path, absolute; of one in several files, the first.
        outcome: how it went.
        file: as it was; None where it cannot be read.
        duplicate_of: the dump with the same bytes, which was looked at.
        format: what kind of snapshot it is.
        release: the kernel's; it may hold anything, as all that comes from the dump.
        build_id: the kernel's, in hexadecimal.
        image: the path of the vmlinux that it was looked at with; None where the dump alone had to do.
        date: when the machine was stopped, in seconds from 1970, by its own clock.
        death: what is known of it.
        title: the death in a line.
        signature: equal for equal deaths.
        cause: what it died of.
        unknown: what could not be told: names of detectors and of points of the head.
        warnings: what the user should know, in words.
        failure: why it failed.
        attempts: how many workers began on it.
        cost: what it took.
    """

    dump: str
    outcome: Outcome
    file: FileState | None = None
    duplicate_of: str | None = None
    format: str | None = None
    release: str | None = None
    build_id: str | None = None
    image: str | None = None
    date: int | None = None
    death: Death = Death.UNKNOWN
    title: str | None = None
    signature: str | None = None
    cause: Cause | None = None
    unknown: Sequence[str] = ()
    warnings: Sequence[str] = ()
    failure: Failure | None = None
    attempts: int = 1
    cost: Cost = Cost(0.0)


def failed(dump: str, failure: Failure, file: FileState | None = None) -> DumpRecord:
    """The record of a dump that could not be looked at."""
    return DumpRecord(dump, Outcome.FAILED, file, failure=failure)


def to_json(record: DumpRecord) -> dict[str, Any]:
    """The record as the contract describes it."""
    fields = {"schema": SCHEMA, **dataclasses.asdict(record)}
    words = {"outcome": record.outcome.value, "death": record.death.value}
    return {**fields, **words, "unknown": list(record.unknown), "warnings": list(record.warnings)}


def to_line(record: DumpRecord) -> str:
    """The record as a line of ASCII, with its end."""
    return json.dumps(to_json(record), ensure_ascii=True) + "\n"


def from_json(value: Any) -> DumpRecord:
    """A record that `to_json` made; fields of a later version are passed over.

    Raises:
        Corrupt: it is no record, or of another schema.
    """
    try:
        if value["schema"] != SCHEMA:
            raise Corrupt(f"a record of schema {value['schema']}, not {SCHEMA}")
        return DumpRecord(
            dump=_text(value["dump"]),
            outcome=Outcome(value["outcome"]),
            file=None if value["file"] is None else _file(value["file"]),
            duplicate_of=_maybe_text(value["duplicate_of"]),
            format=_maybe_text(value["format"]),
            release=_maybe_text(value["release"]),
            build_id=_maybe_text(value["build_id"]),
            image=_maybe_text(value["image"]),
            date=_maybe_number(value["date"]),
            death=Death(value["death"]),
            title=_maybe_text(value["title"]),
            signature=_maybe_text(value["signature"]),
            cause=None if value["cause"] is None else _cause(value["cause"]),
            unknown=_texts(value["unknown"]),
            warnings=_texts(value["warnings"]),
            failure=None if value["failure"] is None else _failure(value["failure"]),
            attempts=_number(value["attempts"]),
            cost=_cost(value["cost"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"not a record: {error!r}") from error


def _file(value: Any) -> FileState:
    return FileState(_number(value["size"]), _number(value["modified"]), _text(value["sample"]))


def _cause(value: Any) -> Cause:
    return Cause(_text(value["kind"]), _text(value["certainty"]))


def _failure(value: Any) -> Failure:
    return Failure(_text(value["kind"]), _text(value["message"]), _maybe_text(value["hint"]))


def _cost(value: Any) -> Cost:
    cpu_seconds = value["cpu_seconds"]
    return Cost(
        float(value["seconds"]), None if cpu_seconds is None else float(cpu_seconds), _maybe_number(value["memory"])
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _texts(value: Any) -> Sequence[str]:
    if not isinstance(value, list):
        raise TypeError(value)
    return tuple(map(_text, value))


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _maybe_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _maybe_number(value: Any) -> int | None:
    return None if value is None else _number(value)


def from_line(line: str | bytes) -> DumpRecord:
    """As `from_json`, of a line."""
    try:
        return from_json(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"not a line of JSON: {error}") from error

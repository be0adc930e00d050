"""Which dumps died of the same, how many, since when, and which of them is to be looked at?"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.triage.records import Death, DumpRecord, Outcome


class GroupKind(enum.Enum):
    """What the dumps of a group have in common; the values are the contract's words."""

    SIGNATURE = "signature"
    """They died of the same, as far as a signature tells."""

    NOT_KNOWN = "not-known"
    """It is not known what they died of: nothing else."""

    NO_DEATH = "no-death"
    """No panic or oops is recorded in them."""

    FAILED = "failed"
    """They could not be looked at, in the same way."""


class GroupKey(NamedTuple):
    """What makes a group: its kind, and the signature, or the failure's kind; empty where there is neither."""

    kind: GroupKind
    word: str


@dataclass(frozen=True, slots=True)
class DumpGroup:
    """Dumps of one key.

    Attributes:
        key: what they have in common.
        records: those that were looked at, by date, those without a date last.
        duplicates: how many more files have the bytes of one of them.
        first: when the first of them was stopped, in seconds from 1970; None where no date is known.
        last: likewise.
        releases: of their kernels, how many dumps each.
        certainties: how sure the cause is, how many dumps each.
    """

    key: GroupKey
    records: Sequence[DumpRecord]
    duplicates: int
    first: int | None
    last: int | None
    releases: Mapping[str, int]
    certainties: Mapping[str, int]

    @property
    def exemplar(self) -> DumpRecord:
        """The dump of which most is known; of equal ones the newest, then the first by name."""
        return min(self.records, key=_worth)


def _worth(record: DumpRecord) -> tuple[bool, int, int, str]:
    return record.image is None, len(record.unknown), -(record.date or 0), record.dump


def key_of(record: DumpRecord) -> GroupKey:
    """The group of a dump that was looked at."""
    if record.failure is not None:
        return GroupKey(GroupKind.FAILED, record.failure.kind)
    if record.signature is not None:
        return GroupKey(GroupKind.SIGNATURE, record.signature)
    if record.death is Death.NONE:
        return GroupKey(GroupKind.NO_DEATH, "")
    return GroupKey(GroupKind.NOT_KNOWN, "")


_ORDER = tuple(GroupKind)


def groups_of(records: Iterable[DumpRecord]) -> list[DumpGroup]:
    """The groups, the largest first, those without a signature last. The order of the records does not matter."""
    members: dict[GroupKey, list[DumpRecord]] = {}
    of_dump: dict[str, GroupKey] = {}
    duplicates: list[DumpRecord] = []
    for record in records:
        if record.outcome is Outcome.DUPLICATE:
            duplicates.append(record)
            continue
        of_dump[record.dump] = key_of(record)
        members.setdefault(of_dump[record.dump], []).append(record)

    more = Counter(of_dump.get(record.duplicate_of or "") for record in duplicates)
    found = [_group(key, each, more[key]) for key, each in members.items()]
    return sorted(found, key=lambda group: (_ORDER.index(group.key.kind), -len(group.records), group.key.word))


def _group(key: GroupKey, records: Sequence[DumpRecord], duplicates: int) -> DumpGroup:
    ordered = sorted(records, key=lambda record: (record.date is None, record.date or 0, record.dump))
    dates = [record.date for record in ordered if record.date is not None]
    return DumpGroup(
        key,
        ordered,
        duplicates,
        min(dates, default=None),
        max(dates, default=None),
        _counted(record.release for record in ordered),
        _counted(record.cause.certainty if record.cause else None for record in ordered),
    )


def _counted(words: Iterable[str | None]) -> Mapping[str, int]:
    """How often each word is there, by word."""
    return dict(sorted(Counter(word for word in words if word is not None).items()))

"""Which dumps are still to be looked at, in which order, and what record does a worker's end become?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from orcdbg.base.errors import Corrupt, OrcdbgError
from orcdbg.triage.content import file_state, is_unchanged
from orcdbg.triage.jobs import Job, JobKind, Setting
from orcdbg.triage.records import DumpRecord, Failure, FileState, LimitKind, Outcome, failed, from_json
from orcdbg.triage.workers import Ended

# Of files whose samples are equal, and which differ all the same: a new one is compared with so many.
_MOST_CANDIDATES = 8


class Workers(Protocol):
    """Who works on jobs: processes of this machine, or of a cluster."""

    def run(self, jobs: Iterable[Job], /) -> Iterator[Ended]: ...


class Rounds:
    """The work on a number of dumps.

    Args:
        dumps: their paths, absolute.
        kept: records of an earlier run; one whose file was changed since counts for nothing.
        setting: how they are looked at.

    Attributes:
        kept: the records of those dumps that need not be looked at again.
        todo: the other dumps.
    """

    def __init__(self, dumps: Sequence[str], kept: Sequence[DumpRecord], setting: Setting) -> None:
        valid = {record.dump: record for record in kept if _is_valid(record)}
        self.kept = [valid[dump] for dump in dumps if dump in valid]
        self.todo = [dump for dump in dumps if dump not in valid]
        self._setting = setting
        self._by_sample: dict[tuple[int, str], list[str]] = {}
        for record in self.kept:
            if record.file is not None and record.outcome is not Outcome.DUPLICATE:
                self._same_sample(record.file).append(record.dump)

    def run(self, workers: Workers) -> Iterator[DumpRecord]:
        """The records of the dumps that are to be looked at, in the order in which they are made."""
        for ended in workers.run(self._jobs()):
            yield record_of(ended)

    def _jobs(self) -> Iterator[Job]:
        for dump in self.todo:
            try:
                same = self._same_sample(file_state(dump))
            except OrcdbgError:
                same = []  # the worker says what is wrong with it
            candidates = list(same[:_MOST_CANDIDATES])
            same.append(dump)
            yield Job(JobKind.RECORD, dump, self._setting, candidates)

    def _same_sample(self, state: FileState) -> list[str]:
        """The dumps so far whose files have this sample."""
        return self._by_sample.setdefault((state.size, state.sample), [])


def _is_valid(record: DumpRecord) -> bool:
    """Whether a dump is still what its record says."""
    if record.file is None:
        return not Path(record.dump).exists()
    return is_unchanged(record.dump, record.file)


def record_of(ended: Ended) -> DumpRecord:
    """The record that the end of a worker is; what it says of itself is not believed where that can be seen from outside."""
    dump = ended.job.dump
    if ended.failure is not None or ended.answer is None:
        failure = ended.failure or Failure(LimitKind.ENDED.value, "the worker said nothing")
        record = failed(dump, failure, _state(dump))
    else:
        try:
            record = from_json(ended.answer.get("answer"))
        except Corrupt as error:
            record = failed(dump, Failure(LimitKind.ENDED.value, error.message), _state(dump))
    memory = None if ended.answer is None else ended.answer.get("memory")
    cost = ended.cost if not isinstance(memory, int) else replace(ended.cost, memory=memory)
    return replace(record, dump=dump, attempts=ended.attempts, cost=cost)


def _state(dump: str) -> FileState | None:
    try:
        return file_state(dump)
    except OrcdbgError:
        return None

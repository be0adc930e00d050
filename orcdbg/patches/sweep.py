"""How is one mechanism replayed at a single place and over a whole text, by one and the same rule?

A `Sweep` states its rule over arrays of places; the ledger asks it for one place, the audit for all. `WholeText` is the
text under audit: besides the bytes it keeps which pass changed each of them last.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from orcdbg.patches.site import (
    CANNOT_TELL,
    Applied,
    PatchPass,
    Spans,
    U8Array,
    U64Array,
    WorkingText,
    windows,
)

IntArray = npt.NDArray[np.intp]
MAX_FAILURES = 64
UNKNOWN = 0x80  # flag in `WholeText.owners`: a pass wrote here, but what it wrote cannot be told


class Written(NamedTuple):
    """What a rule writes at some of its places: their numbers, and a row of bytes for each."""

    rows: IntArray
    data: U8Array


class Sweep(abc.ABC):
    """A mechanism whose rule is stated over many places at once.

    `table` names where the places are recorded, for messages. Subclasses set `places`, or compute them in `spans`.
    """

    mechanism: str
    table: str
    places: Spans

    def spans(self) -> Spans:
        """The places, in the order of their table."""
        return self.places

    @abc.abstractmethod
    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """What is written at the places `rows`; places that are left alone are in no answer.

        Raises:
            Undecidable: the state that decides is not in the snapshot.
        """

    @abc.abstractmethod
    def describe(self, row: int) -> Applied:
        """The name of a place that was written, and what decided it."""

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Replays one place."""
        return self.describe(index) if self._write(np.array([index], dtype=np.intp), text) else None

    def sweep(self, text: WorkingText, rows: IntArray) -> None:
        """Replays the places `rows`."""
        self._write(rows, text)

    def _write(self, rows: IntArray, text: WorkingText) -> bool:
        wrote = False
        for written in self.rule(rows, text):
            if len(written.rows):
                text.scatter(self.spans().starts[written.rows], written.data)
                wrote = True
        return wrote


class KeyedSweep(Sweep):
    """A mechanism whose places follow variables, many of them one and the same.

    Subclasses set `keys`: the variable's address for each place.
    """

    keys: U64Array

    def keys_at(self, addresses: Sequence[int]) -> set[int]:
        """The keys of those of some addresses that are places."""
        return set(self.keys[np.isin(self.places.starts, np.array(addresses, dtype=np.uint64))].tolist())

    def places_of(self, keys: Collection[int]) -> Iterator[tuple[int, int]]:
        """Address and size of each place of some keys."""
        rows = np.isin(self.keys, np.array(list(keys), dtype=np.uint64))
        yield from zip(self.places.starts[rows].tolist(), self.places.sizes[rows].tolist(), strict=True)


class WholeText(WorkingText):
    """A whole text under replay: `owners` holds, for each byte, the number of the pass that changed it last (0: none).

    A pass that covers a byte without changing it owns it too, unless an earlier one does.

    Args:
        address: run-time address of the first byte.
        data: the text, relocated or as built; changed in place.
    """

    def __init__(self, address: int, data: bytearray) -> None:
        super().__init__(address, data)
        self.owners: U8Array = np.zeros(len(data), dtype=np.uint8)
        self.owner = 0
        self.changed_places = 0

    def _put(self, start: int, data: bytes) -> None:
        before = self.data[start : start + len(data)]
        row, end = np.frombuffer(data, dtype=np.uint8), start + len(data)
        owners = self.owners[start:end]
        owners[(self.array[start:end] != row) | _free(owners)] = self.owner
        if before != data:
            self.array[start:end] = row
            self.changed_places += 1

    def _put_rows(self, offsets: npt.NDArray[np.int64], rows: U8Array) -> None:
        size = rows.shape[1]
        changed = windows(self.array, size)[offsets] != rows
        owned = windows(self.owners, size)
        held = owned[offsets]
        held[changed | _free(held)] = self.owner
        owned[offsets] = held
        windows(self.array, size)[offsets] = rows
        self.changed_places += int(changed.any(axis=1).sum())

    def doubt(self, starts: U64Array, sizes: U64Array) -> None:
        """Marks places whose bytes the current pass cannot tell."""
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            low = max(start - self.address, 0)
            self.owners[low : max(start + size - self.address, 0)] = self.owner | UNKNOWN


def _free(owners: U8Array) -> npt.NDArray[np.bool_]:
    """Where nothing is known of a byte: no pass covers it, or one that could not be decided did."""
    free: npt.NDArray[np.bool_] = (owners == 0) | (owners >= UNKNOWN)
    return free


@runtime_checkable
class FromTable(Protocol):
    """A pass whose places a table names; `table` is its name, for messages."""

    mechanism: str
    table: str

    def spans(self) -> Spans: ...

    def apply(self, index: int, text: WorkingText) -> Applied | None: ...


@runtime_checkable
class FromMemory(Protocol):
    """A pass whose places are listed in the snapshot's memory, where the list may break off."""

    def unlisted(self) -> list[str]:
        """Lines for why places may be missing, once they were asked for."""


def replay_pass(the_pass: PatchPass, text: WholeText) -> tuple[int, list[str]]:
    """Runs a pass over all of its places that lie whole inside a text.

    Args:
        the_pass: the pass.
        text: what earlier passes left; changed in place.

    Returns:
        The number of places, and lines on why some could not be replayed, or may be missing.
    """
    count, problems = _replay(the_pass, text)
    if isinstance(the_pass, FromMemory):
        problems += [f"{the_pass.mechanism}: not all of its sites are known: {line}" for line in the_pass.unlisted()]
    return count, problems


def _replay(the_pass: PatchPass, text: WholeText) -> tuple[int, list[str]]:
    try:
        starts, sizes = the_pass.spans()
    except CANNOT_TELL as error:
        return 0, [f"{the_pass.mechanism}: its sites are not known: {error}"]
    begin, end = np.uint64(text.address), np.uint64(text.end)
    # A place near the last address would end behind it, at a small one.
    inside = np.flatnonzero((starts >= begin) & (starts < end) & (sizes <= end - np.minimum(starts, end)))
    if not isinstance(the_pass, Sweep):
        return len(inside), _one_by_one(the_pass, inside, text)
    problems: list[str] = []
    _in_parts(the_pass, inside, text, problems)
    return len(inside), problems


def _in_parts(the_pass: Sweep, inside: IntArray, text: WholeText, problems: list[str]) -> None:
    """Runs a pass; where it cannot tell something, halves are tried on their own, so that one bad entry spoils only itself."""
    starts, sizes = the_pass.spans()
    pending = [inside] if len(inside) else []
    failures = 0
    lost = 0
    first = ""

    # At most MAX_FAILURES halvings: a hostile table fails at every place.
    while pending:
        rows = pending.pop()
        try:
            the_pass.sweep(text, rows)
        except CANNOT_TELL as error:
            failures += 1
            if len(rows) > 1 and failures < MAX_FAILURES:
                pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
                continue
            text.doubt(starts[rows], sizes[rows])
            first = first or f"entry {int(rows[0])} of {the_pass.table}: {error}"
            lost += len(rows)
    if lost:
        problems.append(f"{the_pass.mechanism}: what stands at {lost} sites cannot be told; {first}")


def _one_by_one(the_pass: PatchPass, rows: IntArray, text: WholeText) -> list[str]:
    """Runs a pass that knows only single places; equal reasons for failing are counted, not repeated."""
    starts, sizes = the_pass.spans()
    reasons: dict[str, int] = {}
    for row in rows.tolist():
        if len(reasons) > MAX_FAILURES:
            text.doubt(starts[row : row + 1], sizes[row : row + 1])
            reasons[""] = reasons.get("", 0) + 1
            continue
        before = text.changed_places
        try:
            the_pass.apply(row, text)
            text.changed_places = min(text.changed_places, before + 1)
        except CANNOT_TELL as error:
            text.doubt(starts[row : row + 1], sizes[row : row + 1])
            reasons[str(error)] = reasons.get(str(error), 0) + 1
    if not reasons:
        return []
    lost, first = sum(reasons.values()), next(iter(reasons))
    return [f"{the_pass.mechanism}: what stands at {lost} sites cannot be told; {first}"]

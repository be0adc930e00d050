"""Is every byte of text in memory what the image, its tables and the kernel's state say it must be?

The image's text is copied, relocated, and all passes are run over the copy; then it is compared with memory. Expected bytes
never come from the text under audit, with one exception that is stated where it is made: `relocate_by_difference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.patches.site import PatchPass, U8Array
from orcdbg.patches.sweep import UNKNOWN, WholeText, replay_pass

RELOCATION = "relocation"
MAX_RANGES = 10_000


@dataclass(slots=True)
class MechanismCount:
    """What one mechanism did: sites it knows, sites it changed, differing bytes it explains, bytes that contradict it.

    `undecided` are bytes that differ at sites whose expected bytes cannot be told from this snapshot.
    """

    sites: int = 0
    patched: int = 0
    bytes: int = 0
    mismatched: int = 0
    undecided: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """A stretch of text that is not as expected; `mechanism` is None outside all known sites."""

    address: int
    image: bytes
    expected: bytes
    memory: bytes
    mechanism: str | None


@dataclass(slots=True)
class AuditReport:
    """The account of one text. All counts are bytes, but `missing_pages`."""

    start: int
    end: int
    differing: int = 0
    explained: int = 0
    unexplained: int = 0
    mismatched: int = 0
    undecided: int = 0
    missing_pages: int = 0
    mechanisms: dict[str, MechanismCount] = field(default_factory=dict)
    unexplained_ranges: list[Difference] = field(default_factory=list)
    mismatched_ranges: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """True when nothing contradicts the prediction."""
        return not self.unexplained and not self.mismatched


class Replayed:
    """A text after all passes: `text` with the owner of each byte, and what each pass did."""

    def __init__(self, text: WholeText) -> None:
        self.text = text
        self.names: list[str] = [""]
        self.mechanisms: dict[str, MechanismCount] = {}
        self.problems: list[str] = []

    def begin(self, mechanism: str) -> MechanismCount:
        """Starts the account of a mechanism's next pass."""
        if mechanism not in self.names:
            self.names.append(mechanism)
        self.text.owner = self.names.index(mechanism)
        self.text.changed_places = 0
        return self.mechanisms.setdefault(mechanism, MechanismCount())

    def run(self, the_pass: PatchPass) -> None:
        """Runs one pass."""
        count = self.begin(the_pass.mechanism)
        sites, problems = replay_pass(the_pass, self.text)
        count.sites += sites
        count.patched += self.text.changed_places
        self.problems += problems


class MemoryText:
    """Text as it is in memory: `array`, and for each page whether the snapshot has it."""

    def __init__(self, memory: AddressSpace, start: int, end: int) -> None:
        self.start = start
        self.array: U8Array = np.zeros(end - start, dtype=np.uint8)
        low = start - start % PAGE
        self.present = np.ones(-(-(end - low) // PAGE), dtype=np.bool_)
        for number in range(len(self.present)):
            first, last = max(low + number * PAGE, start), min(low + (number + 1) * PAGE, end)
            try:
                data = memory.read(first, last - first)
                self.array[first - start : last - start] = np.frombuffer(data, dtype=np.uint8)
            except MemoryFault:
                self.present[number] = False
        self._lead = start - low

    @property
    def missing(self) -> int:
        """Pages that the snapshot lacks."""
        return int(np.count_nonzero(~self.present))

    def mask(self, first: int, last: int) -> npt.NDArray[np.bool_]:
        """For each byte of a stretch, given by offsets, whether the snapshot has it."""
        return np.repeat(self.present[(first + self._lead) // PAGE : (last + self._lead - 1) // PAGE + 1], PAGE)[
            (first + self._lead) % PAGE :
        ][: last - first]


def compare(image: bytes, replayed: Replayed, memory: MemoryText) -> AuditReport:
    """The account of a text.

    Args:
        image: its bytes as built, not relocated.
        replayed: its bytes after all passes.
        memory: its bytes now.
    """
    text = replayed.text
    report = AuditReport(text.address, text.end, missing_pages=memory.missing, mechanisms=replayed.mechanisms)
    report.problems = replayed.problems
    for first in range(0, len(text.array), 1 << 20):
        last = min(first + (1 << 20), len(text.array))
        built = np.frombuffer(image, dtype=np.uint8, count=last - first, offset=first)
        _compare_chunk(report, replayed, built, memory, first, last)
    return report


def _compare_chunk(
    report: AuditReport, replayed: Replayed, built: U8Array, memory: MemoryText, first: int, last: int
) -> None:
    now, expected = memory.array[first:last], replayed.text.array[first:last]
    owners = replayed.text.owners[first:last]
    present = memory.mask(first, last)
    differs = (now != built) & present
    wrong = (now != expected) & present
    unknown = (owners & UNKNOWN) != 0
    wrong &= ~unknown
    explained = differs & ~wrong & ~unknown
    report.differing += int(np.count_nonzero(differs))
    report.explained += int(np.count_nonzero(explained))
    report.undecided += int(np.count_nonzero(differs & unknown))
    _count(report, replayed.names, owners[explained], "bytes")
    _count(report, replayed.names, owners[differs & unknown] & ~np.uint8(UNKNOWN), "undecided")
    if wrong.any():
        _count(report, replayed.names, owners[wrong], "mismatched")
        _add_ranges(report, replayed, built, now, np.flatnonzero(wrong), first)


def _count(report: AuditReport, names: Sequence[str], owners: U8Array, what: str) -> None:
    counts = np.bincount(owners, minlength=len(names))
    for number in np.flatnonzero(counts).tolist():
        if number:
            entry = report.mechanisms[names[number]]
            setattr(entry, what, getattr(entry, what) + int(counts[number]))


def _add_ranges(
    report: AuditReport, replayed: Replayed, built: U8Array, now: U8Array, wrong: npt.NDArray[np.intp], first: int
) -> None:
    """Notes the wrong bytes of a chunk, neighbours of one owner together."""
    expected, owners = replayed.text.array[first:], replayed.text.owners[first:]
    breaks = (np.diff(wrong) != 1) | (np.diff(owners[wrong].astype(np.int16)) != 0)
    starts = np.concatenate(([0], np.flatnonzero(breaks) + 1))
    ends = np.append(starts[1:], len(wrong))
    for low, high in zip(starts.tolist(), ends.tolist(), strict=True):
        at, end = int(wrong[low]), int(wrong[high - 1]) + 1
        owner = int(owners[at])
        ranges = report.mismatched_ranges if owner else report.unexplained_ranges
        if owner:
            report.mismatched += end - at
        else:
            report.unexplained += end - at
        if len(ranges) < MAX_RANGES:
            was, should, is_now = (bytes(array[at:end]) for array in (built, expected, now))
            name = replayed.names[owner] if owner else None
            ranges.append(Difference(replayed.text.address + first + at, was, should, is_now, name))

"""What is known of one place where the kernel changes its own text?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

U64Array = npt.NDArray[np.uint64]


class Spans(NamedTuple):
    """The places of a pass: run-time start addresses and lengths in bytes, in the pass's own order."""

    starts: U64Array
    sizes: U64Array


class Applied(NamedTuple):
    """What a pass did at a place: the patch's name, and the state that decided it."""

    name: str
    decided_by: str


@dataclass(frozen=True, slots=True)
class PatchSite:
    """One pass at one place: `image` as built (relocated), `expected` as this pass left it; None when undecidable."""

    mechanism: str
    address: int
    size: int
    name: str
    image: bytes
    expected: bytes | None
    decided_by: str
    order: int

    @property
    def end(self) -> int:
        """First address after the site."""
        return self.address + self.size


class WorkingText:
    """The bytes of a stretch of text while passes are replayed on it, addressed as at run time."""

    def __init__(self, address: int, data: bytes) -> None:
        self.address = address
        self.data = bytearray(data)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes as the passes so far left them."""
        start = address - self.address
        return bytes(self.data[start : start + size])

    def write(self, address: int, data: bytes) -> None:
        """Overwrites bytes inside the stretch; what would leave it is not written."""
        start = address - self.address
        end = min(start + len(data), len(self.data))
        self.data[start:end] = data[: end - start]


class Undecidable(Exception):
    """A pass cannot tell what it wrote, because the state that decided it is not in the snapshot."""


class PatchPass(Protocol):
    """One mechanism as the kernel runs it over its sites.

    `applied` replays place `index` on `text`, returning None where this pass leaves the place alone, and raises
    `Undecidable` where the state that decides is missing.
    """

    mechanism: str

    def spans(self) -> Spans: ...

    def apply(self, index: int, text: WorkingText) -> Applied | None: ...


def make_spans(
    starts: Sequence[int] | npt.NDArray[np.generic], sizes: Sequence[int] | npt.NDArray[np.generic]
) -> Spans:
    """Spans from plain sequences."""
    return Spans(np.asarray(starts, dtype=np.uint64), np.asarray(sizes, dtype=np.uint64))

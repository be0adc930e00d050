"""Which detectors are there? All are asked, in this order; none knows of another."""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.analysis.detector import Detector
from orcdbg.analysis.detectors import bad_call, bad_pointers, bugs, panics

DETECTORS: Sequence[Detector] = (
    panics.DETECTOR,
    bad_pointers.DETECTOR,
    bad_call.DETECTOR,
    bugs.DETECTOR,
    panics.DIVIDE,
)

"""Which detectors are there? All are asked, in this order; none knows of another."""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.analysis.detector import Detector
from orcdbg.analysis.detectors import (
    bad_call,
    bad_pointers,
    bugs,
    changed_text,
    deadlocks,
    hung_tasks,
    lists,
    panics,
    refcounts,
    slab_objects,
    stacks,
    survived,
)

DETECTORS: Sequence[Detector] = (
    panics.DETECTOR,
    bad_pointers.DETECTOR,
    bad_call.DETECTOR,
    bugs.DETECTOR,
    panics.DIVIDE,
    lists.DETECTOR,
    slab_objects.USE_AFTER_FREE,
    slab_objects.DOUBLE_FREE,
    slab_objects.OVERRUN,
    refcounts.DETECTOR,
    stacks.OVERFLOW,
    stacks.CANARY,
    hung_tasks.DETECTOR,
    deadlocks.DETECTOR,
    changed_text.DETECTOR,
    survived.DETECTOR,
)

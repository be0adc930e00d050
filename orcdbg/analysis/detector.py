"""What does a detector declare, and how is it kept from breaking the others?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.findings import Finding, Untold
from orcdbg.base.errors import OrcdbgError


@dataclass(frozen=True, slots=True)
class Detector:
    """A detector.

    Attributes:
        name: what it looks for, as `unknown` names it.
        inputs: what it needs; where one cannot be had, it is not asked.
        applies: whether the case is one for it at all, which must need none of the inputs but those that raise.
        detect: gives its findings; it may raise an OrcdbgError, which ends it.
    """

    name: str
    inputs: Sequence[Input]
    applies: Callable[[Case], bool]
    detect: Callable[[Case], Iterator[Finding]]


def run(detectors: Sequence[Detector], case: Case) -> tuple[list[Finding], list[Untold]]:
    """All findings of all detectors, and what could not be told.

    What one raises is its own `unknown`, and what it had found by then stays; the others are asked all the same.
    """
    findings: list[Finding] = []
    unknown: list[Untold] = []
    for detector in detectors:
        try:
            if not detector.applies(case):
                continue
            for need in detector.inputs:
                case.obtain(need)
            findings.extend(detector.detect(case))
        except OrcdbgError as error:
            unknown.append(Untold(detector.name, error.message))
    return findings, unknown

"""What did this kernel die of? The head, the detectors, the cause and the signature of one stopped kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.analysis.case import Case
from orcdbg.analysis.detector import Detector, run
from orcdbg.analysis.detectors.deadlocks import cycle_behind
from orcdbg.analysis.detectors.registry import DETECTORS
from orcdbg.analysis.findings import CAUSES, Finding, FindingKind, Untold
from orcdbg.analysis.head import HeadPoint, head
from orcdbg.analysis.signature import deadlock_signature, signature_of, waiting
from orcdbg.base.errors import OrcdbgError

if TYPE_CHECKING:
    from orcdbg.target.session import Session


@dataclass(frozen=True, slots=True)
class Analysis:
    """The answer.

    Attributes:
        signature: equal for equal deaths; None where nothing died.
        cause: the finding that says most of what it died of; None where that is not known.
        findings: what the detectors found.
        head: the ten points.
        unknown: what could not be told, and why.
    """

    signature: str | None
    cause: Finding | None
    findings: Sequence[Finding]
    head: Mapping[HeadPoint, Sequence[Finding]]
    unknown: Sequence[Untold]


def analyze(session: Session, detectors: Sequence[Detector] = DETECTORS) -> Analysis:
    """The analysis of a stopped kernel."""
    case = Case(session)
    findings, unknown = run(detectors, case)
    points, untold = head(case)
    cause = cause_among(findings)
    return Analysis(_signature(case, cause), cause, findings, points, list(dict.fromkeys([*unknown, *untold])))


def cause_among(findings: Sequence[Finding]) -> Finding | None:
    """The finding that says most of a death; None where none says anything of one."""
    causes = [finding for finding in findings if finding.kind in CAUSES]
    return min(causes, key=lambda finding: CAUSES.index(finding.kind), default=None)


def _signature(case: Case, cause: Finding | None) -> str | None:
    if cause is None:
        return None
    try:
        way = case.site.way
    except OrcdbgError:
        return signature_of(cause.kind, ())
    if cause.kind is FindingKind.DEADLOCK:
        cycle = cycle_behind(case)
        assert cycle is not None
        return deadlock_signature(cycle)
    if cause.kind is FindingKind.HUNG_TASK:
        # Who waits tells one hang from another; the detector's own stack is always the same.
        way = () if case.hung_task is None else waiting(case.trace(case.hung_task).frames)
    if cause.kind is FindingKind.RCU_STALL:
        way = () if case.stalled_cpu is None else case.before_the_stop(case.stalled_cpu)
    return signature_of(cause.kind, way)

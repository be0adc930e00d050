"""Did refcount_t saturate?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import Route, name_of
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, fact
from orcdbg.kernel.headlines import Announced

REFCOUNT_CHECK = "refcount_warn_saturate"


def _applies(case: Case) -> bool:
    return case.has_fault and case.site.route is Route.WARNING and name_of(case.fault.frame) == REFCOUNT_CHECK


def _detect(case: Case) -> Iterator[Finding]:
    said = case.last(Announced.REFCOUNT)
    user = next((frame for frame in case.site.way if frame.reliable and name_of(frame) != REFCOUNT_CHECK), None)
    evidence = [Exhibit(case.name(case.fault.ip), f"bt --why {case.fault.place}")]
    evidence += [] if said is None else [Exhibit(said.text, "log")]
    yield fact(
        FindingKind.REFCOUNT,
        *evidence,
        addresses=[] if user is None else [user.ip],
        place="?" if user is None else case.name(user.ip, user.exact),
        said="" if said is None else said.text,
    )


DETECTOR = Detector("a reference count", (Input.STACK, Input.LOG), _applies, _detect)

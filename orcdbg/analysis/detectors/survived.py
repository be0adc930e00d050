"""Did the kernel go on after an oops, of which only the log tells?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, fact
from orcdbg.kernel.headlines import Announced

_OOPSES = (
    *(Announced.NULL_POINTER, Announced.PAGE_FAULT, Announced.GENERAL_PROTECTION, Announced.BUG),
    *(Announced.DIVIDE_ERROR, Announced.STACK_GUARD, Announced.INVALID_OPCODE),
)


def _applies(case: Case) -> bool:
    return case.panic_cpu is None


def _detect(case: Case) -> Iterator[Finding]:
    for line in case.headlines:
        if line.announced in _OOPSES:
            yield fact(FindingKind.OOPS_IN_LOG, Exhibit(line.text, "log"), said=line.text)


DETECTOR = Detector("an oops in the log", (Input.LOG,), _applies, _detect)

"""Did the CPU run bytes that neither the build nor a recorded patch put there?

Only functions on the crashing stack are looked at, each against the image with all recorded patches replayed.
"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.detectors.bad_pointers import is_bad_call
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, derived
from orcdbg.analysis.head import changed_bytes

_MAX_FUNCTION = 1 << 16


def _applies(case: Case) -> bool:
    return case.has_fault and not is_bad_call(case)


def _detect(case: Case) -> Iterator[Finding]:
    location, instruction = case.fault.frame.location, case.instruction.instruction
    if location is None or not location.is_text or location.module is not None or location.size > _MAX_FUNCTION:
        return
    wrong = changed_bytes(case, location.start, location.size) or []
    run = [byte for byte in wrong if instruction.address <= byte[0] < instruction.end]
    if not run:
        return
    expected = " ".join(f"{should:02x}" for _, should, _ in run)
    found = " ".join(f"{now:02x}" for _, _, now in run)
    yield derived(
        FindingKind.CHANGED_TEXT,
        Exhibit(f"{run[0][0]:#x}: {found}, expected {expected}", f"dis --diff {run[0][0]:#x} 1"),
        addresses=[run[0][0]],
        place=case.name(run[0][0]),
        expected=expected,
        found=found,
        instruction=instruction.text,
    )


DETECTOR = Detector("changed text", (Input.STACK, Input.REGISTERS, Input.TEXT), _applies, _detect)

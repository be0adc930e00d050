"""Did a call or jump lead to where no code is?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import Route, Vector
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.detectors.bad_pointers import is_bad_call
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, derived, fact

_FAULTS = (Vector.PAGE_FAULT, Vector.GENERAL_PROTECTION, Vector.INVALID_OPCODE)


def _applies(case: Case) -> bool:
    if not case.has_fault or case.site.route is not Route.OOPS or case.fault.exception not in _FAULTS:
        return False
    return is_bad_call(case)


def _detect(case: Case) -> Iterator[Finding]:
    fault = case.fault
    sp = fault.registers.get("rsp", 0)
    shown = Exhibit(f"rip = {fault.ip:#x}", f"bt --why {fault.place}")
    top = case.word(sp)
    caller = case.session.code.follows_call(top) if top is not None else None
    values = {"target": f"{fault.ip:#x}", "name": case.name(fault.ip)}
    if top is None or caller is not True:
        yield fact(FindingKind.BAD_CALL, shown, addresses=[fault.ip], caller="", **values)
        return
    name = case.name(top, exact=False)
    yield fact(
        FindingKind.BAD_CALL,
        shown,
        Exhibit(f"{sp:#x}: {top:#x} {name}", f"rd {sp:#x} 1"),
        addresses=[fault.ip, top],
        caller=name,
        **values,
    )
    for register, value in fault.registers.items():
        if value == fault.ip and register not in ("rip", "rsp") and fault.ip:
            yield derived(
                FindingKind.CALL_REGISTER,
                Exhibit(f"{register} = {value:#x}", f"bt --why {fault.place}"),
                register=register,
                value=f"{value:#x}",
            )


DETECTOR = Detector("a call through a bad pointer", (Input.STACK, Input.REGISTERS), _applies, _detect)

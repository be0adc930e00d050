"""Did the kernel stop itself at a BUG(), and where is that in the source?

Mirrors lib/bug.c: `__bug_table` has an entry for each ud2 of BUG() and WARN(), with the distances to the instruction and to the
file's name, and the line.
"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.bug_table import BugEntry, find_bug
from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import CrashException, Route, Vector
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.detectors.bad_pointers import is_bad_call
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, fact
from orcdbg.kernel.headlines import Announced

_LEA_SIZE = 7


def _applies(case: Case) -> bool:
    return (
        case.has_fault
        and case.site.route in (Route.OOPS, Route.WARNING)
        and case.fault.exception is Vector.INVALID_OPCODE
        and not is_bad_call(case)
    )


def entry_of(case: Case, fault: CrashException) -> BugEntry | None:
    """The entry of the kernel's or a module's table for the faulting instruction."""
    linux, names = case.session.linux, case.session.names
    found = find_bug(linux, names, fault.ip)
    if found is None and case.instruction.instruction.mnemonic == "ud1":
        # Seen in 7.2: WARN() hands its entry to a ud1 by the lea before it, and the entry is of the lea.
        found = find_bug(linux, names, fault.ip - _LEA_SIZE)
    return found


def _detect(case: Case) -> Iterator[Finding]:
    ip, insn = case.fault.ip, case.instruction.instruction
    entry = entry_of(case, case.fault)
    shown = Exhibit(f"{case.name(ip)}: {insn.text}", f"dis {ip:#x}")
    said = case.last(Announced.BUG, Announced.WARNING)
    spoken = [] if said is None else [Exhibit(said.text, "log")]
    if entry is None:
        yield fact(FindingKind.INVALID_OPCODE, shown, addresses=[ip], place=case.name(ip), instruction=insn.text)
        return
    kind = FindingKind.WARNING if entry.is_warning else FindingKind.BUG
    yield fact(
        kind,
        shown,
        Exhibit(f"bug table {entry.address:#x}: {entry.file}:{entry.line}", f"rd {entry.address:#x} 2"),
        *spoken,
        addresses=[ip, entry.address],
        place=f"{entry.file}:{entry.line}" if entry.file else case.name(ip),
        said="" if said is None else said.text,
        message="",
        pid=case.task.pid,
        comm=case.task.comm,
    )


DETECTOR = Detector("BUG() and WARN()", (Input.STACK, Input.REGISTERS, Input.TEXT), _applies, _detect)

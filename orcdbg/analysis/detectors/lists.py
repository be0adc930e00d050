"""Did a check of list_add() or list_del() fail, and what do the nodes hold?

Mirrors lib/list_debug.c, whose line in the log names the nodes and what was expected; the checks are on the stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import Route, Vector, name_of
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, fact
from orcdbg.kernel.headlines import Announced

LIST_CHECKS = frozenset(
    (
        *("__list_add_valid", "__list_add_valid_or_report", "__list_del_entry_valid"),
        *("__list_del_entry_valid_or_report", "__list_add", "__list_del_entry"),
    )
)
_ADDRESS = re.compile(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")
_MAX_NODES = 4


def is_list_check(case: Case) -> bool:
    """Whether a list's check failed: its BUG() or WARN() is an invalid opcode; a bad pointer may fault in it, too."""
    if not case.has_fault or case.site.route not in (Route.OOPS, Route.WARNING):
        return False
    return name_of(case.fault.frame) in LIST_CHECKS and case.fault.exception is Vector.INVALID_OPCODE


def nodes_named(case: Case) -> list[int]:
    """The kernel's addresses in the line of the check that failed; none where there was no such line."""
    said = case.last(Announced.LIST_CORRUPTION) if is_list_check(case) else None
    if said is None:
        return []
    found = [int(word, 16) for word in _ADDRESS.findall(said.text)]
    return [node for node in dict.fromkeys(found) if node >> 52 == 0xFFF or node >> 56 == 0xFF][:_MAX_NODES]


def _applies(case: Case) -> bool:
    return is_list_check(case)


def _detect(case: Case) -> Iterator[Finding]:
    said = case.last(Announced.LIST_CORRUPTION)
    ip = case.fault.ip
    user = next((frame for frame in case.site.way if frame.reliable and name_of(frame) not in LIST_CHECKS), None)
    evidence = [Exhibit(case.name(ip), f"bt --why {case.fault.place}")]
    evidence += [] if said is None else [Exhibit(said.text, "log")]
    yield fact(
        FindingKind.LIST_CORRUPTION,
        *evidence,
        addresses=nodes_named(case),
        place="?" if user is None else case.name(user.ip, user.exact),
        said="" if said is None else said.text,
    )
    for node in nodes_named(case):
        following, before = case.word(node), case.word(node + 8)
        if following is None or before is None:
            continue
        yield fact(
            FindingKind.LIST_NODE,
            Exhibit(f"{node:#x}: {following:#x} {before:#x}", f"rd {node:#x} 2"),
            addresses=[node],
            node=f"{node:#x}",
            next=f"{following:#x}",
            prev=f"{before:#x}",
        )


DETECTOR = Detector("a list's check", (Input.STACK, Input.LOG), _applies, _detect)

"""Do tasks wait for each other in a ring?

A ring is what a system died of only where the hung task detector ended it and named a task that waits for the ring. In any
other dump it is something that was found there.
"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import Route
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind
from orcdbg.base.errors import OrcdbgError
from orcdbg.subsystems.waits.model import Cycle, Edge


def cycle_behind(case: Case) -> Cycle | None:
    """The ring that the task waits for, in the end, which the hung task detector named last; None without."""
    if not _is_hung(case) or case.hung_task is None:
        return None
    waiting = {edge.waiter for edge in case.waits.chain(case.hung_task.address)}
    return next((cycle for cycle in case.waits.cycles if waiting.intersection(cycle.tasks)), None)


def _is_hung(case: Case) -> bool:
    try:
        return case.panic_cpu is not None and case.site.route is Route.HUNG_TASK
    except OrcdbgError:
        return False


def _detect(case: Case) -> Iterator[Finding]:
    behind = cycle_behind(case)
    for cycle in case.waits.cycles:
        yield Finding(
            FindingKind.DEADLOCK if cycle is behind else FindingKind.WAIT_CYCLE,
            cycle.certainty,
            {"count": len(cycle.edges), "ring": "; ".join(ring_words(case, edge) for edge in cycle.edges)},
            [
                Exhibit(f"{edge.kind.value} {_object(edge)}", f"waits -v {_pid(case, edge.waiter)}")
                for edge in cycle.edges
            ],
            cycle.tasks,
        )


def ring_words(case: Case, edge: Edge) -> str:
    """A waiter, what it waits for, and its holder, in names and numbers."""
    holder = "?" if edge.holder is None else _pid(case, edge.holder)
    what = "?" if edge.object is None else case.label(edge.object)
    return f"{_pid(case, edge.waiter)} > {edge.kind.value} {what} > {holder}"


def _object(edge: Edge) -> str:
    return "?" if edge.object is None else f"{edge.object:#x}"


def _pid(case: Case, address: int) -> int:
    return case.find_task(address).pid


DETECTOR = Detector("deadlocks", (Input.WAITS,), lambda case: True, _detect)

"""Where does the task wait that the hung task detector named?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import Route
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, fact
from orcdbg.analysis.signature import first_waiting
from orcdbg.kernel.headlines import Announced


def _applies(case: Case) -> bool:
    return case.panic_cpu is not None and case.site.route is Route.HUNG_TASK


def _detect(case: Case) -> Iterator[Finding]:
    task = case.hung_task
    if task is None:
        return
    frame = first_waiting(case.trace(task).frames)
    said = case.last(Announced.HUNG_TASK)
    yield fact(
        FindingKind.WAITS_AT,
        Exhibit("no frame" if frame is None else f"#{frame.index}", f"bt {task.pid}"),
        Exhibit("" if said is None else said.text, "log"),
        addresses=[task.address],
        pid=task.pid,
        comm=task.comm,
        state=task.state or "?",
        place="?" if frame is None else case.name(frame.ip, frame.exact),
    )


DETECTOR = Detector("a hung task", (Input.STACK, Input.LOG), _applies, _detect)

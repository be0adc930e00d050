"""Can files that open together be worked with: is there a stack in them that can be walked?"""

from __future__ import annotations

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.checkup.given_files import OpenedFiles
from orcdbg.target.session import Session
from orcdbg.unwind.frame import StackTrace

# A machine of some thousand tasks has one that sleeps among the first; a snapshot may name a hundred thousand false ones.
MAX_TASKS = 4096
# Words of stacks that may be looked over for guesses, in all.
MAX_SCANNED = 1 << 20


def find_obstacle(opened: OpenedFiles) -> OrcdbgError | None:
    """What keeps the files from being worked with; None where nothing does.

    A snapshot is of use if one of its stacks can be walked, a vmlinux alone if its ORC rows can be read.
    """
    try:
        if opened.session is not None:
            return _of_session(opened.session)
        if opened.image is not None:
            _ = opened.unbooted.layout, opened.unbooted.orc_table
    except OrcdbgError as error:
        return error
    return None


def _of_session(session: Session) -> OrcdbgError | None:
    _ = session.types
    budget = Budget(MAX_SCANNED)
    reason = None
    tasks = session.tasks
    for task in tasks[:MAX_TASKS]:
        trace = session.unwinder.trace(task, budget)
        if _is_walked(trace):
            return None
        reason = reason or trace.end_reason
    if not tasks:
        return OrcdbgError("no stack can be walked: memory that names the tasks is not there")
    count = min(len(tasks), MAX_TASKS)
    return OrcdbgError(
        f"no stack can be walked: of {count} tasks none has a frame that is sure to have a caller", None, reason
    )


def _is_walked(trace: StackTrace) -> bool:
    """Whether a walk came further than to where it began, without a guess."""
    return len(trace.frames) > 1 and trace.frames[1].mark.is_sure

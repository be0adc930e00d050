"""What do commands need of a live guest: the guest itself, and what there is to say when it stops?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result
from orcdbg.commands.steps import displays_of
from orcdbg.kernel.names import Location
from orcdbg.kernel.tasks import Task

if TYPE_CHECKING:
    from orcdbg.commands.display import DisplayedValues
    from orcdbg.gdb.guest import Guest
    from orcdbg.gdb.stops import GuestStop


@dataclass(frozen=True, slots=True)
class Stopped(Result):
    """Why and where the guest stopped; `task` is what the CPU ran, None where that cannot be told."""

    stop: GuestStop
    location: Location | None
    task: Task | None
    displays: Sequence[DisplayedValues] = ()


def guest_of(debugger: Debugger) -> Guest:
    """The live guest; UsageError where there is none."""
    if debugger.guest is None:
        raise UsageError("this is a snapshot, not a live guest", "orcdbg VMLINUX --remote HOST:PORT opens one")
    return debugger.guest


def arrive(debugger: Debugger, stop: GuestStop) -> Stopped:
    """What there is to say of a stop, with the CPU's task selected."""
    debugger.move(stop.cpu)
    tasks = {cpu: task for task, (cpu, _) in debugger.session.unwinder.running.items()}
    task = debugger.find_task(tasks[stop.cpu]) if stop.cpu in tasks else None
    return Stopped(stop, debugger.session.names.at(stop.ip), task, displays_of(debugger))

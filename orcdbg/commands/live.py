"""continue, interrupt, detach: a live guest is let run, stopped, and left."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.base.errors import UsageError
from orcdbg.commands.control import Quit
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command
from orcdbg.commands.results import Result, Text
from orcdbg.kernel.names import Location
from orcdbg.kernel.tasks import Task

if TYPE_CHECKING:
    from orcdbg.gdb.guest import Guest
    from orcdbg.gdb.stops import GuestStop


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why and where the guest stopped; `task` is what the CPU ran, None where that cannot be told."""

    stop: GuestStop
    location: Location | None
    task: Task | None


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
    return Stopped(stop, debugger.session.names.at(stop.ip), task)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86400:
        raise ValueError(text)
    return value


def _continue_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", dest="seconds", type=_seconds, metavar="SECONDS", help="stop it after that long")
    parser.add_argument("-b", "--background", action="store_true", help="do not wait; `interrupt` stops it")


def _continue(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    guest = guest_of(debugger)
    debugger.forget()
    if arguments.background:
        guest.start()
        return Text(["the guest runs; `interrupt` stops it"])
    return arrive(debugger, guest.resume(arguments.seconds))


def _interrupt(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    return arrive(debugger, guest_of(debugger).interrupt())


def _detach(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    guest_of(debugger).close()
    raise Quit


COMMANDS = (
    Command(
        "continue",
        "let a live guest run until something stops it",
        "live",
        _continue,
        _continue_arguments,
        ("c",),
        examples=(
            ("continue", "until a breakpoint or Ctrl-C"),
            ("continue --for 0.5", "for half a second"),
            ("continue -b", "and come back to the prompt at once"),
        ),
    ),
    Command("interrupt", "stop a live guest that runs", "live", _interrupt),
    Command("detach", "let a live guest run on, and leave", "live", _detach),
)

"""continue: a live guest, or the emulation of a snapshot's selected frame, runs until something stops it."""

from __future__ import annotations

import argparse
from dataclasses import replace

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.live import arrive, guest_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result, TextLines
from orcdbg.commands.steps import Runner


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86400:
        raise ValueError(text)
    return value


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", dest="seconds", type=_seconds, metavar="SECONDS", help="stop it after this time")
    parser.add_argument(
        "-b", "--background", action="store_true", help="do not wait for a stop; `interrupt` forces one"
    )


def _emulate(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Runs the emulation of the selected frame up to a breakpoint or watched memory, and says that this is what ran."""
    from orcdbg.commands.emulated_steps import NO_LIMIT, current, run  # a live guest needs no emulator

    if arguments.background or arguments.seconds is not None:
        raise UsageError(
            "--for and -b are for a live guest; a snapshot is emulated", "`set step-seconds N` bounds a run"
        )
    if not debugger.breakpoints and not debugger.watches:
        raise UsageError(
            "a snapshot does not run; its emulation has nowhere to stop",
            "`break SYMBOL` or `watch ADDR` first; orcdbg VMLINUX --remote HOST:PORT opens a live guest",
        )
    emulation, task = current(debugger), debugger.task
    steps = run(
        debugger, emulation, argparse.Namespace(trace=False, skip=False), lambda _, motions: motions.run(NO_LIMIT)
    )
    return replace(steps, runner=Runner(task.pid, task.comm, emulation.cpu))


@command(
    "continue",
    summary="let a live guest run until something stops it",
    group="live",
    effect=Effect.MOVES_GUEST,
    arguments=_arguments,
    aliases=("c",),
    examples=(
        ("continue", "until a breakpoint or Ctrl-C"),
        ("continue --for 0.5", "for half a second"),
        ("continue -b", "and come back to the prompt at once"),
    ),
)
def resume(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers when the guest has stopped, or with `-b` at once; on a snapshot when the emulation has."""
    if debugger.guest is None:
        return _emulate(debugger, arguments)
    guest = guest_of(debugger)
    debugger.forget()
    if arguments.background:
        guest.start()
        return TextLines(["the guest runs; `interrupt` stops it"])
    return arrive(debugger, guest.resume(arguments.seconds))

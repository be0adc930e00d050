"""What do the commands that step answer with, whether they move an emulated CPU or a live one?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.instructions import ListedInstruction
from orcdbg.commands.result import Result
from orcdbg.emulation.stops import StoppedBy
from orcdbg.unwind.frame import Frame, StackTrace

if TYPE_CHECKING:
    from orcdbg.commands.display import DisplayedValues
    from orcdbg.commands.what_if import Comparison


@dataclass(frozen=True, slots=True)
class SteppedPlace:
    """Where the CPU stood before an instruction.

    `changed` are the registers that the instruction changed or, where nothing was run after it, those that changed on the
    way here.
    """

    instruction: ListedInstruction
    frame: Frame
    caller: Frame | None
    changed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Runner:
    """What an emulation runs as: a task, and the CPU whose data it has; None where that is not known."""

    pid: int
    comm: str
    cpu: int | None


@dataclass(frozen=True, slots=True)
class Steps(Result):
    """What was run, and where the CPU stands now.

    `instructions` is how many this command ran, `position` how many since the start.
    The last place of `trace` is where the CPU stands. `source` says where the registers at the start were from, `zeroed`
    which of them were taken as 0, `skipped` which instructions were gone past. `runner` is what ran, where
    a user of a live debugger would take it for the machine.
    """

    stopped_by: StoppedBy
    why: str | None
    instructions: int
    position: int
    trace: Sequence[SteppedPlace]
    registers: Mapping[str, int]
    stack: StackTrace
    source: str
    zeroed: Sequence[str] = ()
    skipped: Sequence[tuple[int, str]] = ()
    comparison: Comparison | None = None
    traced: bool = False
    displays: Sequence[DisplayedValues] = ()
    runner: Runner | None = None


def displays_of(debugger: Debugger) -> Sequence[DisplayedValues]:
    """What there is to show besides wherever stepping comes to stand."""
    if not debugger.displays:
        return ()
    from orcdbg.commands.display import displayed  # a step without displays needs no expressions

    return displayed(debugger)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that runs instructions."""
    parser.add_argument("--trace", action="store_true", help="show every instruction that is run, not just the last")
    parser.add_argument("--skip", action="store_true", help="skip instructions that the emulator cannot run")


def add_count(parser: argparse.ArgumentParser, default: int | None = 1) -> None:
    """The operand that says how many instructions to run."""
    parser.add_argument("count", nargs="?", type=int, default=default, help="how many instructions (default: 1)")


# Options that are about the emulator: with one of them a copy is stepped even where there is a live guest.
_EMULATED = ("at", "args", "restart", "frame", "zero", "text", "site", "skip")


def moves_guest(debugger: Debugger, arguments: argparse.Namespace) -> bool:
    """Whether the live guest itself is moved, and not a copy of it."""
    given = vars(arguments)
    return debugger.guest is not None and not any(given.get(name) for name in _EMULATED)

"""dev: character and block devices, disks, and the requests that their drivers have."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.subsystems.devices import (
    MAX_DEVICES,
    BlockMajor,
    CharacterDevice,
    Disk,
    Request,
    block_majors,
    character_devices,
    disks,
    requests,
)
from orcdbg.subsystems.machine import monotonic_time


@dataclass(frozen=True, slots=True)
class Devices(Result):
    """Character devices and the majors of block devices."""

    characters: Sequence[CharacterDevice]
    blocks: Sequence[BlockMajor]
    symbols: Mapping[int, str]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Disks(Result):
    """Disks and the requests under way; `now` is the monotonic clock, None where it is not known."""

    disks: Sequence[Disk]
    requests: Sequence[Request]
    now: int | None
    symbols: Mapping[int, str]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", "--disks", action="store_true", help="the disks, and the requests that their drivers have, with their age"
    )


@command(
    "dev",
    summary="show character and block devices, disks and their requests",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(("dev", "the registered devices"), ("dev -d", "disks, and the requests that are under way")),
)
def dev(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with devices, or with disks and their requests."""
    program = debugger.session.program
    budget = Budget(MAX_DEVICES)
    if not arguments.disks:
        characters, blocks = character_devices(program, budget), block_majors(program, budget)
        symbols = names_of(debugger, (one.operations for one in characters))
        return Devices(characters, blocks, symbols, budget.lines())

    found = disks(program, budget)
    waiting: list[Request] = []
    for disk in found:
        try:
            waiting += requests(program, disk, budget)
        except OrcdbgError as error:
            budget.note_error(f"the requests of {disk.name}", disk.queue, error)
    problems = budget.lines()
    now = None
    try:
        now = monotonic_time(program)
    except OrcdbgError as error:
        problems.append(f"the clock: {error}")
    return Disks(found, waiting, now, names_of(debugger, (disk.operations for disk in found)), problems)

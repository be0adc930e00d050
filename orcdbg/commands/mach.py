"""mach: the processors, and where their stacks are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.kernel.stacks import Stack, cpu_stacks
from orcdbg.kernel.tasks import started_cpus
from orcdbg.subsystems import machine
from orcdbg.subsystems.machine import Cpu, MemoryRange


@dataclass(frozen=True, slots=True)
class Machine(Result):
    """The machine: what of it is not known is None, and a problem says why.

    Attributes:
        cpus: those that are present.
        memory: bytes that the kernel manages.
        tick: nanoseconds of a tick.
        page_size: in bytes.
        page_levels: of the page tables.
        stacks: of each CPU, besides those of tasks.
        problems: what could not be read.
    """

    cpus: Sequence[Cpu]
    memory: int | None
    tick: int | None
    page_size: int
    page_levels: int
    stacks: Sequence[tuple[int, Stack]]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class MemoryMapOfMachine(Result):
    """With `-m`: the physical memory as the firmware described it (e820)."""

    ranges: Sequence[MemoryRange]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m", "--memory-map", action="store_true", help="the physical memory as the firmware described it"
    )


@command(
    "mach",
    summary="show the processors and their stacks",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(
        ("mach", "the processors, and where their interrupt and exception stacks are"),
        ("mach -m", "physical memory"),
    ),
)
def mach(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the processors, or with the map of physical memory."""
    session = debugger.session
    if arguments.memory_map:
        return MemoryMapOfMachine(machine.memory_map(session.program))

    problems: list[str] = []
    cpus: Sequence[Cpu] = ()
    memory = tick = None
    try:
        cpus = machine.cpus(session.program)
    except OrcdbgError as error:
        problems.append(f"the processors: {error}")
    try:
        memory = machine.total_memory(session.program)
    except OrcdbgError as error:
        problems.append(f"the size of memory: {error}")
    try:
        tick = machine.tick_length(session.program)
    except OrcdbgError as error:
        problems.append(f"the length of a tick: {error}")
    stacks = []
    for cpu in started_cpus(session.linux):
        try:
            stacks += [(cpu, stack) for stack in cpu_stacks(session.linux, cpu)]
        except OrcdbgError as error:
            problems.append(f"the stacks of CPU {cpu}: {error}")
    return Machine(cpus, memory, tick, PAGE, session.memory.levels, stacks, problems)

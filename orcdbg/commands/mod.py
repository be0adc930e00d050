"""mod: the loaded modules."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.kernel.modules import Module


@dataclass(frozen=True, slots=True)
class Modules(Result):
    """Loaded modules; `taints` are the letters of each by its address, None where they were not asked for."""

    modules: Sequence[Module]
    problems: Sequence[str]
    taints: Mapping[int, str] | None = None


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-t", "--taints", action="store_true", help="only modules that taint the kernel, and how")


def _taints(debugger: Debugger, module: Module) -> str:
    """The letters of what a module taints the kernel by."""
    from orcdbg.subsystems.machine import taint_letters  # a list of modules needs none of it

    return taint_letters(int(debugger.session.object("struct module", module.address).member_("taints")))


@command(
    "mod",
    summary="list the loaded modules",
    group="machine",
    arguments=_arguments,
    aliases=("lsmod",),
    examples=(("mod", "all of them"), ("mod -t", "those that taint the kernel")),
)
def mod(debugger: Debugger, arguments: argparse.Namespace) -> Modules:
    """Answers with the modules in the kernel's list."""
    names = debugger.session.names
    if not arguments.taints:
        return Modules(names.modules, names.problems)
    problems = list(names.problems)
    taints: dict[int, str] = {}
    for module in names.modules:
        try:
            taints[module.address] = _taints(debugger, module)
        except OrcdbgError as error:
            problems.append(f"taints of module {module.name}: {error}")
    return Modules([module for module in names.modules if taints.get(module.address)], problems, taints)

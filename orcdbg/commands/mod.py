"""mod: the loaded modules."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.kernel.modules import Module


@dataclass(frozen=True, slots=True)
class Modules(Result):
    """Loaded modules."""

    modules: Sequence[Module]
    problems: Sequence[str]


@command("mod", summary="list the loaded modules", group="machine", aliases=("lsmod",))
def mod(debugger: Debugger, arguments: argparse.Namespace) -> Modules:
    """Answers with the modules in the kernel's list."""
    names = debugger.session.names
    return Modules(names.modules, names.problems)

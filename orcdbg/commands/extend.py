"""extend: plug-ins at run time."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, Registry, command
from orcdbg.commands.result import TextLines


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a plug-in: a Python file with register(api)")


@command(
    "extend",
    summary="load a plug-in's commands",
    group="session",
    effect=Effect.RUNS_CODE,
    arguments=_arguments,
    examples=(("extend ./triage.py", "as --plugin does; its words are known from then on"),),
)
def extend(debugger: Debugger, arguments: argparse.Namespace) -> TextLines:
    """Answers with the words that are new."""
    registry: Registry = arguments.registry
    if registry.extend is None:
        raise UsageError("plug-ins can be loaded by the program alone", "orcdbg --plugin FILE")
    before = set(registry.words)
    remarks = registry.extend(arguments.files)
    return TextLines([f"new words: {', '.join(sorted(set(registry.words) - before)) or 'none'}", *remarks])

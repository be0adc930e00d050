"""analyze: what did the kernel die of, how sure is that, and what shows it?"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from orcdbg.analysis.analysis import Analysis, analyze
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result


@dataclass(frozen=True, slots=True)
class Analyzed(Result):
    """An analysis; `verbose` shows all evidence."""

    analysis: Analysis
    verbose: bool


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="show all evidence")


@command(
    "analyze",
    summary="tell what the kernel died of, how sure that is, and what shows it",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(
        ("analyze", "what it died of, and the ten points of every dump"),
        ("analyze -v", "with the evidence of each statement, and the command that shows it"),
    ),
)
def analyze_kernel(debugger: Debugger, arguments: argparse.Namespace) -> Analyzed:
    """Answers with findings, each with its certainty and evidence."""
    return Analyzed(analyze(debugger.session), arguments.verbose)

"""orc: the ORC row for an address, and the rule that holds there."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.orc.cfa import bp_rule
from orcdbg.orc.effective import Derived, Effective
from orcdbg.orc.table import OrcEntry


@dataclass(frozen=True, slots=True)
class OrcAnswer(Result):
    """The ORC row for an address and the rule that holds there."""

    address: int
    symbol: str | None
    entry: OrcEntry | None
    effective: Effective
    bp_rule: str | None


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "where", nargs="?", metavar="ADDR|SYMBOL", help="the address (default: the selected frame's ip)"
    )


@command(
    "orc",
    summary="show the ORC row for an address, and the rule that holds there",
    group="code",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    examples=(("orc schedule+0x46", "row as built, and as corrected for patches"),),
)
def orc(debugger: Debugger, arguments: argparse.Namespace) -> OrcAnswer:
    """Answers with the row for an address as it is given, or for a frame's return address less 1."""
    session = debugger.session
    if arguments.where:
        address, exact = debugger.address(arguments.where), True
    else:
        frame = debugger.frame()
        address, exact = frame.ip, frame.exact
    effective = session.overlay.at(address, exact)
    row = effective.row if isinstance(effective, Derived) else effective.entry.row if effective.entry else None
    symbol = session.names.describe(address, exact)
    return OrcAnswer(address, symbol, effective.entry, effective, bp_rule(row) if row else None)

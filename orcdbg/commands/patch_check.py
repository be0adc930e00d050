"""patch check: in which patched text do the kernel's own ORC rows not hold?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from orcdbg.base.exit_status import ExitStatus
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect
from orcdbg.commands.result import Result
from orcdbg.kernel.names import Names
from orcdbg.orc.check import CheckReport, check_kernel


@dataclass(frozen=True, slots=True)
class Check(Result):
    """Boundaries where the kernel's ORC rows do not hold; `symbols` names them by address."""

    report: CheckReport
    symbols: Mapping[int, str | None]

    @property
    def exit_status(self) -> ExitStatus:
        """5 where a row does not hold."""
        return ExitStatus.FOUND_SOMETHING if self.report.hazards else ExitStatus.DONE


def add_check(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`patch check`."""
    parser = actions.add_parser(
        "check", help="find ORC rows that patched text makes wrong; exit status 5 if there are any", allow_abbrev=False
    )
    parser.set_defaults(answer=check_text, effect=Effect.NONE)


def check_text(debugger: Debugger, arguments: argparse.Namespace) -> Check:
    """Every boundary where row and instructions disagree."""
    session = debugger.session
    report = check_kernel(session.code, session.overlay)
    symbols = {h.boundary.address: short_name(session.names, h.boundary.address) for h in report.hazards}
    return Check(report, symbols)


def short_name(names: Names, address: int) -> str | None:
    """`symbol+0xoffset`, in the contract's form."""
    found = names.at(address)
    return None if found is None else f"{found.symbol}+{address - found.start:#x}"

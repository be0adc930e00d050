"""patch audit: is all text what it must be?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from orcdbg.base.exit_status import ExitStatus
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.module_files import audit_modules
from orcdbg.commands.patch_check import short_name
from orcdbg.commands.registry import Effect
from orcdbg.commands.result import Result
from orcdbg.patches.audit.account import AuditReport
from orcdbg.patches.audit.core_text import audit_kernel


@dataclass(frozen=True, slots=True)
class Audit(Result):
    """The account of all text: the kernel's own, and each module's by name.

    `symbols` names the wrong stretches by address, `unaudited` names the modules whose text has no account, and says why.
    """

    kernel: AuditReport
    modules: Mapping[str, AuditReport]
    symbols: Mapping[int, str | None]
    unaudited: Mapping[str, str]
    strict: bool = False

    @property
    def exit_status(self) -> ExitStatus:
        """5 where a text is not what it must be and `strict` asks for it."""
        clean = all(report.clean for report in (self.kernel, *self.modules.values()))
        return ExitStatus.FOUND_SOMETHING if self.strict and not clean else ExitStatus.DONE


def add_audit(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`patch audit`."""
    parser = actions.add_parser("audit", help="compare all text with what it should be", allow_abbrev=False)
    parser.add_argument("--strict", action="store_true", help="exit with status 5 when something is wrong")
    parser.add_argument("--modules", metavar="DIR", help="where the .ko files of the loaded modules are, at any depth")
    parser.set_defaults(answer=audit_text, effect=_effect)


def _effect(arguments: argparse.Namespace) -> Effect:
    """`--modules` names files to read."""
    return Effect.NONE if arguments.modules is None else Effect.READS_FILES


def audit_text(debugger: Debugger, arguments: argparse.Namespace) -> Audit:
    """The account of the kernel's text and, where their files are given, of its modules'."""
    session = debugger.session
    kernel = audit_kernel(session.patches)
    kernel.problems += session.names.problems  # modules that are not known have no account
    modules, unaudited = audit_modules(session, arguments.modules)
    reports = [kernel, *modules.values()]
    ranges = [found for report in reports for found in (*report.unexplained_ranges, *report.mismatched_ranges)]
    symbols = {found.address: short_name(session.names, found.address) for found in ranges}
    return Audit(kernel, modules, symbols, unaudited, arguments.strict)

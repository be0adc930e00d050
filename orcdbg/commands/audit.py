"""patch audit, check, replay: is all text what it must be, do the rows hold in it, and what must it be?"""

from __future__ import annotations

import argparse

import numpy as np

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.module_files import audit_modules
from orcdbg.commands.results import Audit, Check, Replay, Result
from orcdbg.commands.writing import refuse_inputs, replacing
from orcdbg.formats.elf_writing import CodeStretch, Label, encode_elf
from orcdbg.kernel.names import Names
from orcdbg.orc.check import check_kernel
from orcdbg.patches.audit.core_text import audit_kernel, replayed_kernel
from orcdbg.target.session import Session

FOUND_SOMETHING = 5


def add_arguments(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommands of `patch` that look at all text."""
    actions.add_parser("check", help="find rows that do not hold in patched text; exit status 5", allow_abbrev=False)
    audit = actions.add_parser("audit", help="compare all text with what it must be", allow_abbrev=False)
    audit.add_argument("--strict", action="store_true", help="exit with status 5 when something is wrong")
    audit.add_argument("--modules", metavar="DIR", help="where the .ko files of the loaded modules are, at any depth")
    replay = actions.add_parser("replay", help="write the text as the passes leave it", allow_abbrev=False)
    replay.add_argument("-o", "--output", metavar="FILE", required=True, help="an ELF file that objdump opens")


def audit_text(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """`patch audit`."""
    session = debugger.session
    kernel = audit_kernel(session.patches)
    kernel.problems += session.names.problems  # modules that are not known have no account
    modules, unaudited = audit_modules(session, arguments.modules)
    reports = [kernel, *modules.values()]
    ranges = [found for report in reports for found in (*report.unexplained_ranges, *report.mismatched_ranges)]
    symbols = {found.address: short_name(session.names, found.address) for found in ranges}
    wrong = not all(report.clean for report in reports)
    return Audit(kernel, modules, symbols, unaudited, FOUND_SOMETHING if arguments.strict and wrong else 0)


def check_text(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """`patch check`."""
    session = debugger.session
    report = check_kernel(session.code, session.overlay)
    symbols = {h.boundary.address: short_name(session.names, h.boundary.address) for h in report.hazards}
    return Check(report, symbols, FOUND_SOMETHING if report.hazards else 0)


def short_name(names: Names, address: int) -> str | None:
    """`symbol+0xoffset`, in the contract's form."""
    found = names.at(address)
    return None if found is None else f"{found.symbol}+{address - found.start:#x}"


def _labels(session: Session, start: int, end: int) -> list[Label]:
    """The symbols in a stretch of the kernel's text, at run-time addresses."""
    table, slide = session.symbols, session.slide
    values = table.entries["value"] + np.uint64(slide)
    inside = (values >= np.uint64(start)) & (values < np.uint64(end)) & ((table.entries["info"] & 15) <= 2)
    inside &= table.entries["name"] != 0
    rows = np.flatnonzero(inside)
    sizes = table.entries["size"]
    return [Label(table.name_of(row), int(values[row]), int(sizes[row]), 0) for row in rows.tolist()]


def replay_text(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """`patch replay`."""
    session = debugger.session
    refuse_inputs(arguments.output, session.files)  # before the work, which takes its time
    replayed = replayed_kernel(session.patches)
    text = replayed.text
    labels = _labels(session, text.address, text.end)
    data = encode_elf([CodeStretch(".text", text.address, bytes(text.data))], labels)
    with replacing(arguments.output, session.files) as file:
        file.write(data)
    return Replay(arguments.output, text.address, len(text.data), len(labels), replayed.problems)

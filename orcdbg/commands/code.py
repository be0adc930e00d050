"""dis, orc, patch: text as it ran, the rules that hold in it, and why it differs from the image."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

from orcdbg.base.errors import MemoryFault, NotFound, UsageError
from orcdbg.commands import audit
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.disassembler import disassemble
from orcdbg.commands.journal import export_patches
from orcdbg.commands.lines import positions_of
from orcdbg.commands.registry import Command
from orcdbg.commands.results import Disassembly, OrcAnswer, Result, Sites, SiteState
from orcdbg.orc.cfa import bp_rule
from orcdbg.orc.effective import Derived
from orcdbg.patches.audit.account import RELOCATION
from orcdbg.patches.ledger import PatchLedger
from orcdbg.patches.site import PatchSite
from orcdbg.patches.sweep import FromMemory
from orcdbg.target.session import Session
from orcdbg.x86.instructions import decode_one


def _dis_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", nargs="?", metavar="ADDR|SYMBOL", help="the selected frame's ip without")
    parser.add_argument("count", nargs="?", type=int, help="how many instructions")
    parser.add_argument("-r", "--reverse", action="store_true", help="from the function's start up to the address")
    parser.add_argument("-f", "--forward", action="store_true", help="from the address to the function's end")
    parser.add_argument("-l", "--lines", action="store_true", help="source lines and inlined functions, from DWARF")
    parser.add_argument("--diff", action="store_true", help="show what the image had where text was changed")


def _dis(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    session = debugger.session
    if arguments.count is not None and arguments.count <= 0:
        raise UsageError(f"not a count of instructions: {arguments.count}")
    address = debugger.address(arguments.where) if arguments.where else debugger.frame().ip
    location = session.names.at(address)
    end = location.start + location.size if location else address + 16
    if arguments.reverse:
        if location is None:
            raise NotFound("function", f"{address:#x}", "-r needs an address inside a function")
        start, end = location.start, address + 1
    else:
        start = address
    count = arguments.count
    is_whole = location is not None and location.start == address
    if count is None and not is_whole and not arguments.reverse and not arguments.forward:
        count = 1 if arguments.where else 8
    if count is not None:
        end = max(end, start + 15 * count)
    lines = disassemble(session, start, end, None if arguments.reverse else count)
    if arguments.reverse and arguments.count:
        lines = lines[-arguments.count :]
    positions, problems = positions_of(session, [one.address for one in lines]) if arguments.lines else ({}, [])
    return Disassembly(lines, session.text.read_from(start, 1)[1], arguments.diff, positions, problems)


def _orc_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", nargs="?", metavar="ADDR|SYMBOL", help="the selected frame's ip without")


def _orc(debugger: Debugger, arguments: argparse.Namespace) -> Result:
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


def _patch_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|at|audit|check|replay|export")
    lister = actions.add_parser("list", help="the recorded patch sites", allow_abbrev=False)
    lister.add_argument("--mechanism", help="only sites of one mechanism, such as paravirt")
    lister.add_argument("--symbol", help="only sites in one function")
    lister.add_argument("--changed", action="store_true", help="only sites whose bytes in memory are not the image's")
    at = actions.add_parser("at", help="what covers an address", allow_abbrev=False)
    at.add_argument("where", metavar="ADDR|SYMBOL")
    audit.add_arguments(actions)
    export = actions.add_parser("export", help="write the recorded patches to a file", allow_abbrev=False)
    export.add_argument("-o", "--output", metavar="FILE", required=True, help="a journal that --patches takes")


def _state(debugger: Debugger, site: PatchSite) -> SiteState:
    session = debugger.session
    try:
        memory = session.memory.read(site.address, site.size)
    except MemoryFault:
        memory = None
    return SiteState(site, memory, session.names.describe(site.address))


def _patch_at(debugger: Debugger, where: str) -> Result:
    session, address = debugger.session, debugger.address(where)
    session.patches.need_listed()
    cluster = session.ledger.find(address)
    if cluster is None:
        moved = list(_relocations(session, address, address + _size_at(session, address)))
    else:
        moved = list(_relocations(session, cluster.address, cluster.end))
    sites = [*moved, *(replace(site, order=site.order + len(moved)) for site in (cluster.sites if cluster else ()))]
    return Sites([_state(debugger, site) for site in sites], len(sites))


def _size_at(session: Session, address: int) -> int:
    """Bytes of the instruction at an address, 1 where there is none to be read."""
    try:
        found = decode_one(session.text.read(address, 15), address)
    except MemoryFault:
        return 1
    return found.size if found else 1


def _relocations(session: Session, start: int, end: int) -> Iterator[PatchSite]:
    """What the boot loader changed in [start, end) before the kernel ran, as the first pass there."""
    if not session.is_image_text(start):
        return
    location = session.names.at(start)
    boundary = location.start if location else start
    for order, (at, linked, moved) in enumerate(session.built.fields(start, end, boundary)):
        yield PatchSite(RELOCATION, at, len(linked), "address", linked, moved, f"slide {session.slide:#x}", order)


def _patch_list(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    session = debugger.session
    session.patches.need_listed()
    known = session.ledger.mechanisms
    if arguments.mechanism not in (None, *known):
        raise NotFound("mechanism", arguments.mechanism, "this kernel's are " + ", ".join(known))
    clusters = session.ledger.clusters(arguments.mechanism)
    if arguments.symbol:
        start = debugger.address(arguments.symbol)
        location = session.names.at(start)
        end = location.start + location.size if location else start + 1
        clusters = iter(session.ledger.between(start, end))
    found = [
        _state(debugger, site)
        for cluster in clusters
        for site in cluster.sites
        if arguments.mechanism in (None, site.mechanism)
    ]
    if arguments.changed:
        found = [state for state in found if state.memory is not None and state.memory != state.site.image]
    for the_pass in session.ledger.passes if isinstance(session.ledger, PatchLedger) else ():
        # Sites are listed as far as the kernel's own lists go; the listing has no place for where those break off.
        lines = the_pass.unlisted() if isinstance(the_pass, FromMemory) else []
        new = (f"{the_pass.mechanism}: not all of its sites are known: {line}" for line in lines)
        session.warnings += [line for line in new if line not in session.warnings]
    return Sites(found, len(found))


def _patch(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    if arguments.action == "at":
        return _patch_at(debugger, arguments.where)
    if arguments.action == "list":
        return _patch_list(debugger, arguments)
    if arguments.action == "check":
        return audit.check_text(debugger, arguments)
    if arguments.action == "audit":
        return audit.audit_text(debugger, arguments)
    if arguments.action == "export":
        return export_patches(debugger, arguments.output)
    if arguments.action == "replay":
        return audit.replay_text(debugger, arguments)
    raise UsageError("patch what?", "patch list, at ADDR, audit, check, replay -o FILE, or export -o FILE")


COMMANDS = (
    Command(
        "dis",
        "disassemble text as it ran, with the CFA rule at every instruction",
        "code",
        _dis,
        _dis_arguments,
        examples=(
            ("dis schedule", "a whole function"),
            ("dis --diff _raw_spin_lock_irqsave 5", "with what the image had where text was changed"),
            ("dis -r ffffffff818b5e08", "from the function's start up to an address"),
        ),
        operands=("symbol",),
    ),
    Command(
        "orc",
        "show the ORC row for an address, and the rule that holds there",
        "code",
        _orc,
        _orc_arguments,
        examples=(("orc schedule+0x46", "row as built, and as corrected for patches"),),
        operands=("symbol",),
    ),
    Command(
        "patch",
        "show what the kernel wrote over its own text, and why",
        "code",
        _patch,
        _patch_arguments,
        examples=(
            ("patch at _raw_spin_lock_irqsave+7", "every pass that wrote there, in order"),
            ("patch list --mechanism paravirt --changed", "all paravirt sites that were patched"),
            ("patch audit --strict", "account for every byte of text; exit status 5 when one is wrong"),
            ("patch check", "boundaries in patched text where the kernel's own rows do not hold"),
            ("patch replay -o text.elf", "the text as the passes leave it, for objdump"),
        ),
        operands=("symbol", "mechanism"),
    ),
)

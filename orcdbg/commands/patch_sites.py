"""patch at, patch list: which places did the kernel patch, by which mechanism, and what stands there now?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import MemoryFault, NotFound
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect
from orcdbg.commands.result import Result
from orcdbg.patches.audit.account import RELOCATION
from orcdbg.patches.ledger import PatchLedger
from orcdbg.patches.site import PatchSite
from orcdbg.patches.sweep import FromMemory
from orcdbg.target.session import Session
from orcdbg.x86.instructions import decode_one

Actions = argparse._SubParsersAction


@dataclass(frozen=True, slots=True)
class SiteState:
    """A patch site and the bytes that are there now, None where the snapshot lacks them."""

    site: PatchSite
    memory: bytes | None
    symbol: str | None


@dataclass(frozen=True, slots=True)
class Sites(Result):
    """Patch sites in order of address, then in the order in which the kernel applied them."""

    sites: Sequence[SiteState]
    total: int


def add_list(actions: Actions[argparse.ArgumentParser]) -> None:
    """`patch list`."""
    parser = actions.add_parser("list", help="list the patch sites", allow_abbrev=False)
    parser.add_argument("--mechanism", help="only sites of one mechanism, such as paravirt")
    parser.add_argument("--symbol", help="only sites in one function")
    parser.add_argument("--changed", action="store_true", help="only sites whose bytes in memory are not the image's")
    parser.set_defaults(answer=list_sites, effect=Effect.NONE)


def add_at(actions: Actions[argparse.ArgumentParser]) -> None:
    """`patch at`."""
    parser = actions.add_parser("at", help="show the patch sites at an address", allow_abbrev=False)
    parser.add_argument("where", metavar="ADDR|SYMBOL")
    parser.set_defaults(answer=sites_at, effect=Effect.NONE)


def _state(debugger: Debugger, site: PatchSite) -> SiteState:
    session = debugger.session
    try:
        memory = session.memory.read(site.address, site.size)
    except MemoryFault:
        memory = None
    return SiteState(site, memory, session.names.describe(site.address))


def sites_at(debugger: Debugger, arguments: argparse.Namespace) -> Sites:
    """Every pass that wrote at an address, in the order in which the kernel ran them."""
    session, address = debugger.session, debugger.address(arguments.where)
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


def list_sites(debugger: Debugger, arguments: argparse.Namespace) -> Sites:
    """The sites that the image's tables and the kernel's state record."""
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
    states = [
        _state(debugger, site)
        for cluster in clusters
        for site in cluster.sites
        if arguments.mechanism in (None, site.mechanism)
    ]
    if arguments.changed:
        states = [state for state in states if state.memory is not None and state.memory != state.site.image]
    for the_pass in session.ledger.passes if isinstance(session.ledger, PatchLedger) else ():
        # Sites are listed as far as the kernel's own lists go; the listing has no place for where those break off.
        lines = the_pass.unlisted() if isinstance(the_pass, FromMemory) else []
        new = (f"{the_pass.mechanism}: not all of its sites are known: {line}" for line in lines)
        session.warnings += [line for line in new if line not in session.warnings]
    return Sites(states, len(states))

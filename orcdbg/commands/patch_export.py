"""patch export: which patches are recorded here, for a machine that has no image to tell them by?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orcdbg.base.errors import MemoryFault, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect
from orcdbg.commands.result import Result
from orcdbg.commands.writing import replacing
from orcdbg.orc.check import check_kernel
from orcdbg.patches.journal import JournalLedger, Rule, cluster_json, write_journal
from orcdbg.patches.ledger import Cluster, PatchLedger
from orcdbg.target.session import Session


@dataclass(frozen=True, slots=True)
class Exported(Result):
    """A journal that was written: how many places, those that walks ask about a second time, and corrected rows."""

    path: str
    size: int
    places: int
    rows: int


def add_export(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`patch export`."""
    parser = actions.add_parser("export", help="write the recorded patches to a file", allow_abbrev=False)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the journal to write, for --patches")
    parser.set_defaults(
        answer=lambda debugger, arguments: export_patches(debugger, arguments.output), effect=Effect.WRITES_FILES
    )


def _memory(session: Session, cluster: Cluster) -> bytes | None:
    try:
        return session.memory.read(cluster.address, len(cluster.image))
    except MemoryFault:
        return None


def _rules(session: Session) -> dict[int, list[Rule]]:
    """The boundaries where rows do not hold, by the place they are in."""
    found: dict[int, list[Rule]] = {}
    for hazard in check_kernel(session.code, session.overlay).hazards:
        boundary = hazard.boundary
        cluster = session.stack_ledger.find(boundary.address - 1)
        if cluster is not None:
            rule = Rule(boundary.address, str(boundary.stated), str(boundary.true))
            found.setdefault(cluster.address, []).append(rule)
    return found


def _places(
    session: Session, ledger: PatchLedger | JournalLedger, rules: dict[int, list[Rule]]
) -> Iterator[dict[str, Any]]:
    for cluster in ledger.clusters():
        if session.is_image_text(cluster.address) and session.is_image_text(cluster.end - 1) and cluster.sites:
            yield dict(cluster_json(cluster, _memory(session, cluster), rules.get(cluster.address, ())))


def export_patches(debugger: Debugger, path: str) -> Exported:
    """`patch export`.

    Raises:
        NotFound: there is no image.
        UsageError: the kernel has no build-id, or the file cannot be written.
    """
    session = debugger.session
    session.patches.need_image("what was patched")
    build_id = session.image.build_id
    if build_id is None:
        raise UsageError("this kernel has no build-id, so nobody could tell whose patches these are")
    release = session.snapshot.vmcoreinfo.get("OSRELEASE", "")
    head = {"build_id": build_id, "release": release, "slide": f"{session.slide:#x}"}
    with replacing(path, session.files) as file:
        rules = _rules(session)
        places = write_journal(
            file, head, _places(session, session.ledger, {}), _places(session, session.stack_ledger, rules)
        )
    return Exported(path, Path(path).stat().st_size, places, sum(map(len, rules.values())))

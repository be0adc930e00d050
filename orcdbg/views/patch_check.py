"""How do places look where the kernel's own rows do not hold?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.patch_check import Check
from orcdbg.orc.check import CheckedBoundary
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, hexadecimal, view


def hazard_line(found: CheckedBoundary, place: str, patch: str) -> Line:
    """One hazard: where, what the row says and what is true, and what made it so."""
    return line(
        ("~ ", "mark"),
        f"{found.address:016x}  ",
        (f"{place:<40}", "symbol"),
        f"  ORC {found.stated}, true {found.true}  ",
        (f"after {found.after}; {patch}", "reason"),
    )


def hazard_json(found: CheckedBoundary, symbol: str | None, mechanism: str, name: str, site: int) -> Json:
    """A HAZARD of the contract."""
    return {
        "address": hexadecimal(found.address),
        "symbol": symbol,
        "mechanism": mechanism,
        "name": name,
        "site": hexadecimal(site),
        "after": found.after,
        "orc_rule": str(found.stated),
        "true_rule": str(found.true),
        "adjust": found.true.offset - found.stated.offset,
    }


def _lines(result: Check, width: Width) -> Iterator[Line]:
    for hazard in result.report.hazards:
        name = result.symbols[hazard.boundary.address] or "(no symbol)"
        yield hazard_line(hazard.boundary, name, f"{hazard.site.mechanism} {hazard.site.name}")
    report = result.report
    unread = f", {report.unread} sites not in the snapshot" if report.unread else ""
    summary = f"{len(report.hazards)} hazards; {report.sites} sites, {report.boundaries} boundaries checked{unread}"
    yield line((summary, "note"))


def _json(result: Check) -> Json:
    """The hazards of a running kernel's text."""
    hazards = [
        hazard_json(h.boundary, result.symbols[h.boundary.address], h.site.mechanism, h.site.name, h.site.address)
        for h in result.report.hazards
    ]
    report = result.report
    counts = {"sites_checked": report.sites, "boundaries_checked": report.boundaries, "sites_unread": report.unread}
    return {"hazards": hazards, **counts}


view(Check, text=_lines, json=_json)

"""How do the account of patched text, the checks of its rows, and ORC tables look to a program?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from orcdbg.commands import results
from orcdbg.commands.journal import Exported
from orcdbg.orc.check import Boundary
from orcdbg.orc.table import OrcEntry
from orcdbg.orc.union import UnionRow
from orcdbg.patches.audit.account import AuditReport, Difference

Json = dict[str, Any]


def hexadecimal(value: int | None) -> str | None:
    """An address as the contract writes it."""
    return None if value is None else f"{value:#x}"


def orc_json(entry: OrcEntry | None) -> Json | None:
    """A row and where it stands, None where no row covers the address."""
    if entry is None:
        return None
    row = entry.row
    return {
        "table": entry.table,
        "index": entry.number,
        "entry_ip": hexadecimal(entry.entry_ip),
        "address": hexadecimal(entry.address),
        "raw": entry.raw.hex(),
        "sp_reg": row.sp_reg.value,
        "sp_offset": row.sp_offset,
        "bp_reg": row.bp_reg.value,
        "bp_offset": row.bp_offset,
        "type": row.type.value,
        "signal": row.signal,
    }


def _difference(found: Difference, symbol: str | None) -> Json:
    return {
        "address": hexadecimal(found.address),
        "size": len(found.memory),
        "symbol": symbol,
        "mechanism": found.mechanism,
        "image": found.image.hex(),
        "expected": found.expected.hex(),
        "memory": found.memory.hex(),
    }


def _audit(report: AuditReport, symbols: Mapping[int, str | None]) -> Json:
    """The figures of one text."""
    return {
        "text_bytes": report.end - report.start,
        "differing_bytes": report.differing,
        "explained_bytes": report.explained,
        "unexplained_bytes": report.unexplained,
        "mismatched_bytes": report.mismatched,
        "undecided_bytes": report.undecided,
        "missing_pages": report.missing_pages,
        "by_mechanism": {name: dataclasses.asdict(count) for name, count in report.mechanisms.items()},
        "unexplained": [_difference(found, symbols.get(found.address)) for found in report.unexplained_ranges],
        "mismatched": [_difference(found, symbols.get(found.address)) for found in report.mismatched_ranges],
        "problems": list(report.problems),
        "notes": list(report.notes),
    }


def _hazard(found: Boundary, symbol: str | None, mechanism: str, name: str, site: int) -> Json:
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


def check_json(result: results.Check) -> Json:
    """The hazards of a running kernel's text."""
    hazards = [
        _hazard(h.boundary, result.symbols[h.boundary.address], h.site.mechanism, h.site.name, h.site.address)
        for h in result.report.hazards
    ]
    report = result.report
    counts = {"sites_checked": report.sites, "boundaries_checked": report.boundaries, "sites_unread": report.unread}
    return {"hazards": hazards, **counts}


def _union_row(row: UnionRow, symbols: Mapping[int, str | None]) -> Json:
    rules = [{"rule": str(rule), "variants": list(names)} for rule, names in row.rules.items()]
    return {
        "address": hexadecimal(row.address),
        "symbol": symbols.get(row.address),
        "site": hexadecimal(row.site),
        "orc_rule": str(row.stated),
        "rules": rules,
    }


def static_check_json(result: results.StaticCheck) -> Json:
    """The hazards of a build, over all alternatives."""
    hazards = [
        _hazard(h.boundary, result.symbols.get(h.boundary.address), h.variant.mechanism, h.variant.name, h.site)
        for h in result.union.hazards
    ]
    return {
        "hazards": hazards,
        "conflicts": [_union_row(row, result.symbols) for row in result.union.conflicts],
        "sites_checked": result.union.sites,
        "variants_checked": result.union.variants,
        "boundaries_checked": sum(len(names) for row in result.union.rows.values() for names in row.rules.values()),
        "problems": list(result.union.problems),
    }


def union_json(result: results.Union) -> Json:
    """The rows of all alternatives of each site."""
    rows = [_union_row(row, result.symbols) for _, row in sorted(result.union.rows.items())]
    return {"rows": rows, "problems": list(result.union.problems)}


def dump_json(result: results.OrcDump) -> Json:
    """A table as it is."""
    rows = [orc_json(result.table.entry(index)) for index in range(len(result.table))]
    return {"layout": result.layout, "rows": rows}


def audit_json(result: results.Audit) -> Json:
    """The account of the kernel's text and its modules'."""
    modules = {name: _audit(report, result.symbols) for name, report in result.modules.items()}
    return {**_audit(result.kernel, result.symbols), "modules": modules, "modules_not_audited": dict(result.unaudited)}


def replay_json(result: results.Replay) -> Json:
    """What was written where."""
    return {
        "file": result.path,
        "address": hexadecimal(result.address),
        "size": result.size,
        "symbols": result.symbols,
        "problems": list(result.problems),
    }


def exported_json(result: Exported) -> Json:
    """A journal that was written, for programs."""
    return {"path": result.path, "size": result.size, "places": result.places, "rows": result.rows}

"""How do an ORC row, and the patch that changes what it means, look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.orc.effective import PatchEffect
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.site import PatchSite
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, hexadecimal

LABEL = 16  # columns that labels take


def fact(label: str, value: str) -> Line:
    """A label in a column of its own, and what it stands for."""
    return line((f"{label:>{LABEL - 2}}  ", "label"), value)


def row_text(entry: OrcEntry) -> str:
    """An ORC row's fields as the kernel names them."""
    row = entry.row
    return (
        f"sp_reg {row.sp_reg.value}  sp_offset {row.sp_offset}  bp_reg {row.bp_reg.value}  bp_offset {row.bp_offset}  "
        f"type {row.type.value}  signal {int(row.signal)}"
    )


def entry_lines(entry: OrcEntry) -> Iterator[Line]:
    """An ORC entry: where it stands, its bytes, what they mean; or that it was derived, and to what."""
    if entry.derivation is not None:
        yield fact("ORC row", "none: derived from the instructions of the function")
        yield fact("", row_text(entry))
        return
    place = f" at {entry.address:016x}" if entry.address is not None else ""
    yield fact(
        "ORC row", f"{entry.table}[{entry.number}]{place}, from {entry.entry_ip:016x} on, bytes {entry.raw.hex(' ')}"
    )
    yield fact("", row_text(entry))


def site_lines(site: PatchSite) -> Iterator[Line]:
    """A patch site in two lines."""
    yield fact(f"pass {site.order}", f"{site.mechanism} {site.name} at {site.address:016x}, {site.size} bytes")
    yield fact("decided by", site.decided_by)


def orc_json(entry: OrcEntry | None) -> Json | None:
    """A row and where it stands, None where no table has a row for the address."""
    if entry is None or entry.derivation is not None:
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


def patch_json(patch: PatchEffect | None) -> Json | None:
    """PATCH of the contract."""
    if patch is None:
        return None
    return {
        "mechanism": patch.site.mechanism,
        "site": hexadecimal(patch.site.address),
        "name": patch.site.name,
        "adjust": patch.adjust,
        "instructions": list(patch.instructions),
        "stated_rule": patch.stated_rule,
        "decided_by": patch.site.decided_by,
        "text_from": patch.text_from.value,
    }

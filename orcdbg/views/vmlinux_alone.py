"""How do the checks of a vmlinux alone look, and an ORC table in the text form of `objtool --dump=orc`?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orcdbg.commands.vmlinux_alone import OrcDump, StaticCheck, Union
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.union import UnionRow
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.patch_check import hazard_json, hazard_line
from orcdbg.views.rows import orc_json
from orcdbg.views.view import Json, Width, hexadecimal, view

_OBJTOOL_NAMES = {OrcRegister.PREV_SP: "prevsp"}
_OBJTOOL_TYPES = {
    RowType.UNDEFINED: "(und)",
    RowType.END_OF_STACK: "end",
    RowType.REGS_PARTIAL: "regs (partial)",
}


def _place(address: int, symbols: Mapping[int, str | None]) -> str:
    return symbols.get(address) or "(no symbol)"


def check_lines(result: StaticCheck, width: Width) -> Iterator[Line]:
    """Hazards by alternative, then conflicts between alternatives, then what was looked at."""
    for hazard in result.union.hazards:
        place = _place(hazard.boundary.address, result.symbols)
        yield hazard_line(hazard.boundary, place, f"{hazard.variant.mechanism} {hazard.variant.name}")
    for row in result.union.conflicts:
        yield line(
            ("! ", "doubt"), f"{row.address:016x}  ", (_place(row.address, result.symbols), "symbol"), "  conflict:"
        )
        yield from _rule_lines(row)
    yield from problem_lines(result.union.problems)
    union = result.union
    counts = f"{len(union.hazards)} hazards, {len(union.conflicts)} conflicts; {union.sites} sites"
    yield line((f"{counts}, {union.variants} alternatives checked", "note"))


def _rule_lines(row: UnionRow) -> Iterator[Line]:
    for rule, names in row.rules.items():
        yield line(f"      {rule!s:<10}  ", (", ".join(names), "note"))


def union_lines(result: Union, width: Width) -> Iterator[Line]:
    """A line an address: the rule, or the rules, that alternatives need there."""
    for address, row in sorted(result.union.rows.items()):
        mark, style = ("!", "doubt") if row.conflicts else (" ", "")
        rules = " | ".join(str(rule) for rule in row.rules)
        agrees = "" if list(row.rules) == [row.stated] else f"  image says {row.stated}"
        names = ", ".join(name for names in row.rules.values() for name in names)
        yield line(
            (f"{mark} ", style),
            f"{address:016x}  ",
            (f"{_place(address, result.symbols):<40}", "symbol"),
            (f"  {rules:<10}", "rule"),
            (agrees, "reason"),
            (f"  {names}", "note"),
        )


def _objtool_register(register: OrcRegister, offset: int) -> str:
    if register is OrcRegister.UNDEFINED:
        return "(und)"
    if register is OrcRegister.BP_INDIRECT:
        return f"(bp{offset:+d})"
    return f"{_OBJTOOL_NAMES.get(register, register.value)}{offset:+d}"


def objtool_row(row: OrcRow) -> str:
    """A row as objtool writes it."""
    stack, frame = _objtool_register(row.sp_reg, row.sp_offset), _objtool_register(row.bp_reg, row.bp_offset)
    return f"type:{_OBJTOOL_TYPES.get(row.type, row.type.value)} sp:{stack} bp:{frame} signal:{int(row.signal)}"


def dump_lines(result: OrcDump, width: Width) -> Iterator[Line]:
    """A line a row."""
    for index in range(len(result.table)):
        entry = result.table.entry(index)
        yield line(f"{entry.entry_ip:x}: {objtool_row(entry.row)}")


def _union_row(row: UnionRow, symbols: Mapping[int, str | None]) -> Json:
    rules = [{"rule": str(rule), "variants": list(names)} for rule, names in row.rules.items()]
    return {
        "address": hexadecimal(row.address),
        "symbol": symbols.get(row.address),
        "site": hexadecimal(row.site),
        "orc_rule": str(row.stated),
        "rules": rules,
    }


def static_check_json(result: StaticCheck) -> Json:
    """The hazards of a build, over all alternatives."""
    hazards = [
        hazard_json(h.boundary, result.symbols.get(h.boundary.address), h.variant.mechanism, h.variant.name, h.site)
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


def union_json(result: Union) -> Json:
    """The rows of all alternatives of each site."""
    rows = [_union_row(row, result.symbols) for _, row in sorted(result.union.rows.items())]
    return {"rows": rows, "problems": list(result.union.problems)}


def dump_json(result: OrcDump) -> Json:
    """A table as it is."""
    rows = [orc_json(result.table.entry(index)) for index in range(len(result.table))]
    return {"layout": result.layout, "rows": rows}


view(StaticCheck, text=check_lines, json=static_check_json)
view(Union, text=union_lines, json=union_json)
view(OrcDump, text=dump_lines, json=dump_json)

"""How do the checks of a vmlinux alone look, and an ORC table in the text form of `objtool --dump=orc`?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orcdbg.commands.results import OrcDump, StaticCheck, Union
from orcdbg.orc.check import Boundary
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.union import UnionRow
from orcdbg.views.page import Line, line

_OBJTOOL_NAMES = {OrcRegister.PREV_SP: "prevsp"}
_OBJTOOL_TYPES = {
    RowType.UNDEFINED: "(und)",
    RowType.END_OF_STACK: "end",
    RowType.REGS_PARTIAL: "regs (partial)",
}


def _place(address: int, symbols: Mapping[int, str | None]) -> str:
    return symbols.get(address) or "(no symbol)"


def hazard_line(found: Boundary, place: str, patch: str) -> Line:
    """One hazard: where, what the row says and what is true, and what made it so."""
    return line(
        ("~ ", "mark"),
        f"{found.address:016x}  ",
        (f"{place:<40}", "symbol"),
        f"  ORC {found.stated}, true {found.true}  ",
        (f"after {found.after}; {patch}", "reason"),
    )


def check_lines(result: StaticCheck) -> Iterator[Line]:
    """Hazards by alternative, then conflicts between alternatives, then what was looked at."""
    for hazard in result.union.hazards:
        place = _place(hazard.boundary.address, result.symbols)
        yield hazard_line(hazard.boundary, place, f"{hazard.variant.mechanism} {hazard.variant.name}")
    for row in result.union.conflicts:
        yield line(
            ("! ", "doubt"), f"{row.address:016x}  ", (_place(row.address, result.symbols), "symbol"), "  conflict:"
        )
        yield from _rule_lines(row)
    for problem in result.union.problems:
        yield line(("! ", "doubt"), problem)
    union = result.union
    counts = f"{len(union.hazards)} hazards, {len(union.conflicts)} conflicts; {union.sites} sites"
    yield line((f"{counts}, {union.variants} alternatives checked", "note"))


def _rule_lines(row: UnionRow) -> Iterator[Line]:
    for rule, names in row.rules.items():
        yield line(f"      {rule!s:<10}  ", (", ".join(names), "note"))


def union_lines(result: Union) -> Iterator[Line]:
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


def dump_lines(result: OrcDump) -> Iterator[Line]:
    """A line a row."""
    for index in range(len(result.table)):
        entry = result.table.entry(index)
        yield line(f"{entry.entry_ip:x}: {objtool_row(entry.row)}")

"""How do two texts of a patch site look side by side?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.what_if import Comparison, VersionRun
from orcdbg.views.page import Line, fold, line
from orcdbg.views.view import Json, hexadecimals

_INDENT = 8


def comparison_lines(found: Comparison, width: int | None) -> Iterator[Line]:
    """Both texts of a site side by side: instructions, rules, and what differs at its end."""
    where = f"{found.symbol or hex(found.site)}, {found.size} bytes ({', '.join(found.mechanisms)})"
    yield line(("what if: ", "header"), where)
    for run in (found.patched, found.other):
        yield from fold(line((f"  {run.name:<12}  ", "label"), "; ".join(run.instructions)), width, _INDENT)
        rules = "  ".join(f"+{one.offset:#x} {one.rule or '-'}" for one in run.boundaries)
        yield from fold(line(f"  {'':<12}  ", (rules, "rule")), width, _INDENT)
        yield from fold(line(f"  {'':<12}  ", _outcome(run)), width, _INDENT)
    if found.differing is None:
        yield line("  at its end    not compared")
    elif not found.differing:
        yield line("  at its end    the same registers")
    else:
        yield from fold(line("  at its end    ", (_different(found), "changed")), width, _INDENT)


def _outcome(run: VersionRun) -> str:
    deepest = max((one.pushed for one in run.boundaries if one.pushed is not None), default=0)
    pushed = f"at most {deepest} bytes pushed" if deepest else "nothing pushed between its instructions"
    return f"{pushed}; " + (f"{run.executed} instructions to its end" if run.registers else f"its end: {run.why}")


def _different(found: Comparison) -> str:
    first, second = found.patched.registers or {}, found.other.registers or {}
    return "  ".join(f"{name} {first[name]:x} / {second[name]:x}" for name in found.differing or ())


def _version_json(run: VersionRun) -> dict[str, Any]:
    boundaries = [{"address": f"{one.address:#x}", "pushed": one.pushed, "rule": one.rule} for one in run.boundaries]
    return {
        "name": run.name,
        "bytes": run.text.hex(),
        "instructions": list(run.instructions),
        "boundaries": boundaries,
        "executed": run.executed,
        "registers": hexadecimals(run.registers) if run.registers is not None else None,
        "why": run.why,
    }


def comparison_json(found: Comparison) -> Json:
    """WHAT-IF of the contract."""
    return {
        "site": f"{found.site:#x}",
        "size": found.size,
        "symbol": found.symbol,
        "mechanisms": list(found.mechanisms),
        "patched": _version_json(found.patched),
        "other": _version_json(found.other),
        "differing": list(found.differing) if found.differing is not None else None,
    }

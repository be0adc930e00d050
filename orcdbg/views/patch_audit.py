"""How does the account of patched text look?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from orcdbg.commands.patch_audit import Audit
from orcdbg.patches.audit.account import AuditReport, Difference
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view

_SHOWN = 40  # wrong stretches of a text; JSON has them all
_BYTES = 16


def audit_lines(result: Audit, width: Width) -> Iterator[Line]:
    """The kernel's account, then each module's, then what is not in any."""
    yield from _report_lines("kernel text", result.kernel, result.symbols)
    yield from _mechanism_lines(result.kernel)
    for name, report in result.modules.items():
        yield from _report_lines(f"module {name}", report, result.symbols)
    for name, why in result.unaudited.items():
        yield line(("! ", "doubt"), f"module {name} is not audited: {why}")
    for note in result.kernel.notes:
        yield line((f"not compared: {note}", "note"))


def _report_lines(name: str, report: AuditReport, symbols: Mapping[int, str | None]) -> Iterator[Line]:
    mark, style = (" ", "") if report.clean else ("!", "doubt")
    yield line(
        (f"{mark} ", style),
        (name, "symbol"),
        f"  {report.end - report.start} bytes, {report.differing} differ from the image: "
        f"{report.explained} explained, {report.unexplained} unexplained, {report.mismatched} mismatched",
    )
    if report.undecided:
        yield line(("! ", "doubt"), f"{report.undecided} bytes at sites whose right text cannot be told")
    if report.missing_pages:
        yield line(
            ("! ", "doubt"), f"{report.missing_pages} pages of text are not in the snapshot and were not compared"
        )
    yield from problem_lines(report.problems)
    yield from _difference_lines("unexplained", report.unexplained_ranges, symbols)
    yield from _difference_lines("mismatched", report.mismatched_ranges, symbols)


def _mechanism_lines(report: AuditReport) -> Iterator[Line]:
    yield line((f"  {'mechanism':<16}{'sites':>8}{'patched':>9}{'bytes':>9}{'mismatched':>12}", "label"))
    for name, count in report.mechanisms.items():
        if count.sites or count.patched:
            style = "doubt" if count.mismatched else ""
            text = f"  {name:<16}{count.sites:>8}{count.patched:>9}{count.bytes:>9}"
            yield line(text, (f"{count.mismatched:>12}", style))


def _short(data: bytes) -> str:
    return data[:_BYTES].hex(" ") + (" .." if len(data) > _BYTES else "")


def _difference_lines(what: str, ranges: Sequence[Difference], symbols: Mapping[int, str | None]) -> Iterator[Line]:
    for found in ranges[:_SHOWN]:
        symbol = symbols.get(found.address) or "(no symbol)"
        mechanism = f"  {found.mechanism}" if found.mechanism else ""
        yield line(
            ("! ", "doubt"),
            f"{found.address:016x} ",
            (symbol, "symbol"),
            f"  {what}{mechanism}  {len(found.memory)} bytes",
        )
        yield line(("      image   ", "label"), _short(found.image))
        if found.expected != found.image:
            yield line(("      replay  ", "label"), _short(found.expected))
        yield line(("      memory  ", "label"), _short(found.memory))
    if len(ranges) > _SHOWN:
        yield line((f"{len(ranges) - _SHOWN} more {what} stretches; --format json lists them", "note"))


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


def audit_json(result: Audit) -> Json:
    """The account of the kernel's text and its modules'."""
    modules = {name: _audit(report, result.symbols) for name, report in result.modules.items()}
    return {**_audit(result.kernel, result.symbols), "modules": modules, "modules_not_audited": dict(result.unaudited)}


view(Audit, text=audit_lines, json=audit_json)

"""How do the row for an address, and the rule that holds there, look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.orc import OrcAnswer
from orcdbg.orc.effective import Corrected, Derived, Source
from orcdbg.views.page import Line, line
from orcdbg.views.reasons import words, words_or_none
from orcdbg.views.rows import entry_lines, orc_json, patch_json, site_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: OrcAnswer, width: Width) -> Iterator[Line]:
    yield line((f"{result.address:016x}  {result.symbol or '(no symbol)'}", "header"))
    if result.entry is None:
        yield line("      no ORC row covers this address")
        return
    yield from entry_lines(result.entry)
    effective = result.effective
    rule = str(effective.rule) if effective.rule else "none"
    if isinstance(effective, Corrected):
        yield line(("~    true rule  ", "mark"), f"{rule}  (stated {effective.patch.stated_rule})")
        yield from site_lines(effective.patch.site)
    elif isinstance(effective, Derived):
        yield line(("~    true rule  ", "mark"), f"{rule}  ({words(effective.reason)})")
    elif effective.source is Source.DERIVED:
        yield line(("~  derived rule  ", "mark"), rule)
    else:
        yield line(("          rule  ", "label"), rule)
    yield line(("  caller's rbp  ", "label"), result.bp_rule or "none")
    if effective.doubt is not None:
        yield line(("!  ", "doubt"), words(effective.doubt))


def _json(result: OrcAnswer) -> Json:
    effective = result.effective
    return {
        "address": hexadecimal(result.address),
        "symbol": result.symbol,
        "orc": orc_json(result.entry),
        "effective": {
            "rule": str(effective.rule) if effective.rule else None,
            "bp_rule": result.bp_rule,
            "source": effective.source.value,
            "doubt": words_or_none(effective.doubt),
        },
        "patch": patch_json(effective.patch),
    }


view(OrcAnswer, text=_lines, json=_json)

"""How do patch sites look, with what the build, the replay and memory have there?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.patch_sites import Sites, SiteState
from orcdbg.patches.site import PatchSite
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Sites, width: Width) -> Iterator[Line]:
    if not result.sites:
        yield line("no recorded patch site there")
        return
    for state in result.sites:
        yield from _site_lines(state)
    if len(result.sites) > 1:
        yield line((f"{len(result.sites)} sites", "note"))


def _site_lines(state: SiteState) -> Iterator[Line]:
    site = state.site
    changed = state.memory is not None and state.memory != site.image
    mark = "~" if changed else " "
    yield line(
        (mark, "mark"),
        f"{site.address:016x} ",
        (f"{state.symbol or '(no symbol)'}", "symbol"),
        f"  {site.mechanism} {site.name}  ",
        (site.decided_by, "note"),
    )
    yield line(("      image   ", "label"), site.image.hex(" "))
    yield line(("      replay  ", "label"), site.expected.hex(" ") if site.expected is not None else "not known")
    shown = "not in the snapshot" if state.memory is None else "the same" if state.memory == site.expected else None
    yield line(("      memory  ", "label"), shown or (state.memory or b"").hex(" "))


def site_json(site: PatchSite, memory: bytes | None) -> Json:
    """SITE of the contract, without the symbol."""
    return {
        "mechanism": site.mechanism,
        "site": hexadecimal(site.address),
        "size": site.size,
        "name": site.name,
        "image": site.image.hex(),
        "expected": site.expected.hex() if site.expected is not None else None,
        "memory": memory.hex() if memory is not None else None,
        "decided_by": site.decided_by,
        "order": site.order,
    }


def _json(result: Sites) -> Json:
    return {
        "sites": [site_json(state.site, state.memory) | {"symbol": state.symbol} for state in result.sites],
        "total": result.total,
    }


view(Sites, text=_lines, json=_json)

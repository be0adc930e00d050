"""How is a journal of patches that was written to a file reported?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.patch_export import Exported
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, view


def _lines(result: Exported, width: Width) -> Iterator[Line]:
    yield line(f"{result.path}: {result.size} bytes, {result.places} places, {result.rows} corrected rows")


def _json(result: Exported) -> Json:
    """A journal that was written, for programs."""
    return {"path": result.path, "size": result.size, "places": result.places, "rows": result.rows}


view(Exported, text=_lines, json=_json)

"""How do the answers look that no command has to itself?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.result import Nothing, PluginResult, TextLines
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, view


def _text_lines(result: TextLines, width: Width) -> Iterator[Line]:
    return (line(text) for text in result.lines)


def _text_json(result: TextLines) -> Json:
    return {"lines": list(result.lines)}


def _plugin_lines(result: PluginResult, width: Width) -> Iterator[Line]:
    return (line(str(text)) for text in result.to_text())


view(Nothing, text=lambda result, width: (), json=lambda result: {})
view(TextLines, text=_text_lines, json=_text_json)
view(PluginResult, text=_plugin_lines, json=lambda result: result.to_json())

"""How do the answers look that no command has to itself?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.result import NoneFits, Nothing, PluginResult, TextLines
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, view, view_of


def _text_lines(result: TextLines, width: Width) -> Iterator[Line]:
    return (line(text) for text in result.lines)


def _text_json(result: TextLines) -> Json:
    return {"lines": list(result.lines)}


def _none_lines(result: NoneFits, width: Width) -> Iterator[Line]:
    yield line(f"0 {result.what}")
    yield from problem_lines(result.problems)


def _none_json(result: NoneFits) -> Json:
    own: Json = view_of(result.answer).json(result.answer)
    return own


def _plugin_lines(result: PluginResult, width: Width) -> Iterator[Line]:
    return (line(str(text)) for text in result.to_text())


view(Nothing, text=lambda result, width: (), json=lambda result: {})
view(NoneFits, text=_none_lines, json=_none_json)
view(TextLines, text=_text_lines, json=_text_json)
view(PluginResult, text=_plugin_lines, json=lambda result: result.to_json())

"""How does what Python printed look, and an error in it?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.py import CodePlace, PythonOutput
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, view


def _lines(result: PythonOutput, width: Width) -> Iterator[Line]:
    yield from (line(text) for text in result.output.splitlines())
    if result.error is not None:
        yield line(("! ", "doubt"), f"{result.error.type}: {' '.join(result.error.message.split())}")
        yield from (_place(place) for place in result.error.places)


def _place(place: CodePlace) -> Line:
    function = f", in {place.function}" if place.function is not None else ""
    return line((f"    {place.file}:{place.line}{function}", "note"), f"  {place.text}")


def _json(result: PythonOutput) -> Json:
    error = None
    if result.error is not None:
        places = [
            {"file": place.file, "line": place.line, "function": place.function, "text": place.text}
            for place in result.error.places
        ]
        error = {"type": result.error.type, "message": result.error.message, "places": places}
    return {"output": result.output, "error": error}


view(PythonOutput, text=_lines, json=_json)

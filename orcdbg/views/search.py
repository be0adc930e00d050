"""How do the matches of a search look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.search import SearchHit, SearchHits
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _text(hit: SearchHit, width: int) -> str:
    if isinstance(hit.found, bytes):
        return hit.found.decode("utf-8", "backslashreplace")
    return f"{hit.found:0{2 * width}x}"


def _lines(result: SearchHits, width: Width) -> Iterator[Line]:
    last = None
    for hit in result.hits:
        if hit.task is not None and hit.task.address != last:
            last = hit.task.address
            yield line((f"task {hit.task.pid} {hit.task.comm} at {hit.task.address:016x}", "header"))
        yield line(f"{hit.address:016x}: {_text(hit, result.width)}  ", (hit.symbol or "", "symbol"))
    if not result.is_whole:
        yield line("more matches are left out: --limit shows more")
    yield from problem_lines(result.problems)


def hit_json(hit: SearchHit, width: int) -> Json:
    """SEARCHHIT of the contract."""
    return {
        "address": hexadecimal(hit.address),
        "value": hexadecimal(hit.found) if isinstance(hit.found, int) else None,
        "text": None if isinstance(hit.found, int) else _text(hit, width),
        "symbol": hit.symbol,
        "task": hexadecimal(hit.task.address) if hit.task is not None else None,
        "pid": hit.task.pid if hit.task is not None else None,
    }


def _json(result: SearchHits) -> Json:
    return {
        "hits": [hit_json(hit, result.width) for hit in result.hits],
        "width": result.width or None,
        "whole": result.is_whole,
        "pid": result.pid,
        "problems": list(result.problems),
    }


view(SearchHits, text=_lines, json=_json)

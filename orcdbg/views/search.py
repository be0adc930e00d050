"""How do the matches of a search look?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orcdbg.base.sizes import U64
from orcdbg.commands.search import SearchHit, SearchHits
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view

_UNREAD = "--"  # of a byte


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
        around = [] if result.contexts is None else list(result.contexts.get(hit.address, ()))
        middle = len(around) // 2
        yield from _words(hit.address - middle * result.width, around[:middle], result.width)
        yield line(f"{hit.address:016x}: {_text(hit, result.width)}  ", (hit.symbol or "", "symbol"))
        yield from _words(hit.address + result.width, around[middle + 1 :], result.width)
        if around:
            yield []
    if not result.is_whole:
        yield line("more matches are left out: --limit shows more")
    yield from problem_lines(result.problems)


def _words(address: int, words: Sequence[int | None], width: int) -> Iterator[Line]:
    """Words around a match, four a line."""
    for start in range(0, len(words), 4):
        shown = (_UNREAD * width if word is None else f"{word:0{2 * width}x}" for word in words[start : start + 4])
        yield line((f"{address + start * width & U64:016x}: {' '.join(shown)}", "note"))


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
        "contexts": None
        if result.contexts is None
        else {f"{at:#x}": [hexadecimal(word) for word in words] for at, words in result.contexts.items()},
        "problems": list(result.problems),
    }


view(SearchHits, text=_lines, json=_json)

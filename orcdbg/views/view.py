"""Which view belongs to a result, and where is it found?

The view of a result stands in the file that is named as the result's own: `orcdbg/views/ps.py` shows what
`orcdbg/commands/ps.py` answers. It is loaded when there is something to show.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from orcdbg.commands.result import PluginResult, Result
from orcdbg.views.page import Line

Json = dict[str, Any]
Width = int | None  # columns; None where lines may be as long as they like
R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class View:
    """The two forms of one type of result; `text_pieces` and `json_pieces` are None where it is written as a whole."""

    text: Callable[[Any, Width], Iterable[Line]]
    json: Callable[[Any], Any]
    text_pieces: Callable[[Any, Width], Iterator[str]] | None = None
    json_pieces: Callable[[Any], Iterator[str]] | None = None


_VIEWS: dict[type[Result], View] = {}


def view(
    result_type: type[R],
    *,
    text: Callable[[R, Width], Iterable[Line]],
    json: Callable[[R], Any],
    text_pieces: Callable[[R, Width], Iterator[str]] | None = None,
    json_pieces: Callable[[R], Iterator[str]] | None = None,
) -> None:
    """Says how a type of result looks.

    Args:
        result_type: the type.
        text: a result's lines for people, for a terminal of that many columns.
        json: the same for programs, as docs/contract.md describes it.
        text_pieces: the text without colour, piece by piece, where it may be long.
        json_pieces: the JSON in ASCII, likewise.
    """
    _VIEWS[result_type] = View(text, json, text_pieces, json_pieces)


def view_of(result: Result) -> View:
    """The view of a result, which is loaded if need be; KeyError where its file has none."""
    kind = PluginResult if isinstance(result, PluginResult) else type(result)
    if kind not in _VIEWS:
        importlib.import_module(kind.__module__.replace("orcdbg.commands.", "orcdbg.views."))
    return _VIEWS[kind]


def hexadecimal(value: int | None) -> str | None:
    """An address as the contract writes it."""
    return None if value is None else f"{value:#x}"


def hexadecimals(values: Mapping[str, int]) -> dict[str, str]:
    """Register values as the contract writes them."""
    return {name: f"{value:#x}" for name, value in values.items()}

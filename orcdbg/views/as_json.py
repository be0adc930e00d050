"""How does a result look to a program? The shapes are those of docs/contract.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from orcdbg.base.errors import NotInSnapshot, OrcdbgError
from orcdbg.commands.result import Result
from orcdbg.views.reasons import message_of
from orcdbg.views.view import Json, view_of

SCHEMA = 1


def encode(result: Result) -> Any:
    """The JSON value of a result."""
    return view_of(result).json(result)


def envelope(command: str, result: Result) -> Json:
    """One executed command's line."""
    return _answer(command, encode(result))


def _answer(command: str, result: Any) -> Json:
    return {"schema": SCHEMA, "command": command, "ok": True, "result": result}


def error_envelope(command: str, error: OrcdbgError) -> Json:
    """One failed command's line."""
    state = error.state.value if isinstance(error, NotInSnapshot) else None
    about = {"kind": error.kind, "message": message_of(error), "hint": error.hint, "state": state}
    return {"schema": SCHEMA, "command": command, "ok": False, "error": about}


def json_pieces(command: str, result: Result) -> Iterator[str]:
    """An executed command's JSON line, in pieces."""
    shown = view_of(result)
    if shown.json_pieces is None:
        yield json.dumps(envelope(command, result), ensure_ascii=True) + "\n"
        return
    head, _, tail = json.dumps(_answer(command, None), ensure_ascii=True).rpartition("null")
    yield head
    yield from shown.json_pieces(result)
    yield tail + "\n"

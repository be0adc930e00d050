"""How does a result look to a person?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.result import Result
from orcdbg.views.page import Line, fitted, plain, safe
from orcdbg.views.reasons import message_of
from orcdbg.views.view import Width, view_of


def lines_of(result: Result, width: Width) -> Iterable[Line]:
    """The lines of a result, fitted into `width`."""
    return fitted(view_of(result).text(result, width), width)


def failure_text(error: OrcdbgError, command: str | None = None) -> str:
    """An error's line, and that of the hint where there is one."""
    where = f"{command}: " if command else ""
    lines = [safe(f"orcdbg: {where}{message_of(error)}")]
    if error.hint:
        lines.append(safe(f"hint: {error.hint}"))
    return "".join(f"{line}\n" for line in lines)


def text_pieces(result: Result, width: Width) -> Iterator[str]:
    """A result's text without colour, in pieces."""
    shown = view_of(result)
    if shown.text_pieces is not None:
        yield from shown.text_pieces(result, width)
    else:
        yield plain(lines_of(result, width))

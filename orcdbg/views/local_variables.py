"""How do the variables of a frame look, each with its value, or why that is not there?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.local_variables import FrameVariables, ShownVariable
from orcdbg.views.member_values import values_json
from orcdbg.views.page import Line, fold, line
from orcdbg.views.stacks import name_of
from orcdbg.views.values import MAX_ELEMENTS, ValueStyle, path_text, value_texts
from orcdbg.views.view import Width, hexadecimal, view

_STEP = 2
_DOUBTFUL = "the frame is in doubt, and so is this"


def variables_lines(found: FrameVariables, indent: int) -> Iterator[Line]:
    """A frame's variables, those of inlined functions under their names."""
    if found.problem is not None:
        yield line(" " * indent, (found.problem, "note"))
        return

    owner = None
    for variable in found.variables:
        # A function may be inlined in itself, or in what is left of it where the compiler split it.
        if (variable.function, variable.is_inlined) != owner:
            owner = variable.function, variable.is_inlined
            where = "inlined " if variable.is_inlined else ""
            yield line(" " * indent, (f"{where}{variable.function}:", "label"))
        yield from _variable_lines(variable, found, indent + _STEP)


def _variable_lines(variable: ShownVariable, found: FrameVariables, indent: int) -> Iterator[Line]:
    if variable.value is None:
        place = "" if variable.address is None else f"at {variable.address:016x}: "
        yield line(" " * indent, (variable.declaration, "symbol"), " = ", (f"<{place}{variable.why}>", "note"))
    else:
        style = ValueStyle(found.symbols, words=variable.words, most=MAX_ELEMENTS)
        first, *more = value_texts(variable.value, style, indent)
        yield line(" " * indent, (variable.declaration, "symbol"), f" = {first}")
        yield from (line(text) for text in more)
    if not variable.is_sure:
        yield line(" " * indent, (f"? {variable.name}: {_DOUBTFUL}", "doubt"))


def _lines(found: FrameVariables, width: Width) -> Iterator[Line]:
    yield line((f"{found.frame.mark.value}#{found.frame.index} {name_of(found.frame)}", "header"))
    if not found.variables and found.problem is None:
        yield line("  ", ("none", "note"))
    for each in variables_lines(found, _STEP):
        yield from fold(each, width, 2 * _STEP)


def variable_json(variable: ShownVariable) -> dict[str, Any]:
    """VARIABLE of the contract."""
    value = None if variable.value is None else values_json([("", variable.value)])[""]
    return {
        "name": variable.name,
        "declaration": variable.declaration,
        "kind": "argument" if variable.is_argument else "local",
        "function": variable.function,
        "is_inlined": variable.is_inlined,
        "value": value,
        "words": {path_text(path): text for path, text in variable.words.items()},
        "address": hexadecimal(variable.address),
        "why": variable.why,
        "why_code": None if variable.code is None else variable.code.value,
        "reliable": variable.is_sure,
    }


def _json(found: FrameVariables) -> dict[str, Any]:
    return {
        "frame": found.frame.index,
        "variables": [variable_json(variable) for variable in found.variables],
        "problem": found.problem,
    }


view(FrameVariables, text=_lines, json=_json)

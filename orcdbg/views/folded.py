"""How do counted stacks look to programs that draw flame graphs?

Two forms: the lines of flamegraph.pl, `comm;outer;inner count`, and speedscope's file format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from orcdbg import __version__
from orcdbg.commands.folded import FoldedFrame, FoldedStack, FoldedStacks, SpeedscopeStacks
from orcdbg.views.page import Line, line, problem_lines, safe
from orcdbg.views.view import Json, Width, view

SEPARATOR = ";"
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_IN_DOUBT = "? "  # as the kernel marks such lines in its own traces


def frame_name(frame: FoldedFrame) -> str:
    """`symbol [module]`, or the address, with a mark in front where the frame is in doubt."""
    name = f"{frame.address:#x}" if frame.symbol is None else frame.symbol
    module = f" [{frame.module}]" if frame.module else ""
    return f"{'' if frame.is_sure else _IN_DOUBT}{name}{module}"


def _names(stack: FoldedStack) -> list[str]:
    """The task's name and its functions, outermost first; none can be taken for two."""
    names = [stack.comm, *map(frame_name, stack.frames)]
    return [safe(name).replace(SEPARATOR, "\\x3b") for name in names]


def _lines(result: FoldedStacks, width: Width) -> Iterator[Line]:
    for stack in result.stacks:
        yield line((SEPARATOR.join(_names(stack)), "symbol"), f" {stack.count}")
    # A line that ended in a number would be a stack to those programs.
    yield from problem_lines(f"{problem}." for problem in result.problems)


def _json(result: FoldedStacks) -> Json:
    stacks = [
        {"comm": stack.comm, "frames": [_frame_json(frame) for frame in stack.frames], "count": stack.count}
        for stack in result.stacks
    ]
    return {"stacks": stacks, "problems": list(result.problems)}


def _frame_json(frame: FoldedFrame) -> Json:
    return {"symbol": frame.symbol, "module": frame.module, "address": f"{frame.address:#x}", "reliable": frame.is_sure}


def speedscope(result: SpeedscopeStacks) -> Any:
    """The document: one profile, in which a stack weighs as many as it has tasks."""
    numbers: dict[str, int] = {}
    samples = []
    for stack in result.folded.stacks:
        samples.append([numbers.setdefault(name, len(numbers)) for name in _names(stack)])
    weights = [stack.count for stack in result.folded.stacks]
    profile = {
        "type": "sampled",
        "name": "tasks",
        "unit": "none",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
    frames = [{"name": name} for name in numbers]
    return {
        "$schema": _SCHEMA,
        "exporter": f"orcdbg {__version__}",
        "name": "tasks by stack",
        "shared": {"frames": frames},
        "profiles": [profile],
    }


def _speedscope_lines(result: SpeedscopeStacks, width: Width) -> Iterator[Line]:
    yield line(json.dumps(speedscope(result), ensure_ascii=True))


def _speedscope_pieces(result: SpeedscopeStacks, width: Width) -> Iterator[str]:
    """In one line whatever the terminal's width: a line break within a string would end the document."""
    yield json.dumps(speedscope(result), ensure_ascii=True) + "\n"


def _folded_pieces(result: FoldedStacks, width: Width) -> Iterator[str]:
    """A line a stack, likewise."""
    for pieces in _lines(result, None):
        yield "".join(safe(piece.text) for piece in pieces) + "\n"


view(FoldedStacks, text=_lines, json=_json, text_pieces=_folded_pieces)
view(SpeedscopeStacks, text=_speedscope_lines, json=speedscope, text_pieces=_speedscope_pieces)

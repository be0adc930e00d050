"""How does the account of what files have, and what they lack, look?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.checkup import Checkup
from orcdbg.views.page import Line, line


def checkup_lines(result: Checkup) -> Iterator[Line]:
    """The files, what was found in them, what is missing, and whether they can be worked with."""
    for file in result.files:
        yield line((file.path, "symbol"), f": {file.kind or 'not readable'}")
        if file.problem:
            yield line("    ", (file.problem, "error"))
    for name, value in result.facts.items():
        yield line((f"{name.replace('_', ' '):>20}: ", "label"), "-" if value is None else str(value))
    for warning in result.warnings:
        yield line(("warning: ", "label"), warning)
    for one in result.missing:
        yield line(("missing: ", "label"), f"{one.what}: {one.cost}")
        if one.command:
            yield line("    ", (one.command, "symbol"))
    if result.error is None:
        yield line("usable")
    else:
        yield line(("not usable: ", "error"), result.error.message)
        if result.error.hint:
            yield line(("hint: ", "label"), result.error.hint)


def checkup_json(result: Checkup) -> dict[str, Any]:
    """The same for programs."""
    error = result.error
    return {
        "usable": error is None,
        "files": [{"path": one.path, "kind": one.kind, "problem": one.problem} for one in result.files],
        "facts": dict(result.facts),
        "missing": [{"what": one.what, "cost": one.cost, "command": one.command} for one in result.missing],
        "warnings": list(result.warnings),
        "error": None if error is None else {"kind": error.kind, "message": error.message, "hint": error.hint},
    }

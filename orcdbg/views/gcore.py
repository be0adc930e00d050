"""How is a core file that was written described?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.gcore import UserCore
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, view


def _lines(result: UserCore, width: Width) -> Iterator[Line]:
    plural = "thread" if result.threads == 1 else "threads"
    yield line(f"{result.path}: process {result.pid}, {result.threads} {plural}, {result.kept >> 10} KiB of memory")
    for why, count in sorted(result.missing.items()):
        yield line((f"  {count} pages are not in it: {why}", "reason"))
    yield from problem_lines(result.problems)


def _json(result: UserCore) -> Json:
    return {
        "path": result.path,
        "pid": result.pid,
        "threads": result.threads,
        "size": result.size,
        "kept": result.kept,
        "missing_pages": result.missing,
        "problems": list(result.problems),
    }


view(UserCore, text=_lines, json=_json)

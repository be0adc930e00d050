"""How do the files that a task has open look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.files import Files
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, view

_UNREADABLE = "(unreadable)"


def _lines(result: Files, width: Width) -> Iterator[Line]:
    for number, one in enumerate(result.tasks):
        if number:
            yield []
        yield task_line(one.task)
        table = one.table
        yield line(("ROOT: ", "label"), f"{table.root or '-'}    ", ("CWD: ", "label"), table.working_directory or "-")
        if not table.files:
            yield line(("No open files", "note"))
            continue
        if result.with_pages:
            cached = (
                (f.descriptor, address(f.inode), address(f.mapping), f.pages, f.type, f.path or _UNREADABLE)
                for f in table.files
            )
            yield from columns((">FD", "INODE", "I_MAPPING", ">NRPAGES", "TYPE", "PATH"), cached)
            continue
        rows = (
            (f.descriptor, address(f.file), address(f.dentry), address(f.inode), f.type, f.path or _UNREADABLE)
            for f in table.files
        )
        yield from columns((">FD", "FILE", "DENTRY", "INODE", "TYPE", "PATH"), rows)
    yield from problem_lines(result.problems)


def _json(result: Files) -> Json:
    tasks = [
        task_json(one.task)
        | {
            "root": one.table.root,
            "cwd": one.table.working_directory,
            "files": [record(file, ("file", "dentry", "inode", "mapping")) for file in one.table.files],
        }
        for one in result.tasks
    ]
    return {"tasks": tasks, "problems": list(result.problems)}


view(Files, text=_lines, json=_json)

"""How do the files that a task has open look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.files import FilePages, Files
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, hexadecimal, view

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


def _page_lines(result: FilePages, width: Width) -> Iterator[Line]:
    yield line(("INODE: ", "label"), f"{address(result.inode)}  ", ("ENTRIES: ", "label"), f"{len(result.pages)}")
    rows = (
        (
            "on swap, or dropped" if page.page is None else address(page.page),
            None if page.frame is None else f"{page.frame.physical:x}",
            f"{page.index:x}",
            None if page.frame is None else page.frame.references,
            None if page.frame is None else ",".join(page.frame.flag_names),
        )
        for page in result.pages
    )
    yield from columns(("PAGE", ">PHYSICAL", ">INDEX", ">CNT", "FLAGS"), rows, symbol=0)
    yield from problem_lines(result.problems)


def _page_json(result: FilePages) -> Json:
    pages = [
        {
            "index": page.index,
            "page": hexadecimal(page.page),
            "physical": None if page.frame is None else hexadecimal(page.frame.physical),
            "references": None if page.frame is None else page.frame.references,
            "flags": None if page.frame is None else list(page.frame.flag_names),
        }
        for page in result.pages
    ]
    return {"inode": hexadecimal(result.inode), "pages": pages, "problems": list(result.problems)}


view(Files, text=_lines, json=_json)
view(FilePages, text=_page_lines, json=_page_json)

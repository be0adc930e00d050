"""How does the translation of an address look?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.vtop import AddressMapping, TaskMappings
from orcdbg.snapshot.pagetables import PageLevel, TableEntry
from orcdbg.views.kmem import user_page_json, user_page_pieces
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, view
from orcdbg.x86 import paging

_FLAGS = (
    (paging.PRESENT, "PRESENT"),
    (paging.RW, "RW"),
    (paging.USER, "USER"),
    (paging.PWT, "PWT"),
    (paging.PCD, "PCD"),
    (paging.ACCESSED, "ACCESSED"),
    (paging.DIRTY, "DIRTY"),
    (paging.GLOBAL, "GLOBAL"),
)


def _flags(entry: TableEntry, encryption: int) -> list[str]:
    found = [name for bit, name in _FLAGS if entry.value & bit]
    if entry.value & paging.PSE:
        found.append("PAT" if entry.level is PageLevel.PTE else "PSE")
    if entry.value & encryption:
        found.append("ENCRYPTED")
    return [*found, "NX"] if entry.value & paging.NX else found


def mapping_lines(result: AddressMapping, width: Width) -> Iterator[Line]:
    """Both addresses, then a line for each entry on the way."""
    found = result.translation
    yield line(("VIRTUAL           PHYSICAL", "label"))
    physical = "(not mapped)" if found.physical is None else f"{found.physical:016x}"
    yield line((f"{result.address:016x}", "address"), f"  {physical}")
    yield line("")
    whose = "the kernel's" if result.pid is None else f"of the task with pid {result.pid}"
    yield line((f"  LEVEL  ENTRY AT          ENTRY             FLAGS   (page tables: {whose})", "label"))
    for entry in found.entries:
        flags = " ".join(_flags(entry, result.encryption_mask)) or "-"
        yield line(f"  {entry.level.value:<5}  {entry.address:016x}  {entry.value:016x}  ", (flags, "note"))
    if found.why is not None:
        yield line(f"  {found.why}")
    else:
        saved = "" if result.in_snapshot else ", which is not in the snapshot"
        yield line(f"  a page of {found.size // 1024} KiB{saved}")
    if result.user is not None:
        yield line("  state: ", *user_page_pieces(result.user))


def mapping_json(result: AddressMapping) -> dict[str, Any]:
    """TRANSLATION of the contract."""
    found = result.translation
    return {
        "address": f"{result.address:#x}",
        "physical": None if found.physical is None else f"{found.physical:#x}",
        "page_size": found.size or None,
        "in_snapshot": result.in_snapshot,
        "pid": result.pid,
        "why": found.why,
        "mapping": [
            {
                "level": entry.level.value,
                "address": f"{entry.address:#x}",
                "value": f"{entry.value:#x}",
                "flags": _flags(entry, result.encryption_mask),
            }
            for entry in found.entries
        ],
        "user": None if result.user is None else user_page_json(result.user),
    }


def _task_lines(result: TaskMappings, width: Width) -> Iterator[Line]:
    for number, (task, mapping) in enumerate(result.tasks):
        if number:
            yield []
        yield task_line(task)
        yield from mapping_lines(mapping, width)
    yield from problem_lines(result.problems)


def _task_json(result: TaskMappings) -> Json:
    tasks = [task_json(task) | {"translation": mapping_json(mapping)} for task, mapping in result.tasks]
    return {"tasks": tasks, "problems": list(result.problems)}


view(TaskMappings, text=_task_lines, json=_task_json)
view(AddressMapping, text=mapping_lines, json=mapping_json)

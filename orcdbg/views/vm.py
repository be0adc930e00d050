"""How does the memory of a task look?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orcdbg.base.sizes import PAGE
from orcdbg.commands.vm import Memory, MemoryStructures
from orcdbg.subsystems.memory_maps import Area
from orcdbg.subsystems.user_memory import UserStretch
from orcdbg.views.columns import address, columns
from orcdbg.views.kmem import user_page_json, user_page_pieces
from orcdbg.views.member_values import value_lines, values_json
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, hexadecimal, view


def _size(pages: int | None) -> str:
    return "-" if pages is None else f"{pages * PAGE >> 10}k"


def _lines(result: Memory, width: Width) -> Iterator[Line]:
    for number, one in enumerate(result.tasks):
        if number:
            yield []
        yield task_line(one.task)
        if one.map is None:
            yield line(("No user memory", "note"))
            continue
        sizes = _size(one.map.resident), _size(one.map.total)
        yield from columns(("MM", "PGD", ">RSS", ">TOTAL_VM"), [(address(one.map.mm), address(one.map.pgd), *sizes)])
        if one.pages is None:
            yield from _areas(one.map.areas, result.with_flags)
            continue
        for area in one.map.areas:
            yield from _areas([area], result.with_flags)
            for stretch in one.pages.get(area.address, ()):
                yield line(
                    f"  {stretch.first.address:>16x}  {stretch.count:>8} pages  ", *user_page_pieces(stretch.first)
                )
    yield from problem_lines(result.problems)


def _areas(areas: list[Area], with_flags: bool) -> Iterator[Line]:
    head: tuple[str, ...] = ("VMA", ">START", ">END", "FLAGS")
    head += (">VM_FLAGS", ">OFFSET") if with_flags else ()

    def cells(area: Area) -> tuple[str, ...]:
        more = (f"{area.flags:x}", f"{area.offset:x}") if with_flags else ()
        name = "(unreadable)" if area.name is None else area.name
        return address(area.address), f"{area.start:x}", f"{area.end:x}", area.permissions, *more, name

    yield from columns((*head, "NAME"), (cells(area) for area in areas))


def _area_json(area: Area, pages: Mapping[int, Sequence[UserStretch]] | None) -> Json:
    found = record(area, ("address", "start", "end", "file"))
    listed = None if pages is None else [stretch_json(stretch) for stretch in pages.get(area.address, ())]
    return found | {"start": hexadecimal(area.start), "flags": hexadecimal(area.flags), "pages": listed}


def stretch_json(stretch: UserStretch) -> Json:
    """AREAPAGES of the contract."""
    return {
        "address": hexadecimal(stretch.first.address),
        "count": stretch.count,
        "page": user_page_json(stretch.first),
    }


def _json(result: Memory) -> Json:
    tasks = []
    for one in result.tasks:
        found = task_json(one.task) | {"mm": None, "pgd": None, "resident": None, "total": None, "areas": []}
        if one.map is not None:
            found |= record(one.map, ("mm", "pgd"), areas=[_area_json(area, one.pages) for area in one.map.areas])
        tasks.append(found)
    return {"tasks": tasks, "problems": list(result.problems)}


def _structure_lines(result: MemoryStructures, width: Width) -> Iterator[Line]:
    for number, one in enumerate(result.tasks):
        if number:
            yield []
        yield task_line(one.task)
        if not one.structures:
            yield line(("No user memory", "note"))
        for structure in one.structures:
            yield line((f"{structure.name} ", "header"), address(structure.address))
            yield from value_lines(structure.values, result.symbols, result.in_hexadecimal)
    yield from problem_lines(result.problems)


def _structure_json(result: MemoryStructures) -> Json:
    tasks = [
        task_json(one.task)
        | {
            "structures": [
                {"name": part.name, "address": hexadecimal(part.address), "members": values_json(part.values)}
                for part in one.structures
            ]
        }
        for one in result.tasks
    ]
    return {"tasks": tasks, "problems": list(result.problems)}


view(MemoryStructures, text=_structure_lines, json=_structure_json)
view(Memory, text=_lines, json=_json)

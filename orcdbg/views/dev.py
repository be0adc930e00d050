"""How do devices, disks and requests look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.dev import Devices, Disks
from orcdbg.subsystems.devices import Request
from orcdbg.views.columns import address, columns, duration
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, view


def _lines(result: Devices, width: Width) -> Iterator[Line]:
    rows = (
        (
            one.major,
            f"{one.minor}-{one.minor + one.count - 1}" if one.count > 1 else one.minor,
            one.name,
            address(one.cdev),
            result.symbols.get(one.operations, address(one.operations)),
        )
        for one in result.characters
    )
    yield from columns((">CHRDEV", ">MINORS", "NAME", "CDEV", "OPERATIONS"), rows, symbol=2)
    yield []
    yield from columns((">BLKDEV", "NAME"), ((one.major, one.name) for one in result.blocks))
    yield from problem_lines(result.problems)


def _json(result: Devices) -> Json:
    characters = [
        record(one, ("cdev", "operations"), symbol=result.symbols.get(one.operations)) for one in result.characters
    ]
    blocks = [record(one) for one in result.blocks]
    return {"characters": characters, "blocks": blocks, "problems": list(result.problems)}


def _age(result: Disks, request: Request) -> int | None:
    """Nanoseconds that the driver has had a request, or that it has waited where that is all that is kept."""
    since = request.issued if request.issued is not None else request.queued
    return None if since is None or result.now is None else max(result.now - since, 0)


def _disk_lines(result: Disks, width: Width) -> Iterator[Line]:
    pending = {disk.name: sum(one.disk == disk.name for one in result.requests) for disk in result.disks}
    rows = (
        (
            f"{disk.major}:{disk.minor}",
            address(disk.address),
            address(disk.queue),
            disk.size >> 20,
            pending[disk.name],
            result.symbols.get(disk.operations, address(disk.operations)),
            disk.name,
        )
        for disk in result.disks
    )
    yield from columns((">DEV", "GENDISK", "REQUEST_QUEUE", ">SIZE MB", ">IN FLIGHT", "OPERATIONS", "NAME"), rows)
    if result.requests:
        yield []
        yield line(("REQUESTS IN FLIGHT", "header"))
        yield from columns(
            (">AGE", "REQUEST", ">TAG", "OPERATION", ">SECTOR", ">BYTES", "DISK"),
            (
                (
                    None if age is None else duration(age),
                    address(one.address),
                    one.tag,
                    one.operation,
                    one.sector,
                    one.size,
                    one.disk,
                )
                for one in result.requests
                for age in [_age(result, one)]
            ),
        )
    yield from problem_lines(result.problems)


def _disk_json(result: Disks) -> Json:
    disks = [
        record(disk, ("address", "queue", "operations"), symbol=result.symbols.get(disk.operations))
        for disk in result.disks
    ]
    requests = [record(one, ("address",), age=_age(result, one)) for one in result.requests]
    return {"disks": disks, "requests": requests, "now": result.now, "problems": list(result.problems)}


view(Devices, text=_lines, json=_json)
view(Disks, text=_disk_lines, json=_disk_json)

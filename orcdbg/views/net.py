"""How do network devices and sockets look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.net import Neighbours, Network, Sockets
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Network, width: Width) -> Iterator[Line]:
    rows = (
        (
            address(one.address),
            one.name,
            one.index,
            "up" if one.is_up else "down",
            one.mtu,
            one.hardware_address or "-",
            ", ".join(one.addresses) or "-",
        )
        for one in result.devices
    )
    yield from columns(("NET_DEVICE", "NAME", ">INDEX", "STATE", ">MTU", "HW ADDRESS", "IP ADDRESSES"), rows, symbol=1)
    yield from problem_lines(result.problems)


def _json(result: Network) -> Json:
    devices = [record(one, ("address",)) for one in result.devices]
    return {"namespace": hexadecimal(result.namespace), "devices": devices, "problems": list(result.problems)}


def _neighbour_lines(result: Neighbours, width: Width) -> Iterator[Line]:
    if not result.neighbours:
        yield line(("No neighbours", "note"))
    else:
        rows = (
            (address(one.address), one.ip, one.hardware_address or "-", one.device_name, " ".join(one.states))
            for one in result.neighbours
        )
        yield from columns(("NEIGHBOUR", "IP ADDRESS", "HW ADDRESS", "DEVICE", "STATE"), rows, symbol=1)
    yield from problem_lines(result.problems)


def _neighbour_json(result: Neighbours) -> Json:
    found = [record(one, ("address", "device")) for one in result.neighbours]
    return {"neighbours": found, "problems": list(result.problems)}


def _socket_lines(result: Sockets, width: Width) -> Iterator[Line]:
    for number, one in enumerate(result.tasks):
        if number:
            yield []
        yield task_line(one.task)
        if not one.sockets:
            yield line(("No open sockets", "note"))
            continue
        rows = (
            (
                socket.descriptor,
                address(socket.socket),
                address(socket.sock),
                f"{socket.family}:{socket.type}",
                socket.state,
                socket.source,
                socket.destination,
            )
            for socket in one.sockets
        )
        yield from columns((">FD", "SOCKET", "SOCK", "FAMILY:TYPE", "STATE", "SOURCE", "DESTINATION"), rows, symbol=3)
    yield from problem_lines(result.problems)


def _socket_json(result: Sockets) -> Json:
    tasks = [
        task_json(one.task) | {"sockets": [record(socket, ("socket", "sock")) for socket in one.sockets]}
        for one in result.tasks
    ]
    return {"tasks": tasks, "problems": list(result.problems)}


view(Neighbours, text=_neighbour_lines, json=_neighbour_json)
view(Network, text=_lines, json=_json)
view(Sockets, text=_socket_lines, json=_socket_json)

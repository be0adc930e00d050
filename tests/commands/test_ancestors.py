"""Which tasks does a task descend from?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from orcdbg.base.errors import NotFound
from orcdbg.base.reading import AddressSpace
from orcdbg.commands.ancestors import Ancestors
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain


def test_a_task_comes_first_and_the_first_task_last(debugger: Debugger, registry: Registry) -> None:
    """Each is followed by its parent, and the line ends at the task that is its own."""
    result = registry.run(debugger, "ancestors")
    assert isinstance(result, Ancestors)
    assert result.tasks[0].address == debugger.task.address
    assert [task.parent for task in result.tasks[:-1]] == [task.address for task in result.tasks[1:]]
    assert result.tasks[-1].pid == 0


def test_any_task_can_be_named(debugger: Debugger, registry: Registry) -> None:
    """By pid or by address, with the same answer; a pid that nobody has is an error."""
    by_pid = registry.run(debugger, "ancestors 1")
    assert isinstance(by_pid, Ancestors)
    assert registry.run(debugger, f"ancestors {by_pid.tasks[0].address:#x}") == by_pid
    with pytest.raises(NotFound):
        registry.run(debugger, "ancestors 99999")


def test_text_and_json_tell_the_same(debugger: Debugger, registry: Registry) -> None:
    """A line a task, and an object a task."""
    result = registry.run(debugger, "ancestors")
    _, *lines = plain(lines_of(result, None)).splitlines()
    objects = encode(result)["ancestors"]
    assert [line.split()[:2] for line in lines] == [[str(o["pid"]), f"{int(o['task'], 16):016x}"] for o in objects]
    assert lines[-1].endswith("[swapper/0]")


class _Overwritten:
    """Physical memory in which one word holds another value."""

    def __init__(self, memory: AddressSpace, address: int, value: int) -> None:
        self._memory = memory
        self._address = address
        self._word = value.to_bytes(8, "little")

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, but for the word."""
        data = bytearray(self._memory.read(address, size))
        for index, byte in enumerate(self._word, self._address - address):
            if 0 <= index < size:
                data[index] = byte
        return bytes(data)


def test_parents_in_a_circle_are_met_once(sample: Session, registry: Registry) -> None:
    """A damaged snapshot may say that the first task is a child of the second; the command ends all the same."""
    honest = registry.run(Debugger(sample), "ancestors 1")
    assert isinstance(honest, Ancestors)
    init, first = honest.tasks

    member = first.address + sample.types.offset("task_struct", "real_parent")
    looped = _Overwritten(sample.snapshot.physical, sample.memory.translate(member), init.address)
    debugger = Debugger(Session(sample.image, replace(sample.snapshot, physical=looped)))

    result = registry.run(debugger, "ancestors 1")
    assert isinstance(result, Ancestors)
    assert [task.address for task in result.tasks] == [init.address, first.address]
    assert result.problems == [f"the line of parents runs in a circle at {init.address:#x}"]
    assert plain(lines_of(result, None)).splitlines()[-1] == f"! {result.problems[0]}"


def test_a_parent_that_cannot_be_read_ends_the_line(sample: Session, registry: Registry) -> None:
    """With the reason, and with all that came before it."""
    init = sample.task(1)
    member = init.address + sample.types.offset("task_struct", "real_parent")
    broken = _Overwritten(sample.snapshot.physical, sample.memory.translate(member), 0xDEAD_0000_0000_0000)
    debugger = Debugger(Session(sample.image, replace(sample.snapshot, physical=broken)))

    result = registry.run(debugger, "ancestors 1")
    assert isinstance(result, Ancestors)
    assert [task.pid for task in result.tasks] == [1]
    assert len(result.problems) == 1
    assert encode(result)["problems"] == result.problems

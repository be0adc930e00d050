"""Local variables and arguments of all sleeping tasks' frames, against drgn: every value that both have is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from orcdbg.target.session import Session
from orcdbg.typed.objects import Absent, Immediate, InMemory
from orcdbg.unwind.frame import FrameKind, StackTrace
from orcdbg.variables.local_variables import Variable
from tests.lab.conftest import KERNELS, OpenScene

pytestmark = pytest.mark.lab

# Of the 1,305 to 1,777 values that the dumps of four kernels have; a scene of another seed has other tasks.
VALUES = 900


def frames_of(stack: Any) -> Iterator[tuple[int, list[Any]]]:
    """drgn's frames by address: a function with those that are inlined there, which drgn shows as frames of their own."""
    group: list[Any] = []
    for frame in stack:
        group.append(frame)
        if not frame.is_inline:
            yield frame.pc, group
            group = []


def compare(ours: Variable, theirs: Any, counts: Counter[str]) -> Iterator[str]:
    """Counts how a variable is known to both; yields contradictions."""
    place = ours.object.place_
    if theirs.absent_ or isinstance(place, Absent):
        known = (not isinstance(place, Absent), not theirs.absent_)
        counts[{(True, False): "more", (False, True): "missing", (False, False): "absent"}[known]] += 1
        if known == (False, True):
            assert isinstance(place, Absent)
            print(f"missing: {ours.function} {ours.name}: {place.why}")
        return
    counts["values"] += 1
    if theirs.address_ is not None:
        if not isinstance(place, InMemory) or place.address != theirs.address_:
            yield f"{ours.function} {ours.name}: {place}, not at {theirs.address_:#x}"
    elif not isinstance(place, Immediate) or place.data != theirs.to_bytes_():
        yield f"{ours.function} {ours.name}: {place}, not {theirs.to_bytes_()!r}"


def compared_stack(session: Session, trace: StackTrace, stack: Any, counts: Counter[str]) -> Iterator[str]:
    """All variables of the frames that both have."""
    variables = session.local_variables.of(trace)
    by_address = {(pc, number): group for number, (pc, group) in enumerate(frames_of(stack))}
    for frame in trace.frames:
        group = by_address.get((frame.ip, frame.index))
        if group is None or frame.kind is FrameKind.USER:
            continue
        counts["frames"] += 1
        left = variables.of_frame(frame.index)
        for part in group:
            # Of several of one name drgn gives the innermost, which is our first.
            for name in dict.fromkeys(part.locals()):
                mine = next((each for each in left if (each.name, each.function) == (name, part.name)), None)
                if mine is None:
                    yield f"{part.name} {name}: not there"
                    continue
                left.remove(mine)
                yield from compare(mine, part[name], counts)


@pytest.mark.parametrize("kernel", KERNELS)
def test_variables_of_sleeping_tasks_are_those_of_drgn(kernel: str, open_scene: OpenScene) -> None:
    """Names, places and values, in every frame that both walk to."""
    drgn = pytest.importorskip("drgn")
    scene, session = open_scene(kernel, "idle")
    program = drgn.Program()
    program.set_core_dump(str(scene.snapshot))
    program.load_debug_info([str(scene.vmlinux)])
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for task in session.tasks:
        trace = session.unwinder.trace(task)
        if trace.running:
            continue
        stack = program.stack_trace(drgn.Object(program, "struct task_struct *", task.address))
        wrong += compared_stack(session, trace, stack, counts)
    print(f"{kernel}: {dict(counts)}")
    assert wrong == []
    assert counts["values"] > VALUES
    assert counts["missing"] <= counts["values"] // 200

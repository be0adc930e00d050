"""Real kernels without their ORC tables: at least 99 of 100 frames as with them, and no wrong one without a mark."""

from __future__ import annotations

import pytest

from orcdbg.unwind.frame import Frame
from tests.lab.conftest import OpenScene
from tests.lab.draw import kernels_of
from tests.without_orc import without_orc

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("no ORC tables"))]


def _where(frame: Frame) -> tuple[object, ...]:
    return frame.kind, frame.ip, frame.sp, frame.return_slot


@pytest.mark.parametrize("name", ["idle", "nmi"])
def test_frames_are_as_with_the_tables(kernel: str, name: str, open_scene: OpenScene) -> None:
    """All tasks' frames one by one; where the walk with the tables is sure of another frame, the derived one has a mark."""
    _, session = open_scene(kernel, name)
    cut = without_orc(session)
    same, count, wrong = 0, 0, list[str]()
    for known, derived in zip(session.unwinder.traces(session.tasks), cut.unwinder.traces(cut.tasks), strict=True):
        places = {_where(frame) for frame in known.frames}
        count += len(known.frames)
        for index, frame in enumerate(derived.frames):
            is_same = index < len(known.frames) and _where(known.frames[index]) == _where(frame)
            same += is_same and (frame.mark.is_sure or not known.frames[index].mark.is_sure)
            if frame.mark.is_sure and _where(frame) not in places:
                wrong.append(f"task {known.pid} #{index} {frame.location}: {frame.rule}")
    assert wrong == []
    assert count > 300
    assert same >= 0.99 * count

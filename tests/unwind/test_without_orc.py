"""Stacks of a kernel whose ORC tables are gone: the sample's, beside the walk with them."""

from __future__ import annotations

import pytest

from orcdbg.orc.effective import Source
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame, FrameKind
from tests.without_orc import without_orc

_BY_NAME = (Source.TRAMPOLINE, Source.FRAME_POINTER, Source.INSTRUCTIONS, Source.DWARF)


@pytest.fixture(scope="module")
def cut(sample: Session) -> Session:
    """The sample without its tables."""
    return without_orc(sample)


def _where(frame: Frame) -> tuple[object, ...]:
    return frame.kind, frame.ip, frame.sp, frame.bp, frame.cfa, frame.return_slot, frame.mark.is_sure


def test_every_frame_is_the_one_of_the_table(sample: Session, cut: Session) -> None:
    """Of all tasks: its place, its registers, and whether it is sure. Each says that its rule was derived."""
    count = 0
    for known, derived in zip(sample.unwinder.traces(sample.tasks), cut.unwinder.traces(cut.tasks), strict=True):
        assert [_where(frame) for frame in derived.frames] == [_where(frame) for frame in known.frames]
        assert (derived.end, derived.end_reason) == (known.end, known.end_reason)
        for frame in derived.frames:
            if frame.kind is not FrameKind.USER and frame.source not in _BY_NAME:
                assert frame.source is Source.DERIVED
                count += 1
    assert count > 200


def test_one_line_says_so(cut: Session) -> None:
    """However many frames there are."""
    _ = cut.unwinder.traces(cut.tasks)
    assert len([line for line in cut.warnings if "rows are derived from the instructions" in line]) == 1

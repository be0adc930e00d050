"""bt --folded, bt --speedscope: how many tasks have each stack, for programs that draw flame graphs?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.commands.result import Result
from orcdbg.commands.stacks import Stacks
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace


@dataclass(frozen=True, slots=True)
class FoldedFrame:
    """A function of a stack: its `symbol`, None where no symbol is near its address, and whether the frame is sure."""

    symbol: str | None
    module: str | None
    address: int
    is_sure: bool


@dataclass(frozen=True, slots=True)
class FoldedStack:
    """A stack, outermost function first, and how many tasks of that name have it."""

    comm: str
    frames: Sequence[FoldedFrame]
    count: int


@dataclass(frozen=True, slots=True)
class FoldedStacks(Result):
    """Stacks with the number of tasks that have each, those of most tasks first, in the form that flamegraph.pl reads."""

    stacks: Sequence[FoldedStack]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class SpeedscopeStacks(Result):
    """The same as a document of speedscope's format."""

    folded: FoldedStacks


def folded(result: Stacks) -> FoldedStacks:
    """Counts stacks of the same functions, whatever the offsets in them; where the user was is no function."""
    counted = Counter((trace.comm, folded_frames(trace)) for trace in result.stacks)
    found = [FoldedStack(comm, frames, count) for (comm, frames), count in counted.most_common()]
    return FoldedStacks(found, result.problems)


def folded_frames(trace: StackTrace) -> tuple[FoldedFrame, ...]:
    """The functions of a stack, outermost first."""
    frames = [frame for frame in trace.frames if frame.kind is not FrameKind.USER]
    return tuple(_folded_frame(frame) for frame in reversed(frames))


def _folded_frame(frame: Frame) -> FoldedFrame:
    if frame.location is None:
        return FoldedFrame(None, None, frame.ip, frame.mark.is_sure)
    return FoldedFrame(frame.location.symbol, frame.location.module, frame.location.start, frame.mark.is_sure)

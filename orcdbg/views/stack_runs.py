"""What of a stack is told once for several frames: a doubt that goes on, and a recursion?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from orcdbg.unwind.frame import Frame, FrameKind
from orcdbg.unwind.reasons import ReachedThroughDoubt, TextOnStack

_LONGEST_PERIOD = 16  # frames; functions that call each other in turn are two or three
_LEAST_TIMES = 3
_LEAST_HIDDEN = 3  # frames: a line that stands for fewer saves nothing


class Recursion(NamedTuple):
    """Frames that repeat those before them.

    Attributes:
        first: place of the first frame of all.
        period: how many frames it is that repeat.
        times: how often they are there, the first time among them.
        size: bytes of stack that they take each time.
    """

    first: int
    period: int
    times: int
    size: int

    @property
    def shown(self) -> range:
        """Places of the frames that stand for all."""
        return range(self.first, self.first + self.period)

    @property
    def end(self) -> int:
        """Place behind the last frame."""
        return self.first + self.period * self.times


def repeated_doubts(frames: Sequence[Frame]) -> list[bool]:
    """For each frame, whether its doubt is that of the frame before it, where it was told."""
    return [bool(place) and _is_same_doubt(frames[place - 1], frame) for place, frame in enumerate(frames)]


def _is_same_doubt(before: Frame, frame: Frame) -> bool:
    if frame.doubt is None or before.doubt is None:
        return False
    if isinstance(frame.doubt, TextOnStack):
        return False  # what was found at this one place
    if frame.doubt == before.doubt:
        return True
    # A walk hands a doubt on from frame to frame, and each names the one before it.
    is_handed_on = isinstance(frame.doubt, ReachedThroughDoubt) and isinstance(before.doubt, ReachedThroughDoubt)
    return is_handed_on and frame.doubt == ReachedThroughDoubt(before.index)


def recursions(frames: Sequence[Frame], told: Callable[[int], Hashable]) -> list[Recursion]:
    """The runs of frames that repeat, innermost first.

    Args:
        frames: of one stack.
        told: gives for the frame at a place all that its lines say besides its number and the addresses of its stack.
    """
    # Most stacks have no function three times, and are not looked at any further.
    if max(Counter(frame.ip for frame in frames).values(), default=0) < _LEAST_TIMES:
        return []

    likenesses = [_likeness(frame, told(place)) for place, frame in enumerate(frames)]
    found: list[Recursion] = []
    place = 0
    while place < len(frames):
        run = _run_at(frames, likenesses, place)
        if run is not None:
            found.append(run)
        place = place + 1 if run is None else run.end
    return found


def _likeness(frame: Frame, told: Hashable) -> Hashable:
    """What frames have in common that one line may stand for; None for a frame that always has a line of its own."""
    if frame.kind is not FrameKind.CALL or frame.cfa is None or frame.came_from is None:
        return None
    return frame.ip, frame.stack, frame.mark, frame.cfa - frame.sp, frame.sp - frame.came_from, told


def _run_at(frames: Sequence[Frame], likenesses: Sequence[Hashable], first: int) -> Recursion | None:
    """The shortest frames at a place that are there often enough."""
    for period in range(1, min(_LONGEST_PERIOD, (len(frames) - first) // _LEAST_TIMES) + 1):
        pattern = likenesses[first : first + period]
        if None in pattern:
            return None
        # Each mark has its line: frames that are differently sure do not become one.
        if len({(frame.mark, frame.stack) for frame in frames[first : first + period]}) > 1:
            return None

        times = 1
        while likenesses[first + times * period : first + (times + 1) * period] == pattern:
            times += 1
        if times >= _LEAST_TIMES and period * (times - 1) >= _LEAST_HIDDEN:
            size = sum((frame.cfa or 0) - frame.sp for frame in frames[first : first + period])
            return Recursion(first, period, times, size)
    return None

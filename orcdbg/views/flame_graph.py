"""How do counted stacks look as a picture: an SVG flame graph that needs neither scripts nor fonts of its own?

The outermost function is at the bottom. A box is as wide as its share of the tasks; what is narrower than a thousandth is
left out. Widths are percentages, so that letters have the same size on a narrow page.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from orcdbg.commands.folded import FoldedFrame
from orcdbg.views.folded import frame_name
from orcdbg.views.page import safe

ROW = 18  # pixels
_LEAST = 0.001
_MOST_ROWS = 128
_MOST_BOXES = 4096


@dataclass(slots=True)
class Box:
    """A function in one place of the graph: how many tasks are in it, and what they were in from there."""

    frame: FoldedFrame
    count: int = 0
    inner: dict[str, Box] = field(default_factory=dict)


def flame_graph(stacks: Sequence[tuple[Sequence[FoldedFrame], int]]) -> str:
    """The SVG of stacks, each outermost function first, with the number of its tasks; empty where there is none."""
    total = sum(count for _, count in stacks)
    if not total:
        return ""
    roots: dict[str, Box] = {}
    for frames, count in stacks:
        level = roots
        for frame in frames[:_MOST_ROWS]:
            box = level.setdefault(frame_name(frame), Box(frame))
            box.count += count
            level = box.inner

    placed = list(_placed(roots, 0.0, 0, total))[:_MOST_BOXES]
    rows = 1 + max((row for _, _, row in placed), default=0)
    boxes = "".join(_box(box, left, rows - 1 - row, total) for box, left, row in placed)
    label = f"flame graph of {total} tasks"
    return f'<svg role="img" aria-label="{label}" width="100%" height="{rows * ROW}">{boxes}</svg>'


def _placed(level: dict[str, Box], left: float, row: int, total: int) -> Iterator[tuple[Box, float, int]]:
    """The boxes of a level and of those above it, with the share of the width on their left, and their row from the bottom."""
    for box in sorted(level.values(), key=lambda box: (-box.count, frame_name(box.frame))):
        if box.count / total >= _LEAST:
            yield box, left, row
            yield from _placed(box.inner, left, row + 1, total)
        left += box.count / total


def _box(box: Box, left: float, row: int, total: int) -> str:
    name = html.escape(safe(frame_name(box.frame)))
    tasks = "1 task" if box.count == 1 else f"{box.count} tasks"
    style = "doubt" if not box.frame.is_sure else "module" if box.frame.module else "core"
    # The inner svg cuts off what of the name does not fit.
    return (
        f'<svg x="{left * 100:.3f}%" y="{row * ROW}" width="{box.count / total * 100:.3f}%" height="{ROW - 1}">'
        f"<title>{name}: {tasks}</title>"
        f'<rect class="{style}" width="100%" height="100%"/><text x="3" y="{ROW - 5}">{name}</text></svg>'
    )

"""Which source lines do shown frames and instructions come from?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.image.source_position import Position
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace


def lookup(frame: Frame) -> int:
    """The address a frame's line is looked up at: a return address belongs to the call before it."""
    return frame.ip if frame.exact else frame.ip - 1


def positions_of(session: Session, addresses: Iterable[int]) -> tuple[dict[int, Position], list[str]]:
    """Positions in the source by run-time address, and what stood in the way.

    Addresses that the image has no line for, as those of modules, are left out.
    """
    lines = session.debug.source_lines
    try:
        if not lines.is_there:
            return {}, [f"no source lines: {session.image.path}: it has no debugging information"]
    except UnsupportedFormat as error:
        return {}, [f"no source lines: {error.message}"]
    found: dict[int, Position] = {}
    problems: dict[str, None] = {}
    for address in addresses:
        if address in found or not session.is_image_text(address):
            continue
        try:
            position = lines.at(address - session.slide)
        except UnsupportedFormat as error:
            problems[error.message] = None
            continue
        if position is not None:
            found[address] = position
    return found, list(problems)


def positions_in(session: Session, traces: Iterable[StackTrace]) -> tuple[Mapping[int, Position], list[str]]:
    """The same for all kernel frames of some stacks."""
    return positions_of(session, [lookup(f) for trace in traces for f in trace.frames if f.kind is not FrameKind.USER])

"""Which source lines do shown frames and instructions come from?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.image.source_position import Position
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace

if TYPE_CHECKING:
    from orcdbg.image.source_lines import SourceLines


def lookup(frame: Frame) -> int:
    """The address a frame's line is looked up at: a return address belongs to the call before it."""
    return frame.ip if frame.exact else frame.ip - 1


def positions_of(session: Session, addresses: Iterable[int]) -> tuple[dict[int, Position], list[str]]:
    """Positions in the source by run-time address, and what stood in the way.

    Addresses that nothing has a line for, as those of modules without their files, are left out.
    """
    in_modules = session.kernel.module_debug
    lines = session.debug.source_lines
    problems: dict[str, None] = {}
    try:
        has_lines = lines.is_there
        if not has_lines:
            problems[f"no source lines: {session.image.path}: it has no debugging information"] = None
    except UnsupportedFormat as error:
        has_lines = False
        problems[f"no source lines: {error.message}"] = None

    found: dict[int, Position] = {}
    for address in addresses:
        in_module = in_modules.at(address) if in_modules is not None else None
        if address in found or not (in_module is not None or (has_lines and session.is_image_text(address))):
            continue
        try:
            position = lines.at(address - session.slide) if in_module is None else in_module.source_lines.at(address)
        except UnsupportedFormat as error:
            problems[error.message] = None
            continue
        if position is not None:
            found[address] = position
    return found, [*problems, *(in_modules.problems if in_modules is not None else ())]


def lines_at(session: Session, address: int) -> tuple[SourceLines, int] | None:
    """The line information of whatever has code at a run-time address, and the address that it knows that code by."""
    in_modules = session.kernel.module_debug
    in_module = in_modules.at(address) if in_modules is not None else None
    if in_module is not None:
        return in_module.source_lines, address
    if not session.is_image_text(address) or not session.debug.source_lines.is_there:
        return None
    return session.debug.source_lines, address - session.slide


def positions_in(session: Session, traces: Iterable[StackTrace]) -> tuple[Mapping[int, Position], list[str]]:
    """The same for all kernel frames of some stacks."""
    return positions_of(session, [lookup(f) for trace in traces for f in trace.frames if f.kind is not FrameKind.USER])

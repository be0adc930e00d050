"""frame: one frame of the selected stack, and everything behind it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.instructions import ListedInstruction, disassemble
from orcdbg.commands.lines import lookup, positions_of
from orcdbg.commands.local_variables import FrameVariables, variables_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.image.source_position import Position
from orcdbg.orc.cfa import bp_rule
from orcdbg.orc.rows import OrcRegister
from orcdbg.patches.site import PatchSite
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace
from orcdbg.unwind.walker import REGISTER_OF


@dataclass(frozen=True, slots=True)
class FrameDetail(Result):
    """One frame with everything behind it: `sites` cover its ip, `memory` is their text as it is now, None if missing."""

    trace: StackTrace
    frame: Frame
    base_register: str | None
    sites: Sequence[PatchSite]
    memory: bytes | None
    instructions: Sequence[ListedInstruction]
    bp_rule: str | None
    position: Position | None = None
    variables: FrameVariables | None = None


_BASE_REGISTERS = {**REGISTER_OF, OrcRegister.SP_INDIRECT: "rsp", OrcRegister.BP_INDIRECT: "rbp"}


def detail(debugger: Debugger, index: int) -> FrameDetail:
    """Everything behind a frame of the selected task."""
    frame = debugger.frame(index)
    session = debugger.session
    is_kernel = frame.kind is not FrameKind.USER
    cluster = session.ledger.find(frame.ip if frame.exact else frame.ip - 1) if is_kernel else None
    memory = None
    if cluster is not None:
        try:
            memory = session.memory.read(cluster.address, len(cluster.image))
        except MemoryFault:
            memory = None
    row = frame.entry.row if frame.entry else None
    return FrameDetail(
        debugger.trace(),
        frame,
        _BASE_REGISTERS.get(row.sp_reg) if row else None,
        cluster.sites if cluster else (),
        memory,
        _around(debugger, frame),
        bp_rule(row) if row else None,
        positions_of(session, [lookup(frame)] if is_kernel else [])[0].get(lookup(frame)),
        variables_of(debugger, debugger.trace(), index) if is_kernel and session.has_debug else None,
    )


def _around(debugger: Debugger, frame: Frame) -> list[ListedInstruction]:
    """The instructions next to a frame's ip; none where the text cannot be had."""
    if frame.kind is FrameKind.USER or frame.location is None or not frame.location.is_text:
        return []
    try:
        lines = disassemble(debugger.session, frame.location.start, frame.ip + 16, None)
    except OrcdbgError:
        return []
    before = [line for line in lines if line.address < frame.ip][-3:]
    return before + [line for line in lines if line.address >= frame.ip][:3]


def move(debugger: Debugger, by: int) -> FrameDetail:
    """Selects the frame `by` places further out, or as far as the stack goes; OrcdbgError at its end."""
    trace = debugger.trace()
    last = len(trace.frames) - 1
    target = min(max(debugger.frame_index + by, 0), max(last, 0))
    debugger.frame()  # a stack without frames says why
    if target == debugger.frame_index and by:
        which = "outermost" if by > 0 else "innermost"
        raise OrcdbgError(f"already at frame {target}, the {which} of task {trace.pid} {trace.comm}")
    result = detail(debugger, target)
    debugger.frame_index = target
    return result


def add_number(parser: argparse.ArgumentParser) -> None:
    """The operand that names a frame."""
    parser.add_argument("number", nargs="?", type=int, help="which frame (default: the selected one)")


def add_count(parser: argparse.ArgumentParser) -> None:
    """The operand that says how many frames to move by."""
    parser.add_argument("count", nargs="?", type=int, default=1, help="how many frames (default: 1)")


@command(
    "frame",
    summary="select a frame and show how it was found",
    group="stacks",
    effect=Effect.NONE,
    arguments=add_number,
    aliases=("f",),
    operands=("frame",),
    examples=(("frame 6", "the ORC row, base register, patch and return slot of frame 6"),),
)
def show_frame(debugger: Debugger, arguments: argparse.Namespace) -> FrameDetail:
    """Selects a frame, and answers with everything behind it."""
    index = debugger.frame_index if arguments.number is None else arguments.number
    result = detail(debugger, index)
    debugger.frame_index = index
    return result

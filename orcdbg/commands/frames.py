"""frame, up, down, regs: one frame of the selected stack, and everything behind it."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.disassembler import disassemble
from orcdbg.commands.lines import lookup, positions_of
from orcdbg.commands.registry import Command
from orcdbg.commands.results import FrameDetail, FrameRegisters, Instruction, Result
from orcdbg.orc.cfa import bp_rule
from orcdbg.orc.rows import OrcRegister
from orcdbg.unwind.frame import Frame, FrameKind
from orcdbg.unwind.walker import REGISTER_OF

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
    )


def _around(debugger: Debugger, frame: Frame) -> list[Instruction]:
    """The instructions next to a frame's ip; none where the text cannot be had."""
    if frame.kind is FrameKind.USER or frame.location is None or not frame.location.is_text:
        return []
    try:
        lines = disassemble(debugger.session, frame.location.start, frame.ip + 16, None)
    except OrcdbgError:
        return []
    before = [line for line in lines if line.address < frame.ip][-3:]
    return before + [line for line in lines if line.address >= frame.ip][:3]


def _frame_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", nargs="?", type=int, help="which frame; the selected one without")


def _frame(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    index = debugger.frame_index if arguments.number is None else arguments.number
    found = detail(debugger, index)
    debugger.frame_index = index
    return found


def _move(debugger: Debugger, by: int) -> Result:
    last = len(debugger.trace().frames) - 1
    target = min(max(debugger.frame_index + by, 0), max(last, 0))
    if target == debugger.frame_index and by:
        raise OrcdbgError("already at the outermost frame" if by > 0 else "already at the innermost frame")
    found = detail(debugger, target)
    debugger.frame_index = target
    return found


def _count_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("count", nargs="?", type=int, default=1, help="how many frames; 1 without")


def _regs(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    frame = debugger.frame(arguments.number)
    known = debugger.session.register_finder.all(debugger.trace(), frame.index)[-1]
    return FrameRegisters(frame, known.values, known.unknown)


COMMANDS = (
    Command(
        "frame",
        "select a frame and show what is behind it",
        "stacks",
        _frame,
        _frame_arguments,
        aliases=("f",),
        examples=(("frame 6", "the ORC row, base register, patch and return slot of frame 6"),),
        operands=("frame",),
    ),
    Command("up", "select the caller's frame", "stacks", lambda d, a: _move(d, a.count), _count_arguments),
    Command("down", "select the callee's frame", "stacks", lambda d, a: _move(d, -a.count), _count_arguments),
    Command(
        "regs",
        "show the registers known in a frame, and where each was saved",
        "stacks",
        _regs,
        _frame_arguments,
        examples=(("regs", "of the selected frame"), ("regs 0", "of the innermost frame")),
        operands=("frame",),
    ),
)

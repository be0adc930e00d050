"""regs: the registers that are known in a frame, and where each was saved."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.frame import add_number
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.unwind.frame import Frame, Registers


@dataclass(frozen=True, slots=True)
class FrameRegisters(Result):
    """The registers known in one frame, and why the callee-saved ones among the others are not."""

    frame: Frame
    registers: Registers
    unknown: Mapping[str, str]


@command(
    "regs",
    summary="show a frame's known registers, and where each was saved",
    group="stacks",
    arguments=add_number,
    operands=("frame",),
    examples=(("regs", "of the selected frame"), ("regs 0", "of the innermost frame")),
)
def regs(debugger: Debugger, arguments: argparse.Namespace) -> FrameRegisters:
    """Answers with the registers of a frame."""
    frame = debugger.frame(arguments.number)
    known = debugger.session.register_finder.all(debugger.trace(), frame.index)[-1]
    return FrameRegisters(frame, known.values, known.unknown)

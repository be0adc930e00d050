"""info: gdb's questions to the selected frame."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.frame import detail
from orcdbg.commands.local_variables import FrameVariables, variables_of
from orcdbg.commands.registry import command
from orcdbg.commands.regs import FrameRegisters
from orcdbg.commands.result import Result

Answer = Callable[[Debugger, int], Result]


def _locals(debugger: Debugger, index: int) -> FrameVariables:
    found = variables_of(debugger, debugger.trace(), index)
    return replace(found, variables=[each for each in found.variables if not each.is_argument], is_part=True)


def _args(debugger: Debugger, index: int) -> FrameVariables:
    found = variables_of(debugger, debugger.trace(), index)
    return replace(found, variables=[each for each in found.variables if each.is_argument], is_part=True)


def _registers(debugger: Debugger, index: int) -> FrameRegisters:
    known = debugger.session.register_finder.all(debugger.trace(), index)[-1]
    return FrameRegisters(debugger.frame(index), known.values, known.unknown)


ANSWERS: Mapping[str, Answer] = {"locals": _locals, "args": _args, "registers": _registers, "frame": detail}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="locals|args|registers|frame", help="what to show of the frame")
    parser.add_argument("number", nargs="?", type=int, help="which frame (default: the selected one)")


@command(
    "info",
    summary="show a frame's variables, arguments or registers, in gdb's words",
    group="stacks",
    arguments=_arguments,
    aliases=("i",),
    examples=(
        ("info locals", "variables of the selected frame, of inlined functions too"),
        ("info args 3", "what the function of frame 3 was called with"),
        ("info registers", "the same as `regs`"),
    ),
)
def info(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with what the word asks of the frame."""
    answer = ANSWERS.get(arguments.what)
    if answer is None:
        raise UsageError(f"info knows no {arguments.what}", "one of " + ", ".join(ANSWERS))
    return answer(debugger, debugger.frame(arguments.number).index)

"""regs: the registers that are known in a frame, and where each was saved."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orcdbg.base.errors import NotFound
from orcdbg.base.reasons import UnknownRegister, WhyNoValue
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.unwind.frame import Frame, Registers


@dataclass(frozen=True, slots=True)
class FrameRegisters(Result):
    """The registers known in a frame, all or those asked for, and why the callee-saved ones among the others are not."""

    frame: Frame
    registers: Registers
    unknown: Mapping[str, UnknownRegister]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="N|REGISTER",
        help="which frame (default: the selected one), and which registers (default: all)",
    )


@command(
    "regs",
    summary="show a frame's known registers, and where each was saved",
    group="stacks",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("frame",),
    examples=(
        ("regs", "of the selected frame"),
        ("regs 0", "of the innermost frame"),
        ("regs rip rsp", "two registers of the selected frame"),
    ),
)
def regs(debugger: Debugger, arguments: argparse.Namespace) -> FrameRegisters:
    """Answers with the registers of a frame."""
    words = list(arguments.words)
    number = int(words.pop(0)) if words and words[0].isdecimal() else None
    frame = debugger.frame(number)
    known = debugger.session.register_finder.all(debugger.trace(), frame.index)[-1]
    if not words:
        return FrameRegisters(frame, known.values, known.unknown)

    unknown = {**dict.fromkeys(_CALL_CLOBBERED - known.values.keys(), _NOT_SAVED), **known.unknown}
    wanted = [_register(word, {*known.values, *unknown}) for word in words]
    return FrameRegisters(
        frame,
        {name: known.values[name] for name in wanted if name in known.values},
        {name: unknown[name] for name in wanted if name in unknown},
    )


ALIASES = {"pc": "rip", "ip": "rip", "sp": "rsp", "fp": "rbp", "eflags": "rflags"}
"""gdb's names of what x86-64 calls otherwise."""

# What a call need not preserve: only an interrupt saves it.
_CALL_CLOBBERED = frozenset(("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "rflags"))
_NOT_SAVED = UnknownRegister("a call need not preserve it, and nothing saved it", WhyNoValue.NOT_SAVED)


def _register(word: str, names: Collection[str]) -> str:
    """The register that a word means, `$rip` or `rip`."""
    name = word.removeprefix("$")
    name = ALIASES.get(name, name)
    if name not in names:
        raise NotFound("register", word, "this frame has " + ", ".join(sorted(names)))
    return name

"""regs: the registers that are known in a frame, and where each was saved; or those that CPUs were stopped with."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.reasons import UnknownRegister, WhyNoValue
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.snapshot.machine import CpuState
from orcdbg.unwind.frame import Frame, Registers


@dataclass(frozen=True, slots=True)
class FrameRegisters(Result):
    """The registers known in a frame, all or those asked for, and why the callee-saved ones among the others are not."""

    frame: Frame
    registers: Registers
    unknown: Mapping[str, UnknownRegister]


@dataclass(frozen=True, slots=True)
class CpuRegisters(Result):
    """With `-a`: the registers that the snapshot has of each CPU, whatever ran there.

    Attributes:
        cpus: as recorded; numbered in the order of the snapshot.
        names: of their instruction pointers, where these are in code that has a name.
        problems: why there are no names.
    """

    cpus: Sequence[CpuState]
    names: Mapping[int, str]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="N|REGISTER",
        help="which frame (default: the selected one), and which registers (default: all)",
    )
    parser.add_argument(
        "-a", "--all-cpus", action="store_true", help="what the snapshot recorded of each CPU; asks for no task"
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
        ("regs -a", "of all CPUs, as they were stopped; also where no task can be read"),
    ),
)
def regs(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the registers of a frame, or of all CPUs."""
    if arguments.all_cpus:
        if arguments.words:
            raise UsageError("-a shows all registers of all CPUs", "for example: regs -a")
        return _of_cpus(debugger)
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


def _of_cpus(debugger: Debugger) -> CpuRegisters:
    """The recorded registers. A snapshot that was cut off has them too, in its first bytes."""
    cpus = debugger.session.snapshot.cpus
    if not cpus:
        raise NotFound("registers", "of any CPU in this snapshot", "the stack of a sleeping task needs none: `bt PID`")

    names: Mapping[int, str] = {}
    problems = []
    try:
        names = names_of(debugger, [state.registers["rip"] for state in cpus if "rip" in state.registers])
    except OrcdbgError as error:
        problems.append(f"names of code: {error}")
    return CpuRegisters(cpus, names, problems)


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

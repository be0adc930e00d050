"""Which stacks does a command answer with: all of them, those with a function in them, or equal ones once?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import NoneFits, Result
from orcdbg.unwind.batch.equal_stacks import EqualStacks, SharedFrames
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace
from orcdbg.unwind.system_calls import name_of_call

if TYPE_CHECKING:
    from orcdbg.commands.local_variables import FrameVariables
    from orcdbg.commands.stack_words import FrameWords
    from orcdbg.image.source_position import Position

FrameKey = tuple[int, int]  # address of the task, number of the frame
GroupKey = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Stacks(Result):
    """Stack traces, in the order asked for; `syscalls` names the system call a task is in, by task address.

    `positions` are places in the source by the address that a frame is looked up at; empty where none were asked for.
    `words` are those of the frames, and `variables` their variables, likewise. `idle_cpus` are CPUs whose idle tasks were
    left out. With `with_every_frame` the text has a line for each frame of a recursion; JSON has them in any case.
    """

    stacks: Sequence[StackTrace]
    syscalls: Mapping[int, str] = field(default_factory=dict)
    problems: Sequence[str] = ()
    positions: Mapping[int, Position] = field(default_factory=dict)
    words: Mapping[FrameKey, FrameWords] = field(default_factory=dict)
    variables: Mapping[FrameKey, FrameVariables] = field(default_factory=dict)
    idle_cpus: Sequence[int] = ()
    with_every_frame: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks with the same stack: `trace` is that of the first of `pids`."""

    trace: StackTrace
    pids: Sequence[int]


@dataclass(frozen=True, slots=True)
class StackGroups(Result):
    """Equal stacks once, those of most tasks first; `stacks` holds one trace a group, with all that views need of it."""

    groups: Sequence[Group]
    stacks: Stacks


def stacks_result(debugger: Debugger, traces: list[StackTrace]) -> Stacks:
    """The traces, with the names of the system calls their tasks are in."""
    names = {trace.task: name_of_call(debugger.session.linux, trace) for trace in traces}
    return Stacks(traces, {task: name for task, name in names.items() if name is not None})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that bt and foreach share."""
    parser.add_argument(
        "--group", action="store_true", help="show equal stacks once, with the number of tasks and their pids"
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--folded", action="store_true", help="a line a stack with the number of its tasks, as flamegraph.pl reads them"
    )
    forms.add_argument("--speedscope", action="store_true", help="the same as a document of speedscope's format")
    parser.add_argument(
        "--every-frame", action="store_true", help="a line for each frame of a recursion, which is `x 44` otherwise"
    )
    parser.add_argument("--has", metavar="SYMBOL", help="only stacks with this function on them")
    parser.add_argument(
        "-R", "--reference", metavar="SYMBOL|ADDR", help="only stacks with this function or word on them"
    )
    parser.add_argument(
        "--crash", action="store_true", help="print the lines that crash prints, for scripts that read them"
    )
    parser.add_argument(
        "-s", "--offsets", action="store_true", help="with --crash: symbol+offset (otherwise always shown)"
    )
    radix = parser.add_mutually_exclusive_group()
    radix.add_argument("-x", dest="is_hex", action="store_true", default=False, help="the offsets of -s in hexadecimal")
    radix.add_argument(
        "-d", dest="is_hex", action="store_false", help="the offsets of -s in decimal (the default there)"
    )


def in_chosen_form(debugger: Debugger, result: Stacks, arguments: argparse.Namespace) -> Result:
    """The result in the form that the options ask for; NotFound where they name a symbol that the kernel lacks."""
    if arguments.has is not None:
        result = with_symbol(result, arguments.has)
        if not result.stacks:
            debugger.address(arguments.has)

    answer = _formed(replace(result, with_every_frame=arguments.every_frame), arguments)
    if result.stacks or result.idle_cpus:
        return answer
    return NoneFits("stacks", answer, result.problems)


def _formed(result: Stacks, arguments: argparse.Namespace) -> Result:
    if arguments.folded or arguments.speedscope:
        from orcdbg.commands.folded import SpeedscopeStacks, folded  # only where it is asked for

        return SpeedscopeStacks(folded(result)) if arguments.speedscope else folded(result)
    if arguments.group:
        return grouped(result)
    if arguments.crash:
        from orcdbg.commands.crash import CrashStacks  # only where it is asked for

        return CrashStacks(result, arguments.offsets, arguments.is_hex)
    return result


def with_symbol(result: Stacks, symbol: str) -> Stacks:
    """The stacks in which some frame is of this function; there may be none."""
    known: dict[EqualStacks, bool] = {}

    def has(frames: Sequence[Frame]) -> bool:
        return any(frame.location is not None and frame.location.symbol == symbol for frame in frames)

    def is_wanted(trace: StackTrace) -> bool:
        frames = trace.frames
        if not isinstance(frames, SharedFrames):
            return has(frames)
        if frames.shape not in known:
            known[frames.shape] = has([level.prototype for level in frames.shape.levels])
        return known[frames.shape]

    return replace(result, stacks=[trace for trace in result.stacks if is_wanted(trace)])


def grouped(result: Stacks) -> StackGroups:
    """Stacks that have the same return addresses in the same order, whatever their distances; how they end counts too."""
    members: dict[GroupKey, list[StackTrace]] = {}
    known: dict[EqualStacks, GroupKey] = {}
    for trace in result.stacks:
        frames = trace.frames
        if isinstance(frames, SharedFrames):
            if frames.shape not in known:
                known[frames.shape] = _key([level.prototype for level in frames.shape.levels])
            key = known[frames.shape]
        else:
            key = _key(frames)
        members.setdefault((key, trace.end, trace.end_reason), []).append(trace)
    groups = [Group(traces[0], [trace.pid for trace in traces]) for traces in members.values()]
    groups.sort(key=lambda group: -len(group.pids))
    return StackGroups(groups, replace(result, stacks=[group.trace for group in groups]))


def _key(frames: Sequence[Frame]) -> GroupKey:
    return tuple((frame.ip, frame.kind, frame.mark) for frame in frames if frame.kind is not FrameKind.USER)

"""Which of many stacks are wanted, and which of them are equal?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound
from orcdbg.commands.results import Result, Stacks
from orcdbg.unwind.batch.equal_stacks import EqualStacks, SharedFrames
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks with the same stack: `trace` is that of the first of `pids`."""

    trace: StackTrace
    pids: Sequence[int]


@dataclass(frozen=True, slots=True)
class StackGroups:
    """Equal stacks once, those of most tasks first; `stacks` holds one trace a group, with all that views need of it."""

    groups: Sequence[Group]
    stacks: Stacks


@dataclass(frozen=True, slots=True)
class CrashStacks:
    """Stacks to be printed as crash prints them."""

    stacks: Stacks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that bt and foreach share."""
    parser.add_argument(
        "--group", action="store_true", help="equal stacks once, with the number of tasks and their pids"
    )
    parser.add_argument("--has", metavar="SYMBOL", help="only stacks with this function in them")
    parser.add_argument("--crash", action="store_true", help="in crash's lines, for scripts that read them")


def chosen(result: Stacks, arguments: argparse.Namespace) -> Result:
    """The result in the form that the options ask for; NotFound where no stack has the symbol."""
    if arguments.has is not None:
        result = with_symbol(result, arguments.has)
    if arguments.group:
        return grouped(result)
    return CrashStacks(result) if arguments.crash else result


def with_symbol(result: Stacks, symbol: str) -> Stacks:
    """The stacks in which some frame is of this function; NotFound where there is none."""
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

    found = [trace for trace in result.stacks if is_wanted(trace)]
    if not found:
        raise NotFound("stack with", symbol, "`sym` tells whether the kernel has such a function")
    return Stacks(found, result.syscalls, result.problems, result.positions)


def grouped(result: Stacks) -> StackGroups:
    """Stacks that have the same return addresses in the same order, whatever their distances; how they end counts too."""
    members: dict[Key, list[StackTrace]] = {}
    known: dict[EqualStacks, Key] = {}
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
    first = Stacks([group.trace for group in groups], result.syscalls, result.problems, result.positions)
    return StackGroups(groups, first)


def _key(frames: Sequence[Frame]) -> Key:
    return tuple((frame.ip, frame.kind, frame.mark) for frame in frames if frame.kind is not FrameKind.USER)

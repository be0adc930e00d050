"""What is on a task's whole stack, word by word, whatever stack pointer it has?"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from orcdbg.base.reading import read_memory_pieces
from orcdbg.base.sizes import U64
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.rd import MemoryWords, name_of_word
from orcdbg.commands.result import Result
from orcdbg.kernel.stacks import Stack, task_stack
from orcdbg.kernel.tasks import Task


@dataclass(frozen=True, slots=True)
class RawStack:
    """A task's stack: runs of words, between which some cannot be read."""

    task: Task
    runs: Sequence[MemoryWords]


@dataclass(frozen=True, slots=True)
class RawStacks(Result):
    """Stacks of tasks from their lowest address up; words that are addresses of symbols have these names."""

    stacks: Sequence[RawStack]
    problems: Sequence[str]


def raw_stacks(debugger: Debugger, tasks: Sequence[Task]) -> RawStacks:
    """The stacks of some tasks, without those of interrupts and exceptions."""
    session = debugger.session
    stacks, problems = [], []
    for task in tasks:
        stack = task_stack(session.linux, task.address)
        if stack is None:
            problems.append(f"task {task.pid} has no stack")
            continue
        runs, missing = _runs(debugger, stack)
        if missing:
            problems.append(f"the stack of task {task.pid}: {missing} words are not in the snapshot")
        stacks.append(RawStack(task, runs))
    return RawStacks(stacks, problems)


def _runs(debugger: Debugger, stack: Stack) -> tuple[list[MemoryWords], int]:
    """The words that are there, those one behind the other together, and how many are not."""
    places = range(stack.begin, stack.end, 8)
    words = read_memory_pieces(debugger.session.memory, [place & U64 for place in places], [8] * len(places))
    found: list[MemoryWords] = []
    for is_there, group in groupby(zip(places, words, strict=True), lambda pair: pair[1] is not None):
        run = list(group)
        if is_there:
            data = b"".join(word for _, word in run if word is not None)
            names = [name_of_word(debugger, value) for (value,) in struct.iter_unpack("<Q", data)]
            found.append(MemoryWords(run[0][0], 8, data, names))
    return found, words.count(None)

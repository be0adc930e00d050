"""Whose are a stack, and what tracers keep of it, while a CPU goes from one task to the next?

__switch_to_asm (arch/x86/entry/entry_64.S) saves the outgoing task's stack pointer in `thread.sp` and takes the incoming
one's; some 150 instructions later __switch_to (arch/x86/kernel/process_64.c) sets `current`. In between `current` names a
task that the CPU has left: the stack that rsp is on names the task that it runs.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reasons import Reason
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.stacks import Stack, task_stack
from orcdbg.kernel.tasks import MAX_TASKS, all_task_addresses
from orcdbg.unwind.frame import Frame
from orcdbg.unwind.reasons import EntryHalfWritten
from orcdbg.unwind.true_returns import TrueReturn, TrueReturns


class TaskStacks:
    """The stacks of all tasks. They are read when the first is asked for: a question that most snapshots never raise."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    def owner(self, sp: int) -> int | None:
        """The task whose stack a stack pointer is on; None where it is on none."""
        # What is at the stack's end is an empty stack's.
        place = bisect.bisect_left(self._begins, sp) - 1
        stack = self._stacks[place] if place >= 0 else None
        return stack.task if stack is not None and stack.begin < sp <= stack.end else None

    @functools.cached_property
    def _stacks(self) -> list[Stack]:
        stacks: list[Stack] = []
        try:
            for address in all_task_addresses(self._linux, Budget(MAX_TASKS)):
                stack = task_stack(self._linux, address)
                if stack is not None:
                    stacks.append(stack)
        except OrcdbgError:
            pass  # a task list that breaks off: the stacks before the break are the ones there are
        return sorted(stacks, key=lambda stack: stack.begin)

    @functools.cached_property
    def _begins(self) -> list[int]:
        return [stack.begin for stack in self._stacks]


class ReturnsDuringSwitch(TrueReturns):
    """True return addresses while a CPU is on the incoming task's stack and tracers still keep them for the outgoing one.

    They ask `current`: what __switch_to calls before it sets that is kept in the outgoing task's records, by slots on the
    incoming task's stack.

    Args:
        own: those of the incoming task.
        outgoing: those of the outgoing one.
    """

    def __init__(self, own: TrueReturns, outgoing: TrueReturns) -> None:
        self._own = own
        self._outgoing = outgoing

    def of(self, frames: Sequence[Frame], slot: int, word: int) -> TrueReturn | Reason | None:
        """As `TrueReturns.of`, from the outgoing task's records where they name the slot."""
        answer = self._outgoing.of(frames, slot, word)
        if not isinstance(answer, Reason):
            return answer

        # The entry that a tracer may just be writing is not among the incoming task's.
        own = self._own.of(frames, slot, word)
        if isinstance(own, TrueReturn) and isinstance(own.doubt, EntryHalfWritten):
            return own._replace(doubt=None)
        return own

"""What looks like saved registers on a stack? Everything found so is a guess."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result
from orcdbg.kernel.stacks import cpu_stacks, task_stack
from orcdbg.kernel.tasks import Task, started_cpus
from orcdbg.unwind.frame import FrameKind, StackTrace
from orcdbg.unwind.register_search import RegisterSearch, SavedSet
from orcdbg.unwind.saved_registers import implausible, saved_registers
from orcdbg.unwind.walker import State
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE

MAX_SETS = 10_000


@dataclass(frozen=True, slots=True)
class SavedSets(Result):
    """What looks like saved registers, in order of stack; `owners` are the tasks whose stacks these are, by address."""

    sets: Sequence[SavedSet]
    owners: dict[int, Task]


def from_saved(debugger: Debugger, words: str, task: Task) -> StackTrace:
    """The walk from the registers at an address.

    Raises:
        MemoryFault: they are not in the snapshot.
        UsageError: no CPU saved these.
    """
    address = debugger.address(words)
    data = debugger.session.memory.read(address, PT_REGS_SIZE)
    registers = saved_registers(data, PT_REGS, f"pt_regs {address:#x}")
    why_not = implausible(registers)
    if why_not is not None:
        raise UsageError(f"no pt_regs at {address:#x}", "`bt -e` lists what looks like one", why_not)
    state = State(registers["rip"].value, True, registers, FrameKind.INTERRUPT, address + PT_REGS["rip"])
    return debugger.session.unwinder.from_state(task, state, f"pt_regs {address:#x}")


def saved_sets(debugger: Debugger, tasks: Sequence[Task], everywhere: bool) -> SavedSets:
    """What looks like saved registers on the stacks of these tasks, or on all stacks."""
    session = debugger.session
    found: list[SavedSet] = []
    owners = {task.address: task for task in (session.tasks if everywhere else tasks)}
    for one in _all_sets(debugger, list(owners.values()), everywhere):
        found.append(one)
        if len(found) >= MAX_SETS:
            break
    return SavedSets(found, owners)


def _all_sets(debugger: Debugger, tasks: Sequence[Task], everywhere: bool) -> Iterator[SavedSet]:
    session = debugger.session
    search = RegisterSearch(session.kernel.terrain)
    if everywhere:
        for cpu in started_cpus(session.linux):
            for stack in cpu_stacks(session.linux, cpu):
                yield from search.on(stack)
    for task in tasks:
        own = task_stack(session.linux, task.address)
        stacks = [own] if everywhere and own else [] if everywhere else session.unwinder.stacks(task)
        for stack in stacks:
            yield from search.on(stack)

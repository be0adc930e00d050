"""ps: the tasks, and what they say of themselves."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.base.walks import Budget, Chain
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import NoneFits, Result
from orcdbg.commands.task_choice import named_tasks, of_each, with_threads
from orcdbg.commands.user_memory import user_memory
from orcdbg.kernel.tasks import MAX_TASKS, Task, started_cpus
from orcdbg.subsystems import machine, task_details
from orcdbg.subsystems.kernel_variables import per_cpu_variable
from orcdbg.subsystems.task_details import Limit, MemorySizes, Times
from orcdbg.typed.objects import Object

_COLUMNS = {"state": ("__state", "state"), "cpu": ("thread_info.cpu", "cpu"), "parent": ("real_parent",)}


@dataclass(frozen=True, slots=True)
class Tasks(Result):
    """A task list.

    Attributes:
        tasks: in the kernel's order.
        running: addresses of those on a CPU.
        problems: what could not be read.
        absent: names of `Task` fields that this kernel lacks.
        memory: sizes of user memory by the task's address; tasks without are not in it.
        total_memory: bytes that the machine has; None where that is not known.
        parents: pids of the parents by the parent's address.
        stacks: with `-s`, saved kernel stack pointers by the task's address.
        with_header: False with `-H`.
    """

    tasks: Sequence[Task]
    running: frozenset[int]
    problems: Sequence[str]
    absent: Sequence[str]
    memory: Mapping[int, MemorySizes] = field(default_factory=dict)
    total_memory: int | None = None
    parents: Mapping[int, int] = field(default_factory=dict)
    stacks: Mapping[int, int] | None = None
    with_header: bool = True


@dataclass(frozen=True, slots=True)
class TaskLines(Result):
    """With `-p` each task behind its ancestors, the first task first; with `-c` each before its children.

    With `-g` each process's leader before its other threads.
    """

    groups: Sequence[Sequence[Task]]
    are_children: bool
    problems: Sequence[str]
    are_threads: bool = False


@dataclass(frozen=True, slots=True)
class TaskTimes(Result):
    """With `-t`: each task with its times; `now` is the time since boot in nanoseconds, None where it is not known."""

    tasks: Sequence[tuple[Task, Times]]
    now: int | None
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class LastRuns(Result):
    """With `-l` and `-m`: tasks by when they last came on a CPU, the latest first.

    Attributes:
        tasks: each with the time in nanoseconds of the scheduler's clock.
        now: that clock of each CPU.
        as_elapsed: with `-m`, how long that is ago is shown.
    """

    tasks: Sequence[tuple[Task, int]]
    now: Mapping[int, int]
    as_elapsed: bool
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class TaskArguments(Result):
    """With `-a`: each task with the words that it was started with and its environment; `why` there are none."""

    tasks: Sequence[tuple[Task, Sequence[str], Sequence[str], str | None]]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class TaskLimits(Result):
    """With `-r`: the resource limits of each task's process; none of one whose process is gone."""

    tasks: Sequence[tuple[Task, Sequence[Limit]]]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class TaskSummary(Result):
    """With `-S`: how many tasks are in each state."""

    counts: Mapping[str, int]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "which", nargs="*", metavar="PID|TASK|COMMAND", help="only these tasks; a name may be a regular expression"
    )
    parser.add_argument("-k", "--kernel", action="store_true", help="only kernel threads")
    parser.add_argument("-u", "--user", action="store_true", help="only user tasks")
    parser.add_argument("-A", "--active", action="store_true", help="only tasks on a CPU")
    parser.add_argument("-G", "--leaders", action="store_true", help="only thread group leaders")
    parser.add_argument("-H", "--no-header", action="store_true", help="without the line of headings")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "-s", "--stacks", action="store_true", help="the saved kernel stack pointer instead of the task's address"
    )
    form.add_argument("-p", "--parents", action="store_true", help="each task's parents, up to the first task")
    form.add_argument("-c", "--children", action="store_true", help="each task's children")
    form.add_argument("-g", "--threads", action="store_true", help="each process's threads, its leader first")
    form.add_argument("-r", "--limits", action="store_true", help="the resource limits of each task's process")
    form.add_argument("-t", "--times", action="store_true", help="when each task began, and its time on CPUs")
    form.add_argument(
        "-l", "--last-run", action="store_true", help="when each task last came on a CPU, the latest first"
    )
    form.add_argument("-m", "--elapsed", action="store_true", help="how long ago each task last came on a CPU")
    form.add_argument(
        "-a", "--arguments", action="store_true", help="the words that each task was started with, and its environment"
    )
    form.add_argument("-S", "--summary", action="store_true", help="how many tasks are in each state")


@command(
    "ps",
    summary="list tasks",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("task",),
    examples=(
        ("ps -A", "the tasks on a CPU"),
        ("ps -u", "user tasks only"),
        ("ps -S", "how many are in each state"),
        ("ps -m", "who ran last, and how long ago"),
        ("ps -a 94", "the words that the task with pid 94 was started with"),
    ),
)
def ps(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the tasks that all the options and words fit, in the form that one of the options asks for."""
    session = debugger.session
    named = named_tasks(debugger, arguments.which)
    running = frozenset(session.unwinder.running)
    tests: list[tuple[bool, Callable[[Task], bool]]] = [
        (arguments.kernel, lambda task: task.is_kernel_thread),
        (arguments.user, lambda task: not task.is_kernel_thread),
        (arguments.active, lambda task: task.address in running),
        (arguments.leaders, lambda task: task.tgid in (None, task.pid)),
    ]
    wanted = [test for is_on, test in tests if is_on]
    tasks = [task for task in named if all(test(task) for test in wanted)]
    answer = for_tasks(debugger, tasks, arguments)
    return answer if tasks else NoneFits("tasks", answer, session.task_problems)


def for_tasks(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> Result:
    """What an option asks for of some tasks."""
    problems = debugger.session.task_problems
    if arguments.summary:
        return TaskSummary(dict(Counter(task.state or "??" for task in tasks).most_common()), problems)
    forms: list[tuple[bool, Callable[[Debugger, Sequence[Task]], Result]]] = [
        (arguments.parents, _with_parents),
        (arguments.children, _with_children),
        (arguments.threads, _with_threads),
        (arguments.limits, _with_limits),
        (arguments.times, _with_times),
        (arguments.last_run, _by_last_run),
        (arguments.elapsed, lambda debugger, tasks: replace(_by_last_run(debugger, tasks), as_elapsed=True)),
        (arguments.arguments, _with_arguments),
    ]
    for is_on, form in forms:
        if is_on:
            return form(debugger, tasks)
    return replace(_listed(debugger, tasks, arguments.stacks), with_header=not arguments.no_header)


def _listed(debugger: Debugger, tasks: Sequence[Task], with_stacks: bool) -> Tasks:
    session = debugger.session
    absent = [
        name for name, paths in _COLUMNS.items() if not any(session.types.has("task_struct", path) for path in paths)
    ]
    memory: Mapping[int, MemorySizes] = {}
    total = None
    try:
        memory = task_details.memory_sizes(session.program, tasks)
        total = machine.total_memory(session.program)
    except OrcdbgError:
        absent.append("memory")
    pids = {task.address: task.pid for task in session.tasks}
    parents = {task.parent: pids[task.parent] for task in tasks if task.parent in pids}
    budget = Budget(MAX_TASKS)
    stacks = _numbers(debugger, tasks, budget, task_details.kernel_stack_pointer) if with_stacks else None
    problems = [*session.task_problems, *budget.lines()]
    running = frozenset(session.unwinder.running)
    return Tasks(tasks, running, problems, absent, memory, total, parents, stacks)


def _numbers(
    debugger: Debugger, tasks: Sequence[Task], budget: Budget, ask: Callable[[Object], int | None]
) -> dict[int, int]:
    """What each task says, by its address; for those that cannot be read the budget has a problem."""
    read = of_each(debugger, tasks, budget, "numbers", ask)
    return {task.address: number for task, number in read if number is not None}


def _with_parents(debugger: Debugger, tasks: Sequence[Task]) -> TaskLines:
    known = {task.address: task for task in debugger.session.tasks}

    def parent_of(address: int) -> int:
        parent = known[address].parent
        # The first task, swapper/0, is its own parent; one that the task list lacks is no task.
        return parent if parent in known and parent != address else 0

    lines, problems = [], list(debugger.session.task_problems)
    for task in tasks:
        budget = Budget(MAX_TASKS)
        lines.append([known[address] for address in Chain(task.address, parent_of, budget, "a line of parents")][::-1])
        problems += budget.lines()
    return TaskLines(lines, False, problems)


def _with_children(debugger: Debugger, tasks: Sequence[Task]) -> TaskLines:
    budget = Budget(MAX_TASKS)
    known = {task.address: task for task in debugger.session.tasks}
    lines: list[Sequence[Task]] = []
    for task, found in of_each(debugger, tasks, budget, "children", lambda one: task_details.children(one, budget)):
        lines.append([task, *(known[one.address_ or 0] for one in found if one.address_ in known)])
    return TaskLines(lines, True, [*debugger.session.task_problems, *budget.lines()])


def _with_threads(debugger: Debugger, tasks: Sequence[Task]) -> TaskLines:
    return TaskLines(with_threads(debugger, tasks), False, debugger.session.task_problems, are_threads=True)


def _with_limits(debugger: Debugger, tasks: Sequence[Task]) -> TaskLimits:
    budget = Budget(MAX_TASKS)
    found = list(of_each(debugger, tasks, budget, "limits", task_details.limits))
    return TaskLimits(found, [*debugger.session.task_problems, *budget.lines()])


def _with_times(debugger: Debugger, tasks: Sequence[Task]) -> TaskTimes:
    budget = Budget(MAX_TASKS)
    found = list(of_each(debugger, tasks, budget, "times", task_details.times))
    problems = [*debugger.session.task_problems, *budget.lines()]
    now = None
    try:
        now = machine.uptime(debugger.session.program)
    except OrcdbgError as error:
        problems.append(f"the time since boot: {error}")
    return TaskTimes(found, now, problems)


def _by_last_run(debugger: Debugger, tasks: Sequence[Task]) -> LastRuns:
    session = debugger.session
    budget = Budget(MAX_TASKS)
    if not session.types.has("task_struct", "sched_info.last_arrival"):
        raise UsageError("this kernel does not keep when a task last ran", "it was built without CONFIG_SCHED_INFO")
    arrivals = _numbers(debugger, tasks, budget, task_details.last_arrival)
    clocks = {}
    for cpu in started_cpus(session.linux):
        try:
            clocks[cpu] = int(per_cpu_variable(session.program, "runqueues", "struct rq", cpu).member_("clock"))
        except OrcdbgError as error:
            budget.note_error(f"the clock of CPU {cpu}", 0, error)
    latest = sorted((task for task in tasks if task.address in arrivals), key=lambda task: -arrivals[task.address])
    problems = [*session.task_problems, *budget.lines()]
    return LastRuns([(task, arrivals[task.address]) for task in latest], clocks, False, problems)


def _with_arguments(debugger: Debugger, tasks: Sequence[Task]) -> TaskArguments:
    found: list[tuple[Task, Sequence[str], Sequence[str], str | None]] = []
    for task in tasks:
        try:
            memory = user_memory(debugger, task)
            space = debugger.session.object("task_struct", task.address).member_("mm")
            words = task_details.arguments(space, memory)
            found.append((task, words, task_details.environment(space, memory), None))
        except OrcdbgError as error:
            found.append((task, (), (), str(error)))
    return TaskArguments(found, debugger.session.task_problems)

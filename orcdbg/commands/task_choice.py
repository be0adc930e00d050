"""Which tasks do the words of a command mean?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.kernel.tasks import Task, read_task, started_cpus

if TYPE_CHECKING:
    from orcdbg.typed.objects import Object

T = TypeVar("T")
# Characters that mean something in a regular expression, and are seldom in a task's name.
_REGULAR = re.compile(r"[.*+?|^$\[\](){}\\]")
_MOST_PIDS = 8  # in a hint


def parse_number(text: str) -> int:
    """A decimal or 0x number, or 16 hexadecimal digits as addresses are printed."""
    try:
        return int(text, 16) if len(text) == 16 else int(text, 0)
    except ValueError as error:
        raise UsageError(f"not a number: {text}", word=text) from error


def pattern_of(word: str) -> re.Pattern[str] | None:
    """The regular expression that a word for tasks' names is, as in crash; None for a word that is just a name."""
    if not _REGULAR.search(word):
        return None
    try:
        return re.compile(word)
    except re.error:
        return None  # such as `(sd-pam`


def find_task(debugger: Debugger, word: str) -> Task:
    """The one task that a word names: a pid, or the address of a task_struct.

    Raises:
        NotFound: it is of no task.
        UsageError: it is a name that tasks have, of which there may be more tomorrow.
    """
    number = _number_in(word)
    if number is not None:
        return debugger.find_task(number)

    session = debugger.session
    called = [str(task.pid) for task in session.tasks if task.comm == word]
    if not called and session.task_problems:
        raise NotFound("task among those that can be read", word, session.task_problems[0])
    if not called:
        raise NotFound("task", word, "a pid or a task's address is needed; `ps` lists them")
    more = ", ..." if len(called) > _MOST_PIDS else ""
    pids = ", ".join(called[:_MOST_PIDS]) + more
    plural = "task" if len(called) == 1 else "tasks"
    raise UsageError(
        f"a pid or a task's address is needed, not a name: {word}", f"{plural} called {word}: {pids}", word=word
    )


def _number_in(word: str) -> int | None:
    try:
        return parse_number(word)
    except UsageError:
        return None


def named_tasks(debugger: Debugger, words: Sequence[str]) -> Sequence[Task]:
    """The tasks that any of the words means, all tasks without words.

    A word is a name, a regular expression of names, a pid, or a task_struct's address. A regular expression is a question, to
    which "none" is an answer.

    Raises:
        NotFound: a name, a pid or an address is of no task.
    """
    session = debugger.session
    if not words:
        return session.tasks

    found: set[int] = set()
    for word in words:
        number, pattern = _number_in(word), pattern_of(word)
        meant = {
            task.address
            for task in session.tasks
            if word == task.comm
            or number in (task.pid, task.address)
            or (pattern is not None and pattern.search(task.comm) is not None)
        }
        if not meant and pattern is None:
            if session.task_problems:
                raise NotFound("task among those that can be read", word, session.task_problems[0])
            raise NotFound("task", word, "`ps` lists them")
        found |= meant
    return [task for task in session.tasks if task.address in found]


def chosen_tasks(debugger: Debugger, words: Iterable[str]) -> list[Task]:
    """The tasks that words name, the selected one for none."""
    return [find_task(debugger, word) for word in words] or [debugger.task]


def with_threads(debugger: Debugger, chosen: Sequence[Task]) -> list[list[Task]]:
    """All threads of the processes of some tasks, each process once and its leader first; a task of no known process alone."""
    threads: dict[int, list[Task]] = {}
    for task in debugger.session.tasks:
        if task.tgid is not None:
            threads.setdefault(task.tgid, []).append(task)
    for process in threads.values():
        process.sort(key=lambda thread: thread.pid != thread.tgid)

    found: dict[int, list[Task]] = {}
    for task in chosen:
        # The idle tasks of all CPUs have process 0 in common.
        process = threads.get(task.tgid, [task]) if task.pid and task.tgid is not None else [task]
        found.setdefault(process[0].address, process)
    return list(found.values())


def of_each(
    debugger: Debugger, tasks: Iterable[Task], budget: Budget, what: str, read: Callable[[Object], T]
) -> Iterator[tuple[Task, T]]:
    """Each task with what `read` finds by its task_struct.

    Where that fails the task is left out, and a line of the budget says so: `what` names what was not to be read.
    """
    for task in tasks:
        try:
            yield task, read(debugger.session.object("task_struct", task.address))
        except OrcdbgError as error:
            budget.note_error(f"the {what} of task {task.pid}", task.address, error)


def cpu_list(text: str, limit: int) -> list[int]:
    """The CPUs in a list such as `0,2-4`; NotFound for one that cannot exist."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"not a list of CPUs: {text}", "for example 0,2-4")
        if int(last or first) >= limit:
            raise NotFound("CPU", last or first, f"this kernel has CPUs 0 to {limit - 1}")
        found += range(int(first), int(last or first) + 1)
    return found


def chosen_cpus(debugger: Debugger, text: str | None) -> list[int]:
    """The CPUs in a list such as `0,2-4`, all that the kernel runs on for None; NotFound for one that it does not run on."""
    linux = debugger.session.linux
    started = started_cpus(linux)
    if text is None:
        return started

    wanted = cpu_list(text, linux.cpu_limit())
    for cpu in wanted:
        if cpu not in started:
            known = ", ".join(map(str, started))
            raise NotFound("CPU in use", str(cpu), f"this kernel runs on CPUs {known}")
    return sorted(set(wanted))


def tasks_of_cpus(debugger: Debugger, wanted: Iterable[int] | None) -> list[Task]:
    """The tasks that these CPUs run, all CPUs for None, in order; NotFound where they run none."""
    running = debugger.session.unwinder.running
    by_cpu = {cpu: task for task, (cpu, _) in sorted(running.items(), key=lambda item: item[1][0])}
    chosen = by_cpu if wanted is None else {cpu: by_cpu[cpu] for cpu in wanted if cpu in by_cpu}
    if not chosen:
        raise NotFound(
            "task", "on the CPUs asked for", "`ps -A` lists the tasks that CPUs run, `regs -a` their registers"
        )
    return [read_task(debugger.session.linux, task) for task in chosen.values()]


def tasks_on(debugger: Debugger, cpus: str) -> list[Task]:
    """The tasks that the CPUs in a list such as `0,2-4` run."""
    return tasks_of_cpus(debugger, cpu_list(cpus, debugger.session.linux.cpu_limit()))

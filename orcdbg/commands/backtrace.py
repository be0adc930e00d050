"""bt and foreach: the stacks of tasks and CPUs."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from dataclasses import replace

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.commands import frames, log_check
from orcdbg.commands import register_search as hunting
from orcdbg.commands import stack_choice as choosing
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.lines import positions_in
from orcdbg.commands.registry import Command
from orcdbg.commands.results import Result, Stacks
from orcdbg.kernel.syscalls import syscall_name
from orcdbg.kernel.tasks import Task, read_task
from orcdbg.unwind.batch.equal_stacks import SharedFrames
from orcdbg.unwind.frame import End, FrameKind, RegisterValue, StackTrace
from orcdbg.unwind.walker import State


def parse_number(text: str) -> int:
    """A decimal or 0x number, or 16 hexadecimal digits as addresses are printed."""
    try:
        return int(text, 16) if len(text) == 16 else int(text, 0)
    except ValueError as error:
        raise UsageError(f"not a number: {text}") from error


def find_task(debugger: Debugger, word: str) -> Task:
    """The task that a word names: a pid, or the address of a task_struct."""
    return debugger.find_task(parse_number(word))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="PID|TASK", help="whose stacks; the selected task's without")
    parser.add_argument("-a", "--all-cpus", action="store_true", help="the task that each CPU runs")
    parser.add_argument("-c", "--cpu", help="the task that this CPU runs; also 0,2-4")
    parser.add_argument("--why", type=int, metavar="N", help="everything behind frame N of one stack")
    parser.add_argument("-l", "--lines", action="store_true", help="source lines and inlined functions, from DWARF")
    choosing.add_arguments(parser)
    parser.add_argument("-I", "--ip", help="walk from this ip instead (with -S, over the selected task's stacks)")
    parser.add_argument("-S", "--sp", help="the stack pointer for -I")
    parser.add_argument("-B", "--bp", help="the frame pointer for -I")
    hunting.arguments(parser)
    parser.add_argument("--check", action="store_true", help="compare with the trace that the kernel printed")


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


def _tasks_of_cpus(debugger: Debugger, wanted: Iterable[int] | None) -> list[Task]:
    running = debugger.session.unwinder.running
    by_cpu = {cpu: task for task, (cpu, _) in sorted(running.items(), key=lambda item: item[1][0])}
    chosen = by_cpu if wanted is None else {cpu: by_cpu[cpu] for cpu in wanted if cpu in by_cpu}
    if not chosen:
        raise NotFound("task", "on the CPUs asked for", "`ps -A` lists the tasks that CPUs run")
    return [read_task(debugger.session.linux, task) for task in chosen.values()]


def tasks_on(debugger: Debugger, cpus: str) -> list[Task]:
    """The tasks that the CPUs in a list such as `0,2-4` run."""
    return _tasks_of_cpus(debugger, cpu_list(cpus, debugger.session.linux.cpu_limit()))


def chosen_tasks(debugger: Debugger, arguments: argparse.Namespace) -> list[Task]:
    """The tasks that bt's words name."""
    if arguments.all_cpus:
        return _tasks_of_cpus(debugger, None)
    if arguments.cpu is not None:
        return tasks_on(debugger, arguments.cpu)
    return [find_task(debugger, word) for word in arguments.tasks] or [debugger.task]


def _call_number(trace: StackTrace) -> int | None:
    """What the task had in orig_rax when it came from user mode."""
    frames = trace.frames
    if isinstance(frames, SharedFrames):
        return frames.user_value("orig_rax")
    found = frames[-1].registers.get("orig_rax") if frames else None
    return None if found is None else found.value


def stacks_result(debugger: Debugger, traces: list[StackTrace]) -> Stacks:
    """The traces, with the names of the system calls their tasks are in."""
    name_of = functools.cache(functools.partial(syscall_name, debugger.session.linux))
    calls = {}
    for trace in traces:
        number = _call_number(trace) if trace.end is End.USER else None
        name = None if number is None else name_of(number)
        if name:
            calls[trace.task] = name
    return Stacks(traces, calls)


def _from_registers(debugger: Debugger, arguments: argparse.Namespace) -> Stacks:
    if arguments.ip is None or arguments.sp is None:
        raise UsageError("-I and -S go together", "for example: bt -I schedule+0x46 -S ffffc90000013e80")
    values = {"rip": arguments.ip, "rsp": arguments.sp} | ({"rbp": arguments.bp} if arguments.bp else {})
    registers = {name: RegisterValue(debugger.address(word), "given") for name, word in values.items()}
    state = State(registers["rip"].value, True, registers, FrameKind.INTERRUPT, None)
    task = find_task(debugger, arguments.tasks[0]) if arguments.tasks else debugger.task
    return stacks_result(debugger, [debugger.session.unwinder.from_state(task, state, "given")])


def _run(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    if arguments.ip is not None or arguments.sp is not None:
        return choosing.chosen(_from_registers(debugger, arguments), arguments)
    tasks = chosen_tasks(debugger, arguments)
    if arguments.check:
        return log_check.check(debugger, tasks)
    guesses = hunting.answer(debugger, tasks, arguments)
    if guesses is not None:
        return choosing.chosen(stacks_result(debugger, guesses), arguments) if isinstance(guesses, list) else guesses
    if arguments.why is not None:
        if len(tasks) != 1:
            raise UsageError("--why is about a frame of one stack", "for example: bt --why 6 94")
        debugger.select(tasks[0])
        return frames.detail(debugger, arguments.why)
    result = stacks_result(debugger, [debugger.trace(task) for task in tasks])
    # Where lists of code break off, addresses in that code are text to nobody, and frames are missing.
    result = replace(result, problems=debugger.session.names.problems)
    if arguments.lines:
        positions, problems = positions_in(debugger.session, result.stacks)
        result = replace(result, positions=positions, problems=[*result.problems, *problems])
    return choosing.chosen(result, arguments)


def _foreach_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="+", metavar="WORD", help="user, kernel, a state (RU IN UN ...), a name or a pid; last `bt`"
    )
    choosing.add_arguments(parser)


def _foreach(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    *filters, command = arguments.what
    if command != "bt":
        raise UsageError(f"foreach runs bt only, not {command}", "for example: foreach UN bt")
    tasks = debugger.session.tasks
    for word in filters:
        tasks = [task for task in tasks if _matches(task, word)]
    if not tasks:
        raise NotFound("task", " ".join(filters), "`ps` lists them")
    traces = debugger.session.unwinder.traces(tasks)
    problems = [*debugger.session.task_problems, *debugger.session.names.problems]
    result = stacks_result(debugger, traces)
    return choosing.chosen(replace(result, problems=problems), arguments)


def _matches(task: Task, word: str) -> bool:
    if word in ("user", "kernel"):
        return task.is_kernel_thread == (word == "kernel")
    return word in (task.state, task.comm, str(task.pid))


COMMANDS = (
    Command(
        "bt",
        "show the stack of a task, and for every frame where its CFA came from",
        "stacks",
        _run,
        _arguments,
        examples=(
            ("bt", "the selected task (at first the one that panicked)"),
            ("bt 94 95", "two tasks by pid"),
            ("bt -a", "the task that each CPU runs"),
            ("bt -l", "with source lines and inlined functions, where the vmlinux has DWARF"),
            ("bt --check", "our frames beside the panic's own trace"),
            ("bt -e", "what looks like saved registers on the task's stacks"),
            ("bt -a --crash", "in the lines that crash prints"),
            ("bt --why 6", "the ORC row, register, patch and stack slot behind frame 6"),
        ),
        operands=("task",),
    ),
    Command(
        "foreach",
        "run bt for many tasks",
        "stacks",
        _foreach,
        _foreach_arguments,
        examples=(
            ("foreach bt", "every task"),
            ("foreach UN bt", "tasks in uninterruptible sleep"),
            ("foreach bt --group", "equal stacks once, those of most tasks first"),
            ("foreach bt --has do_nanosleep", "the tasks that sleep in a function"),
        ),
    ),
)

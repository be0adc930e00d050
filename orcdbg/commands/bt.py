"""bt: the stacks of tasks and of CPUs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.stacks import Stacks, add_arguments, in_chosen_form, stacks_result
from orcdbg.commands.task_choice import find_task, tasks_of_cpus, tasks_on, with_threads
from orcdbg.kernel.tasks import Task
from orcdbg.unwind.frame import FrameKind, RegisterValue
from orcdbg.unwind.walker import State

if TYPE_CHECKING:
    from orcdbg.commands.stack_words import NameWord

_ALL = ("a", "all")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="PID|TASK", help="whose stacks (default: the selected task's)")
    parser.add_argument("-a", "--all-cpus", action="store_true", help="the task that each CPU runs")
    parser.add_argument("-c", "--cpu", help="the task that this CPU runs; also 0,2-4, or all")
    parser.add_argument("-p", "--panic", action="store_true", help="the task that panicked")
    parser.add_argument("-g", "--threads", action="store_true", help="all threads of the process, the leader first")
    parser.add_argument("-n", "--without", choices=("idle",), help="leave out CPUs that run their idle task")
    parser.add_argument("--why", type=int, metavar="N", help="explain frame N: its row, rule, registers and patch")
    parser.add_argument("--locals", action="store_true", help="each frame's variables and arguments, from DWARF")
    parser.add_argument("-l", "--lines", action="store_true", help="source lines and inlined functions, from DWARF")
    parser.add_argument("-f", "--full", action="store_true", help="the words of the stack in each frame")
    parser.add_argument(
        "-F", "--full-names", action="store_true", help="the same, a word a line, with the symbol that it points into"
    )
    add_arguments(parser)
    parser.add_argument("-I", "--ip", help="start from this ip (needs -S; walks the selected task's stacks)")
    parser.add_argument("-S", "--sp", help="the stack pointer for -I")
    parser.add_argument("-B", "--bp", help="the frame pointer for -I")
    parser.add_argument("--regs", metavar="ADDR", help="start from the pt_regs at this address")
    parser.add_argument(
        "-e", "--saved", action="store_true", help="anything on its stacks that looks like saved registers"
    )
    parser.add_argument("-E", "--saved-all", action="store_true", help="the same, on the stacks of all CPUs and tasks")
    parser.add_argument("-t", "--text", action="store_true", help="every text address from the stack pointer up")
    parser.add_argument("-r", "--raw", action="store_true", help="every word of the task's whole stack, used or not")
    parser.add_argument("-T", "--text-all", action="store_true", help="every text address on its stacks")
    parser.add_argument("--check", action="store_true", help="compare with the trace that the kernel printed")


def _chosen_tasks(debugger: Debugger, arguments: argparse.Namespace) -> list[Task]:
    """The tasks that the words name."""
    if arguments.all_cpus or arguments.cpu in _ALL:
        return tasks_of_cpus(debugger, None)
    if arguments.cpu is not None:
        return tasks_on(debugger, arguments.cpu)
    if arguments.panic:
        if debugger.panic_cpu is None:
            raise UsageError("no CPU panicked in this snapshot", "bt -a shows what each CPU ran")
        return tasks_on(debugger, str(debugger.panic_cpu))
    chosen = [find_task(debugger, word) for word in arguments.tasks] or [debugger.task]
    if not arguments.threads:
        return chosen
    return [thread for task in chosen for process in with_threads(debugger, [task]) for thread in process]


def _without_idle(debugger: Debugger, tasks: Sequence[Task]) -> tuple[list[Task], list[int]]:
    """The tasks that are no CPU's idle task, and the CPUs that run theirs."""
    running = debugger.session.unwinder.running
    idle = [task for task in tasks if not task.pid]
    cpus = [running[task.address][0] if task.address in running else task.cpu for task in idle]
    return [task for task in tasks if task.pid], sorted(cpu for cpu in cpus if cpu is not None)


def _from_registers(debugger: Debugger, arguments: argparse.Namespace) -> Stacks:
    """The walk from registers that the user gives."""
    if arguments.ip is None or arguments.sp is None:
        raise UsageError("-I and -S go together", "for example: bt -I schedule+0x46 -S ffffc90000013e80")
    values = {"rip": arguments.ip, "rsp": arguments.sp} | ({"rbp": arguments.bp} if arguments.bp else {})
    registers = {name: RegisterValue(debugger.address(word), "given") for name, word in values.items()}
    state = State(registers["rip"].value, True, registers, FrameKind.INTERRUPT, None)
    task = find_task(debugger, arguments.tasks[0]) if arguments.tasks else debugger.task
    return stacks_result(debugger, [debugger.session.unwinder.from_state(task, state, "given")])


@command(
    "bt",
    summary="show the stack of a task and how each frame's CFA was found",
    group="stacks",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("where", "backtrace"),
    operands=("task",),
    examples=(
        ("bt", "the selected task (at first the one that panicked)"),
        ("bt 94 95", "two tasks by pid"),
        ("bt -a", "the task that each CPU runs"),
        ("bt -a -n idle", "the same without the idle ones"),
        ("bt -g 94", "all threads of a process"),
        ("bt -F", "with the words of the stack, and what they point into"),
        ("bt -l", "with source lines and inlined functions, where the vmlinux has DWARF"),
        ("bt --locals", "with variables and arguments, where the vmlinux has DWARF"),
        ("bt --check", "our frames beside the panic's own trace"),
        ("bt -e", "what looks like saved registers on the task's stacks"),
        ("bt -a --crash", "in the lines that crash prints"),
        ("bt -a --folded", "for flamegraph.pl; --speedscope for speedscope.app"),
        ("bt --why 6", "the ORC row, register, patch and stack slot behind frame 6"),
    ),
)
def bt(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the stacks that the words ask for, or with what else they ask about the same tasks."""
    if arguments.ip is not None or arguments.sp is not None:
        return in_chosen_form(debugger, _from_registers(debugger, arguments), arguments)

    tasks = _chosen_tasks(debugger, arguments)
    idle_cpus: list[int] = []
    if arguments.without is not None:
        tasks, idle_cpus = _without_idle(debugger, tasks)
        if not tasks:
            return Stacks([], idle_cpus=idle_cpus)
    for is_asked, answer in _OTHER_QUESTIONS:
        if is_asked(arguments):
            return answer(debugger, tasks, arguments)

    result = stacks_result(debugger, list(map(debugger.trace, tasks)))
    # Where lists of code break off, addresses in that code are text to nobody, and frames are missing.
    result = replace(result, problems=debugger.session.names.problems, idle_cpus=idle_cpus)
    if arguments.reference is not None:
        from orcdbg.commands.stack_words import with_reference

        result = with_reference(debugger, result, arguments.reference)
    if arguments.full or arguments.full_names:
        from orcdbg.commands.stack_words import frame_words

        words, unread = frame_words(debugger.session.memory, result.stacks, _word_names(debugger, arguments))
        result = replace(result, words=words, problems=[*result.problems, *unread])
    if arguments.lines:
        from orcdbg.commands.lines import positions_in

        positions, problems = positions_in(debugger.session, result.stacks)
        result = replace(result, positions=positions, problems=[*result.problems, *problems])
    if arguments.locals:
        result = _with_variables(debugger, result, arguments)
    return in_chosen_form(debugger, result, arguments)


def _with_variables(debugger: Debugger, result: Stacks, arguments: argparse.Namespace) -> Stacks:
    """The stacks with the variables of their frames."""
    from orcdbg.commands.local_variables import variables_in

    if arguments.group or arguments.crash or arguments.folded or arguments.speedscope:
        raise UsageError(
            "--locals is neither for --group nor for --crash, --folded or --speedscope", "for example: bt --locals 94"
        )
    found = {(trace.task, each.frame.index): each for trace in result.stacks for each in variables_in(debugger, trace)}
    return replace(result, variables=found)


def _word_names(debugger: Debugger, arguments: argparse.Namespace) -> NameWord | None:
    if not arguments.full_names:
        return None
    from orcdbg.commands.rd import name_of_object

    return partial(name_of_object, debugger)


# Each of these imports what it needs when it is asked: a plain `bt` needs none of it.


def _check(debugger: Debugger, tasks: list[Task], arguments: argparse.Namespace) -> Result:
    from orcdbg.commands.log_check import check

    return check(debugger, tasks)


def _saved(debugger: Debugger, tasks: list[Task], arguments: argparse.Namespace) -> Result:
    from orcdbg.commands.saved_registers import saved_sets

    return saved_sets(debugger, tasks, arguments.saved_all)


def _text(debugger: Debugger, tasks: list[Task], arguments: argparse.Namespace) -> Result:
    traces = [debugger.session.unwinder.text_on_stack(task, arguments.text_all) for task in tasks]
    return in_chosen_form(debugger, stacks_result(debugger, traces), arguments)


def _raw(debugger: Debugger, tasks: list[Task], arguments: argparse.Namespace) -> Result:
    from orcdbg.commands.raw_stacks import raw_stacks

    return raw_stacks(debugger, tasks)


def _from_saved(debugger: Debugger, tasks: list[Task], arguments: argparse.Namespace) -> Result:
    from orcdbg.commands.saved_registers import from_saved

    trace = from_saved(debugger, arguments.regs, tasks[0])
    return in_chosen_form(debugger, stacks_result(debugger, [trace]), arguments)


def _why(debugger: Debugger, tasks: list[Task], arguments: argparse.Namespace) -> Result:
    from orcdbg.commands.frame import detail

    if len(tasks) != 1:
        raise UsageError("--why is about a frame of one stack", "for example: bt --why 6 94")
    debugger.select(tasks[0])
    return detail(debugger, arguments.why)


Question = Callable[[argparse.Namespace], bool]
Answer = Callable[[Debugger, list[Task], argparse.Namespace], Result]
# The first whose option is given is answered; `--check` before all that is a guess.
_OTHER_QUESTIONS: tuple[tuple[Question, Answer], ...] = (
    (lambda given: given.check, _check),
    (lambda given: given.saved or given.saved_all, _saved),
    (lambda given: given.text or given.text_all, _text),
    (lambda given: given.raw, _raw),
    (lambda given: given.regs is not None, _from_saved),
    (lambda given: given.why is not None, _why),
)

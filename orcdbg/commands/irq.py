"""irq: the interrupts, their handlers and counts; softirqs; the interrupt descriptor table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import NoneFits, Result
from orcdbg.commands.task_choice import chosen_cpus, parse_number
from orcdbg.subsystems.interrupts import MAX_INTERRUPTS, Gate, Interrupt, Softirq, gates, interrupts, softirqs


@dataclass(frozen=True, slots=True)
class Interrupts(Result):
    """Interrupts; `with_counts` and `with_affinity` say what was asked for besides, `cpus` whose counts."""

    interrupts: Sequence[Interrupt]
    symbols: Mapping[int, str]
    cpus: Sequence[int]
    with_counts: bool
    with_affinity: bool
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Softirqs(Result):
    """The kinds of softirqs."""

    softirqs: Sequence[Softirq]
    symbols: Mapping[int, str]
    cpus: Sequence[int]


@dataclass(frozen=True, slots=True)
class Gates(Result):
    """The interrupt descriptor table."""

    gates: Sequence[Gate]
    symbols: Mapping[int, str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", nargs="*", metavar="NUMBER", help="only these interrupts")
    parser.add_argument("-u", "--used", action="store_true", help="only interrupts that have a handler")
    parser.add_argument("-s", "--counts", action="store_true", help="how often each came, by CPU")
    parser.add_argument("-c", "--cpu", metavar="CPUS", help="with -s, the counts of these CPUs, such as 0,2-4")
    parser.add_argument("-a", "--affinity", action="store_true", help="the CPUs that each may go to")
    parser.add_argument(
        "-b", "--softirqs", action="store_true", help="the softirqs, which are the kernel's bottom halves"
    )
    parser.add_argument("-d", "--idt", action="store_true", help="the interrupt descriptor table")


def _wanted(found: Sequence[Interrupt], arguments: argparse.Namespace, problems: Sequence[str]) -> list[Interrupt]:
    """Those with the numbers that were asked for; for counts those alone that somebody handles.

    Raises:
        NotFound: there is no interrupt with one of the numbers, or none among those that can be read.
    """
    numbers = {parse_number(word) for word in arguments.which}
    missing = numbers - {one.number for one in found}
    if missing:
        what = "interrupt among those that can be read" if problems else "interrupt"
        raise NotFound(what, str(min(missing)), problems[0] if problems else "`irq` lists them")
    is_handled_asked = arguments.used or arguments.counts
    return [one for one in found if (not numbers or one.number in numbers) and (one.actions or not is_handled_asked)]


@command(
    "irq",
    summary="show interrupts, their handlers and counts",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(
        ("irq -u", "the interrupts that somebody handles"),
        ("irq -s", "how often each came on each CPU"),
        ("irq -d", "the interrupt descriptor table"),
    ),
)
def irq(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with interrupts, softirqs or gates."""
    program = debugger.session.program
    if arguments.idt:
        table = gates(program)
        return Gates(table, names_of(debugger, (gate.handler for gate in table)))

    cpus = chosen_cpus(debugger, arguments.cpu)

    if arguments.softirqs:
        kinds = softirqs(program)
        return Softirqs(kinds, names_of(debugger, (kind.action for kind in kinds)), cpus)

    budget = Budget(MAX_INTERRUPTS)
    found = _wanted(list(interrupts(program, budget)), arguments, budget.lines())
    functions = [
        function for one in found for action in one.actions for function in (action.handler, action.thread_function)
    ]
    names = names_of(debugger, functions)
    answer = Interrupts(found, names, cpus, arguments.counts, arguments.affinity, budget.lines())
    if found:
        return answer
    is_handled_asked = arguments.used or arguments.counts
    return NoneFits("interrupts with a handler" if is_handled_asked else "interrupts", answer, answer.problems)

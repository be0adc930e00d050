"""locks: who has a lock, and who waits for it in which order."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import is_in_symbol, names_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.waits import named_tasks
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.waits.graph import WaitReader
from orcdbg.subsystems.waits.locks import Lock
from orcdbg.subsystems.waits.model import Graph, WaitKind
from orcdbg.target.session import Session
from orcdbg.target.wait_graph import wait_graph, wait_reader
from orcdbg.typed.objects import Object
from orcdbg.typed.types import CompoundType

# The kinds by the names of their types, as people say them after -t.
KINDS: Mapping[str, WaitKind] = {
    "mutex": WaitKind.MUTEX,
    "ww_mutex": WaitKind.MUTEX,
    "rw_semaphore": WaitKind.RWSEM,
    "rwsem": WaitKind.RWSEM,
    "semaphore": WaitKind.SEMAPHORE,
    "rt_mutex": WaitKind.RT_MUTEX,
    "rt_mutex_base": WaitKind.RT_MUTEX,
    "completion": WaitKind.COMPLETION,
}


@dataclass(frozen=True, slots=True)
class LockStates(Result):
    """Locks with their holders and waiters.

    Attributes:
        locks: what was asked for.
        tasks: those that are named here, by address.
        symbols: names of locks.
        task: address of the task whose locks these are; None where something else was asked.
        is_whole: whether these are all locks that blocked tasks wait for.
        unexplained: how many blocked tasks wait for something that was not to be found.
        problems: what could not be read.
    """

    locks: Sequence[Lock]
    tasks: Mapping[int, Task]
    symbols: Mapping[int, str]
    task: int | None
    is_whole: bool
    unexplained: int
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        metavar="PID|TASK|ADDR|SYMBOL|STRUCT.MEMBER",
        help="a lock, the member that is one, or a task whose locks are shown (default: all that blocked tasks wait for)",
    )
    parser.add_argument("where", nargs="?", metavar="ADDR|SYMBOL", help="the structure that has the member")
    parser.add_argument(
        "-t",
        "--type",
        choices=("mutex", "rwsem", "semaphore", "rt_mutex", "completion"),
        help="what is at the address, where its type is not known",
    )


@command(
    "locks",
    summary="show who has a lock and who waits for it",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    examples=(
        ("locks", "all locks that blocked tasks wait for"),
        ("locks 94", "those that the task with pid 94 waits for, or keeps others waiting for"),
        ("locks rtnl_mutex", "by name, where the type of the variable is known"),
        ("locks -t rwsem ffff888005051f40", "by address and type"),
        ("locks inode.i_rwsem ffff888005051f40", "by a member of a structure"),
    ),
)
def locks(debugger: Debugger, arguments: argparse.Namespace) -> LockStates:
    """Answers with locks' states."""
    session = debugger.session
    task = _task(debugger, arguments)
    if arguments.what is not None and task is None:
        reader = wait_reader(session)
        kind, address = _place(debugger, arguments)
        return _answer(debugger, reader, [(kind, address)])

    graph = wait_graph(session)
    edges = (
        graph.edges if task is None else [edge for edge in graph.edges if task.address in (edge.waiter, edge.holder)]
    )
    places = {(edge.kind, edge.object): None for edge in edges if edge.kind.is_lock and edge.object is not None}
    found = [(kind, address) for kind, address in places if address is not None]
    return _answer(debugger, wait_reader(session), found, graph, task)


def _task(debugger: Debugger, arguments: argparse.Namespace) -> Task | None:
    """The task that the only word names: a number that no address of the kernel is, or a task_struct."""
    if arguments.what is None or arguments.where is not None or arguments.type is not None:
        return None
    word = str(arguments.what)
    if word.isdigit() and len(word) < 16:
        return debugger.find_task(int(word))
    try:
        return debugger.find_task(int(word, 16))
    except (ValueError, NotFound):
        return None


def _answer(
    debugger: Debugger,
    reader: WaitReader,
    places: Sequence[tuple[WaitKind, int]],
    graph: Graph | None = None,
    task: Task | None = None,
) -> LockStates:
    found = []
    for kind, address in places:
        try:
            found.append(reader.lock(kind, address))
        except OrcdbgError as error:
            if graph is None:
                raise
            reader.budget.note_error(f"the {kind.value}", address, error)
    named = {holder.task for lock in found for holder in lock.holders}
    named |= {waiter.task for lock in found for waiter in lock.waiters}
    tasks = {each.address: each for each in debugger.session.tasks if each.address in named}
    if graph is not None:
        tasks = {**named_tasks(debugger, graph), **tasks}
    return LockStates(
        found,
        tasks,
        names_of(debugger, (lock.address for lock in found)),
        None if task is None else task.address,
        graph is not None and task is None,
        0 if graph is None else len(graph.unexplained),
        [*(() if graph is None else graph.problems), *reader.budget.lines()],
    )


def _place(debugger: Debugger, arguments: argparse.Namespace) -> tuple[WaitKind, int]:
    """Kind and address of the lock that the words name."""
    session, what = debugger.session, str(arguments.what)
    if arguments.where is not None:
        type_, _, path = what.partition(".")
        member = session.object(type_, debugger.address(arguments.where)).member_(path)
        return _kind_of(member, what, arguments.type)
    address = debugger.address(what)
    if arguments.type is not None:
        return KINDS[arguments.type], address
    variable = _variable(session, address)
    if variable is not None:
        return _kind_of(variable, what, None)
    for edge in wait_graph(session).edges:
        if edge.object == address and (edge.kind.is_lock or edge.kind is WaitKind.COMPLETION):
            return edge.kind, address
    raise UsageError(f"the type of what is at {what} is not known", f"name it: locks -t mutex {what}")


def _variable(session: Session, address: int) -> Object | None:
    """The variable that begins at an address, where it has a name and its type is known."""
    location = session.names.at(address) if is_in_symbol(session, address) else None
    if location is None or location.start != address:
        return None
    try:
        found = session.variable(location.symbol, module=location.module)
    except OrcdbgError:
        return None
    return found if found.address_ == address else None


def _kind_of(thing: Object, word: str, named: str | None) -> tuple[WaitKind, int]:
    """The kind of a lock by its type; a pointer to one is followed."""
    plain = thing.plain_type_
    if not isinstance(plain, CompoundType):
        thing = thing.deref_()
        plain = thing.plain_type_
    kind = KINDS[named] if named else KINDS.get(plain.name or "")
    if kind is None or thing.address_ is None:
        raise UsageError(f"{word} is a {plain.name or 'value'}, which is no lock", "for example a struct mutex")
    return kind, thing.address_

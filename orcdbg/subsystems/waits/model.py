"""What is a wait graph made of: tasks that wait, what they wait for, who has it, and how sure that is?"""

from __future__ import annotations

import enum
import functools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.certainty import Certainty, weakest

# Cycles that are named; each costs a search through the tasks of its knot, which a false snapshot makes as large as it likes.
MAX_CYCLES = 64


class WaitKind(enum.Enum):
    """What is waited for; the values are the JSON contract's words."""

    MUTEX = "mutex"
    RWSEM = "rwsem"
    SEMAPHORE = "semaphore"
    RT_MUTEX = "rt-mutex"
    COMPLETION = "completion"
    KTHREAD_STOP = "kthread-stop"
    VFORK = "vfork"
    FLUSH_WORK = "flush-work"
    RCU = "rcu"
    WAIT_QUEUE = "wait-queue"
    PERCPU_RWSEM = "percpu-rwsem"
    FOLIO_LOCK = "folio-lock"
    WRITEBACK = "writeback"
    FOLIO_BIT = "folio-bit"
    BIT = "bit"
    VARIABLE = "variable"

    @property
    def is_lock(self) -> bool:
        """Whether somebody holds it, so that the kernel's own structure may say who."""
        return self in _LOCKS


_LOCKS = (WaitKind.MUTEX, WaitKind.RWSEM, WaitKind.SEMAPHORE, WaitKind.RT_MUTEX)


class Mode(enum.Enum):
    """How a task wants a lock that readers share; the values are the JSON contract's words."""

    READ = "read"
    WRITE = "write"


class EvidenceKind(enum.Enum):
    """What was seen, with what `address` and `value` of the evidence are; the values are the JSON contract's words."""

    # Of what is waited for.
    LISTED = "listed"  # the waiter's structure `address` is on the list of `value`, linked both ways
    LIST_BROKEN = "list-broken"  # that list, which `value` is on, breaks
    NO_HEAD = "no-head"  # no one word of the waiter's stack is an address of what has its list
    NAMED_BY_TASK = "named-by-task"  # a member of the waiter's task_struct, at `address`, names `value`
    DOUBTFUL_STACK = "doubtful-stack"  # a frame between the function that waits and the sleep is in doubt
    NO_WAITERS_FLAG = "no-waiters-flag"  # the lock's word at `address` does not say that there are waiters
    # Of who has it.
    OWNER = "owner"  # the owner's word at `address` is `value`, which names the holder
    OWNER_UNKNOWN = "owner-unknown"  # that word names something that is no task
    NO_OWNER = "no-owner"  # that word names nobody
    HANDED_OVER = "handed-over"  # that word gives the lock to the waiter itself, which has not run since
    LAST_READER = "last-reader"  # that word names the reader that came last, which may have left
    LAST_HOLDER = "last-holder"  # that word names the task that took it last, which may have given it back
    NOT_LOCKED = "not-locked"  # that word names a task, but the count says that nobody writes
    HELD_LOCK = "held-lock"  # lockdep's record at `address`, of the holder, is of this lock
    NOT_RECORDED = "not-recorded"  # the kernel keeps no record of who is to end this wait
    VFORK_DONE = "vfork-done"  # the holder's word at `address` names the completion, which it completes when it ends
    BARRIER = "barrier"  # the waiter's barrier `address` is next for the worker `value`
    PENDING = "pending"  # the waiter's barrier `address` is behind work that no worker has begun, in pool `value`


@dataclass(frozen=True, slots=True)
class WaitEvidence:
    """What was seen, where, and what was there; `structure` is the type at `address`, for whoever wants to look."""

    kind: EvidenceKind
    address: int
    value: int | None = None
    structure: str | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """A task that waits, and one that it waits for.

    Attributes:
        waiter: address of its task_struct.
        object: address of what it waits for: the lock, completion, queue, folio, work; None where it was not to be found.
        kind: what that is.
        holder: address of the task that has it, or that is to end the wait; None where nobody does or nothing tells who.
        certainty: of all of it: the less sure of `object_certainty` and how sure the holder is.
        object_certainty: that the waiter waits for this object.
        since: when the waiter went to sleep, in nanoseconds by the clock of its run queue; None where that is not known.
        age: how long ago that was, by the latest clock of all run queues.
        mode: of a lock that readers share.
        bit: number of the bit that it waits for, of those kinds that are a bit.
        function: the one that waits, as the stack names it: the caller of a lock's own functions.
        evidence: what was seen of the object, then what of the holder.
    """

    waiter: int
    object: int | None
    kind: WaitKind
    holder: int | None
    certainty: Certainty
    object_certainty: Certainty
    since: int | None
    age: int | None
    mode: Mode | None
    bit: int | None
    function: str | None
    evidence: tuple[WaitEvidence, ...]


@dataclass(frozen=True, slots=True)
class Cycle:
    """Tasks that wait for each other in a ring, each edge's holder the next one's waiter: a deadlock as sure as `certainty`."""

    edges: tuple[Edge, ...]

    @property
    def certainty(self) -> Certainty:
        """As sure as the least sure of its edges."""
        return weakest(edge.certainty for edge in self.edges)

    @property
    def tasks(self) -> tuple[int, ...]:
        """Addresses of its tasks, in the order in which they wait."""
        return tuple(edge.waiter for edge in self.edges)


@dataclass(frozen=True)
class Graph:
    """Who waits for whom.

    Attributes:
        edges: one for each waiter and holder, of a waiter whose holder is not known one alone; by the tasks' order.
        unexplained: addresses of the blocked tasks of which nothing says what they wait for.
        problems: what could not be read.
    """

    edges: tuple[Edge, ...]
    unexplained: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()

    @functools.cached_property
    def by_waiter(self) -> Mapping[int, Sequence[Edge]]:
        """The edges of each task that waits."""
        found: dict[int, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.waiter, []).append(edge)
        return found

    @functools.cached_property
    def by_holder(self) -> Mapping[int, Sequence[Edge]]:
        """The edges to each task that is waited for."""
        found: dict[int, list[Edge]] = {}
        for edge in self.edges:
            if edge.holder is not None:
                found.setdefault(edge.holder, []).append(edge)
        return found

    def chain(self, waiter: int) -> list[Edge]:
        """From a task to the last one that it waits for in the end: of each the first edge, up to a task that has been met."""
        found: list[Edge] = []
        met: set[int] = set()
        task: int | None = waiter
        while task is not None and task not in met and task in self.by_waiter:
            met.add(task)
            edge = self.by_waiter[task][0]
            found.append(edge)
            task = edge.holder
        return found

    @functools.cached_property
    def cycles(self) -> list[Cycle]:
        """The deadlocks, `MAX_CYCLES` of them at most; each edge that is on a cycle is on one of these, as far as they go."""
        found: list[Cycle] = []
        covered: set[tuple[int, int]] = set()
        knots = self._knots
        for edge in self.edges:
            pair = edge.waiter, edge.holder or 0
            if edge.holder is None or pair in covered or knots.get(edge.waiter) != knots.get(edge.holder, -1):
                continue
            cycle = self._through(edge, knots)
            covered.update((each.waiter, each.holder or 0) for each in cycle.edges)
            found.append(cycle)
            if len(found) == MAX_CYCLES:
                break
        return found

    def _through(self, first: Edge, knots: Mapping[int, int]) -> Cycle:
        """The shortest cycle that an edge is on; both of its ends are in one knot, so there is one."""
        came_by: dict[int, Edge] = {}
        pending = deque([first.holder or 0])
        while pending and first.waiter not in came_by and first.holder != first.waiter:
            task = pending.popleft()
            for edge in self.by_waiter.get(task, ()):
                if edge.holder is None or edge.holder in came_by or knots.get(edge.holder) != knots[first.waiter]:
                    continue
                came_by[edge.holder] = edge
                pending.append(edge.holder)

        edges: list[Edge] = []
        task = first.waiter
        while task != first.holder:
            edges.append(came_by[task])
            task = came_by[task].waiter
        return Cycle((first, *reversed(edges)))

    @functools.cached_property
    def _knots(self) -> Mapping[int, int]:
        """The strongly connected part that each task is in, by number (Tarjan's, without recursion).

        A task that does not come back to itself is a part of its own, which no edge but one to itself stays in.
        """
        numbers: dict[int, int] = {}
        lowest: dict[int, int] = {}
        knots: dict[int, int] = {}
        open_tasks: list[int] = []

        for root in self.by_waiter:
            if root in numbers:
                continue
            path = [(root, iter(self.by_waiter[root]))]
            numbers[root] = lowest[root] = len(numbers)
            open_tasks.append(root)

            while path:
                task, edges = path[-1]
                edge = next(edges, None)
                if edge is None:
                    path.pop()
                    if path:
                        parent = path[-1][0]
                        lowest[parent] = min(lowest[parent], lowest[task])
                    if lowest[task] == numbers[task]:
                        _close(task, open_tasks, knots)
                    continue
                holder = edge.holder
                if holder is None:
                    continue
                if holder not in numbers:
                    numbers[holder] = lowest[holder] = len(numbers)
                    open_tasks.append(holder)
                    path.append((holder, iter(self.by_waiter.get(holder, ()))))
                elif holder not in knots:
                    lowest[task] = min(lowest[task], numbers[holder])
        return knots


def _close(root: int, open_tasks: list[int], knots: dict[int, int]) -> None:
    """Puts a part that is complete, of which `root` was met first, into the knots."""
    while True:
        task = open_tasks.pop()
        knots[task] = root
        if task == root:
            return

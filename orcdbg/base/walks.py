"""How is a list, a tree or a table in a snapshot walked, whose links and counts may all be lies?

Memory of a stopped machine is hostile: one changed word makes a circle of a list, a number of four digits a table of
gigabytes, and whoever makes a snapshot can fill it with millions of false nodes. So every walk over memory meets each
node once and draws on a `Budget`, which all walks that serve one question share: 64 chains of a hash table with a bound
each are 64 times the bound. A walk that is cut short keeps what it has, and leaves a `WalkProblem` that the answer says.
`python -m tests.bounded_walks` finds loops over memory that go without.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass

from orcdbg.base.errors import Corrupt, MemoryFault
from orcdbg.base.reading import AddressSpace

# A question names so many of its problems; a snapshot may have one in each of a hundred thousand nodes.
MAX_PROBLEMS = 10
# Bytes of tables for one question, where it says nothing else. No table of a kernel that is read in one piece is larger.
MAX_BYTES = 64 << 20


class WalkOutcome(enum.Enum):
    """How a walk ended."""

    ENDED = "ended"
    CIRCLE = "circle"
    SPENT = "spent"
    UNREADABLE = "unreadable"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class WalkProblem:
    """Why a walk is not whole.

    `what` was walked, `end` says how it ended at `address`; `limit` is the budget's where that was spent, `why` the words of
    an error where one ended it.
    """

    what: str
    end: WalkOutcome
    address: int
    limit: int = 0
    why: str = ""

    def __str__(self) -> str:
        if self.end is WalkOutcome.SPENT:
            return f"{self.what}: more than {self.limit}: the rest is left out"
        if self.end is WalkOutcome.CIRCLE:
            return f"{self.what} runs in a circle at {self.address:#x}"
        return f"{self.what} at {self.address:#x}: {self.why}"


class BudgetSpent(Corrupt):
    """What memory claims is more than the budget of the question has left; `problem` has the facts."""

    def __init__(self, problem: WalkProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Budget:
    """How much of memory one question may go through, however many walks it takes; and what those left out.

    Args:
        nodes: how many nodes, entries or records in all.
        size: bytes of tables in all.

    Attributes:
        spare: nodes besides, by which lists that break off are walked from their other end.
        problems: of the walks under it, the first `MAX_PROBLEMS`.
        missed: how many more there were.
        is_spent: whether a walk asked for a node and got none.
    """

    def __init__(self, nodes: int, size: int = MAX_BYTES) -> None:
        self.limit = nodes
        self.left = nodes
        self.size = size
        self.size_left = size
        self.problems: list[WalkProblem] = []
        self.missed = 0
        self.is_spent = False
        self.spare = nodes // 8

    @property
    def is_whole(self) -> bool:
        """True while no walk under it left anything out."""
        return not self.problems

    def take(self, what: str, address: int, count: int = 1) -> bool:
        """Takes so many nodes; False, and a problem, where not so many are left. Then the budget is spent for good."""
        if count <= self.left:
            self.left -= count
            return True
        self.left = 0
        if not self.is_spent:
            self.is_spent = True
            self.note(WalkProblem(what, WalkOutcome.SPENT, address, self.limit))
        return False

    def share(self, nodes: int) -> Budget:
        """A budget for a part of the question, of no more than is left; `settle` gives it back."""
        part = Budget(min(nodes, self.left))
        part.spare = self.spare
        return part

    def settle(self, part: Budget) -> None:
        """Takes what a part used, and its problems."""
        self.left -= part.limit - part.left
        self.spare = part.spare
        self.missed += part.missed
        for problem in part.problems:
            self.note(problem)

    def note(self, problem: WalkProblem) -> None:
        """Keeps a problem, or counts it where there are many."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.missed += 1

    def note_error(self, what: str, address: int, error: Exception) -> None:
        """Keeps the error that a node, or what hangs on it, could not be read for."""
        end = WalkOutcome.UNREADABLE if isinstance(error, MemoryFault) else WalkOutcome.CORRUPT
        self.note(WalkProblem(what, end, address, why=str(error)))

    def lines(self) -> list[str]:
        """The problems in words, for an answer."""
        more = [f"{self.missed} more problems like these"] if self.missed else []
        return [*map(str, self.problems), *more]

    def read(self, memory: AddressSpace, address: int, size: int, what: str) -> bytes:
        """Reads a table whose size memory tells.

        Raises:
            BudgetSpent: the size is more than is left.
            MemoryFault: it cannot be read.
        """
        if not 0 <= size <= self.size_left:
            raise BudgetSpent(WalkProblem(f"bytes of {what}", WalkOutcome.SPENT, address, self.size))
        self.size_left -= size
        return memory.read(address, size)

    def entries(self, count: int, address: int, what: str) -> range:
        """The numbers of a table's entries, whose count memory tells.

        Raises:
            BudgetSpent: there are more than are left.
        """
        if not 0 <= count <= self.left:
            raise BudgetSpent(WalkProblem(what, WalkOutcome.SPENT, address, self.limit))
        self.left -= count
        return range(count)


class Chain:
    """The nodes of a linked list in memory, each once.

    A node's link is read when the next node is asked for, as the kernel does, so that whoever reads a node finds its
    faults first.

    Args:
        first: address of the first node.
        next_of: reads the address of the next one; its MemoryFault ends the walk.
        budget: what the walk draws on.
        what: is walked, in words that a problem begins with.
        ends: addresses that are no nodes and end the list.
        seen: nodes met so far, shared by chains that must not meet, as those of one hash table.

    Attributes:
        end: how the walk ended, None before.
    """

    def __init__(
        self,
        first: int,
        next_of: Callable[[int], int],
        budget: Budget,
        what: str,
        ends: Container[int] = (0,),
        seen: set[int] | None = None,
    ) -> None:
        self._first = first
        self._next_of = next_of
        self._budget = budget
        self._what = what
        self._ends = ends
        self._seen = set[int]() if seen is None else seen
        self.end: WalkOutcome | None = None

    def __iter__(self) -> Iterator[int]:
        node = self._first

        while node not in self._ends:
            if node in self._seen:
                self.end = WalkOutcome.CIRCLE
                self._budget.note(WalkProblem(self._what, WalkOutcome.CIRCLE, node))
                return

            if not self._budget.take(self._what, node):
                self.end = WalkOutcome.SPENT
                return

            self._seen.add(node)
            yield node

            try:
                node = self._next_of(node)
            except MemoryFault as error:
                self.end = WalkOutcome.UNREADABLE
                self._budget.note_error(self._what, node, error)
                return

        self.end = WalkOutcome.ENDED


def rest_of_list(last: int, previous_of: Callable[[int], int], head: int, seen: set[int], budget: Budget) -> list[int]:
    """The nodes of a doubly linked list behind the place where it breaks off, in the list's order.

    One changed word hides what is behind it only from one side. What ends this walk is no problem of its own: it ends where
    the other one broke off.

    Args:
        last: address of the last node.
        previous_of: reads the address of the one before.
        head: the list's head.
        seen: the nodes that are known.
        budget: whose spare nodes it takes.
    """
    spare = Budget(budget.spare)
    found = list(Chain(last, previous_of, spare, "", ends=(head,), seen=seen))
    budget.spare = spare.left
    return found[::-1]


def unmet_from_the_end(
    last: int, previous_of: Callable[[int], int], head: int, seen: set[int], budget: Budget
) -> list[int]:
    """The nodes of a ring that only the way back from its end reaches, in the list's order: a link leads past them.

    Arguments are those of `rest_of_list`, which ends at the first node that is known.
    """
    spare = Budget(budget.spare)
    found = [node for node in Chain(last, previous_of, spare, "", ends=(0, head)) if node not in seen]
    budget.spare = spare.left
    return found[::-1]


class Tree:
    """The nodes of a tree in memory, each once, a node before its children and the last child first.

    Args:
        roots: addresses, or whatever tells nodes apart.
        children_of: reads a node's children; its MemoryFault costs that node's children alone.
        budget: what the walk draws on.
        what: is walked.
    """

    def __init__(
        self, roots: Iterable[int], children_of: Callable[[int], Iterable[int]], budget: Budget, what: str
    ) -> None:
        self._roots = roots
        self._children_of = children_of
        self._budget = budget
        self._what = what

    def __iter__(self) -> Iterator[int]:
        seen: set[int] = set()
        pending = self._new(self._roots, seen)

        while pending:
            node = pending.pop()
            yield node

            try:
                pending += self._new(self._children_of(node), seen)
            except MemoryFault as error:
                self._budget.note_error(self._what, node, error)

    def _new(self, nodes: Iterable[int], seen: set[int]) -> list[int]:
        """The nodes that no other way led to before, paid for at once: 64 of each would wait here otherwise."""
        found: list[int] = []
        for node in nodes:
            if node in seen:
                continue
            if not self._budget.take(self._what, node):
                break
            seen.add(node)
            found.append(node)
        return found


def entries_before_zero(word_at: Callable[[int], int], limit: int, address: int, what: str) -> int:
    """How many entries a table has whose end is a zero.

    Args:
        word_at: reads the word that tells, by the entry's number; its MemoryFault is the caller's.
        limit: the most that there may be.
        address: of the table.
        what: is counted.

    Raises:
        BudgetSpent: none of `limit` entries is the last.
    """
    for number in range(limit + 1):
        if not word_at(number):
            return number
    raise BudgetSpent(WalkProblem(what, WalkOutcome.SPENT, address, limit))

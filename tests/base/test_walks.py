"""Lists, trees and tables in memory are walked node by node, each once, and no further than a budget goes."""

from __future__ import annotations

import itertools
import random

import pytest

from orcdbg.base.errors import MemoryFault, NotInSnapshot
from orcdbg.base.reading import BytesSpace
from orcdbg.base.walks import (
    MAX_PROBLEMS,
    Budget,
    BudgetSpent,
    Chain,
    Tree,
    WalkOutcome,
    WalkProblem,
    entries_before_zero,
    rest_of_list,
)


def links(following: dict[int, int]) -> object:
    """Reads links from a table; what it lacks is not in the snapshot."""

    def next_of(node: int) -> int:
        if node not in following:
            raise NotInSnapshot("virtual", node, 8)
        return following[node]

    return next_of


def chain(following: dict[int, int], budget: Budget) -> Chain:
    """A list that begins at 1."""
    return Chain(1, links(following), budget, "the list")  # type: ignore[arg-type]


def test_a_list_that_ends_is_walked_whole_and_has_no_problem() -> None:
    """The budget is what it was, less the nodes."""
    budget = Budget(10)
    walk = chain({1: 2, 2: 3, 3: 0}, budget)
    assert (list(walk), walk.end, budget.left, budget.is_whole) == ([1, 2, 3], WalkOutcome.ENDED, 7, True)


def test_a_circle_ends_where_it_closes() -> None:
    """Each node is met once, and the problem names the first that would be met again."""
    budget = Budget(10)
    walk = chain({1: 2, 2: 3, 3: 2}, budget)
    assert (list(walk), walk.end) == ([1, 2, 3], WalkOutcome.CIRCLE)
    assert budget.problems == [WalkProblem("the list", WalkOutcome.CIRCLE, 2)]


def test_a_budget_that_is_spent_keeps_what_there_is() -> None:
    """And says so once, however many walks come to its end."""
    budget = Budget(5)
    following = {number: number + 1 for number in range(1, 100)}
    assert list(chain(following, budget)) == [1, 2, 3, 4, 5]
    walk = chain(following, budget)
    assert (list(walk), walk.end) == ([], WalkOutcome.SPENT)
    assert budget.problems == [WalkProblem("the list", WalkOutcome.SPENT, 6, 5)]
    assert "more than 5" in budget.lines()[0]


def test_a_list_of_just_the_budgets_size_is_whole() -> None:
    """The end of the list is asked for first."""
    budget = Budget(3)
    assert list(chain({1: 2, 2: 3, 3: 0}, budget)) == [1, 2, 3]
    assert budget.is_whole and not budget.is_spent


def test_a_link_that_cannot_be_read_keeps_what_came_before() -> None:
    """The problem names the node whose link it is."""
    budget = Budget(10)
    walk = chain({1: 2, 2: 3}, budget)
    assert (list(walk), walk.end) == ([1, 2, 3], WalkOutcome.UNREADABLE)
    assert [(one.end, one.address) for one in budget.problems] == [(WalkOutcome.UNREADABLE, 3)]


def test_chains_of_one_table_do_not_lead_into_each_other() -> None:
    """What they share is walked once."""
    budget, seen, following = Budget(100), set[int](), {1: 5, 2: 5, 5: 6, 6: 0}
    walks = [Chain(first, links(following), budget, "a bucket", seen=seen) for first in (1, 2)]  # type: ignore[arg-type]
    assert [list(walk) for walk in walks] == [[1, 5, 6], [2]]
    assert [one.end for one in budget.problems] == [WalkOutcome.CIRCLE]


def test_any_links_end_within_the_budget() -> None:
    """Random tables: no node twice, no more nodes than the budget has, and a problem unless the end was reached."""
    for seed in range(500):
        chance = random.Random(seed)
        size = chance.randint(1, 40)
        following = {node: chance.randint(0, size) for node in range(1, size + 1) if chance.random() < 0.95}
        budget = Budget(chance.randint(1, 40))
        walk = chain(following, budget)
        nodes = list(walk)
        assert len(nodes) == len(set(nodes)) <= budget.limit
        assert all(following[one] == other for one, other in itertools.pairwise(nodes))
        assert (walk.end is WalkOutcome.ENDED) == budget.is_whole == (following.get(nodes[-1]) == 0)


def test_what_is_behind_a_break_is_found_from_the_other_end() -> None:
    """A list 9: 1 2 3 4 5 whose third node leads back: the rest, in the list's order, by the links backwards."""
    budget = Budget(80)
    seen: set[int] = set()
    forward = {1: 2, 2: 3, 3: 1}
    walk = Chain(1, links(forward), budget, "the list", ends=(9,), seen=seen)  # type: ignore[arg-type]
    assert list(walk) == [1, 2, 3]
    backward = {5: 4, 4: 3, 3: 2, 2: 1, 1: 9}
    assert rest_of_list(5, links(backward), 9, seen, budget) == [4, 5]  # type: ignore[arg-type]
    assert len(budget.problems) == 1
    assert budget.spare == 8


def test_a_tree_is_walked_whole_and_each_node_once() -> None:
    """Two ways to one node, a way back to the root, and children that are not in the snapshot."""
    budget = Budget(10)
    children = {1: [2, 3], 2: [4], 3: [4, 1]}

    def children_of(node: int) -> list[int]:
        if node not in children:
            raise NotInSnapshot("virtual", node, 8)
        return children[node]

    assert sorted(Tree([1], children_of, budget, "the tree")) == [1, 2, 3, 4]
    assert [(one.end, one.address) for one in budget.problems] == [(WalkOutcome.UNREADABLE, 4)]
    budget = Budget(1000)
    assert len(list(Tree([1], lambda node: [2 * node, 2 * node + 1], budget, "a tree without end"))) == 1000
    assert [one.end for one in budget.problems] == [WalkOutcome.SPENT]


def test_tables_are_read_only_as_far_as_the_budget_goes() -> None:
    """Entries and bytes; what is more is refused, with the facts, before it is read."""
    budget, memory = Budget(10, 100), BytesSpace(0, bytes(1000), lambda address, size: NotInSnapshot("", address, size))
    assert len(budget.entries(4, 0, "entries")) == 4
    with pytest.raises(BudgetSpent) as refused:
        budget.entries(7, 0x1000, "entries")
    assert refused.value.problem == WalkProblem("entries", WalkOutcome.SPENT, 0x1000, 10)
    assert len(budget.entries(6, 0, "entries")) == 6
    assert len(budget.read(memory, 0, 60, "a table")) == 60
    with pytest.raises(BudgetSpent):
        budget.read(memory, 0, 41, "a table")
    with pytest.raises(MemoryFault):
        budget.read(memory, 990, 40, "a table")


def test_a_table_that_ends_with_zero_is_counted_up_to_a_limit() -> None:
    """The zero may stand right behind the most that there may be."""
    words = [7, 7, 7, 0]
    assert entries_before_zero(words.__getitem__, 3, 0, "entries") == 3
    with pytest.raises(BudgetSpent):
        entries_before_zero(words.__getitem__, 2, 0, "entries")


def test_a_part_of_a_question_takes_no_more_than_its_share() -> None:
    """What it leaves goes back, and its problems come along."""
    budget = Budget(100)
    part = budget.share(10)
    following = {number: number + 1 for number in range(1, 1000)}
    assert len(list(chain(following, part))) == 10
    budget.settle(part)
    assert (budget.left, budget.is_spent) == (90, False)
    assert [one.limit for one in budget.problems] == [10]
    assert budget.share(1000).limit == 90


def test_many_problems_are_counted() -> None:
    """A hundred thousand nodes may have one each."""
    budget = Budget(10)
    for number in range(MAX_PROBLEMS + 5):
        budget.note_error("a node", number, NotInSnapshot("virtual", number, 8))
    assert len(budget.lines()) == MAX_PROBLEMS + 1
    assert budget.lines()[-1].startswith("5 more")

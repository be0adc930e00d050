"""Lists in memory: whole ones, and such as cycle, cross, end too early or lead anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orcdbg.base.walks import Budget, WalkOutcome
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.list import ListNodes
from orcdbg.commands.registry import Registry
from orcdbg.subsystems.containers import lists
from orcdbg.target.session import Session
from orcdbg.typed.program import Program
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.build.memory import SparseMemory

HEAD = 0xFFFF_8880_0000_1000
NODES = [0xFFFF_8880_0001_0000 + 0x100 * number for number in range(6)]
ELSEWHERE = 0xFFFF_8880_00DE_AD00


def ring(memory: SparseMemory, head: int, nodes: Sequence[int]) -> None:
    """A list_head list."""
    around = [head, *nodes, head]
    for previous, node, following in zip([nodes[-1] if nodes else head, *around], around, around[1:], strict=False):
        memory.put_words(node, following, previous)


@pytest.fixture
def memory() -> SparseMemory:
    """Memory with a list of six nodes."""
    made = SparseMemory()
    ring(made, HEAD, NODES)
    return made


@pytest.fixture
def program(sample: Session, memory: SparseMemory) -> Program:
    """The sample's types over that memory."""
    return sample.program.over(memory)


def walked(program: Program, budget: Budget | None = None) -> lists.ListWalk:
    """The list from its head, with the way back."""

    def previous_of(node: int) -> int:
        return int(program.object("unsigned long", node + 8))

    first = int(program.object("unsigned long", HEAD))
    return lists.walk(program, first, 0, budget or Budget(1000), HEAD, previous_of)


def test_a_whole_list_has_all_nodes_in_order(program: Program) -> None:
    """And no break; by both functions."""
    found = walked(program)
    assert (found.nodes, found.from_end, found.end, found.broken_at) == (NODES, [], WalkOutcome.ENDED, None)
    head = program.object("struct list_head", HEAD)
    budget = Budget(1000)
    entries = lists.entries(head, "struct task_struct", "tasks", budget)
    offset = lists.offset_of(program, "struct task_struct", "tasks")
    assert [entry.address_ for entry in entries] == [node - offset for node in NODES]
    assert budget.is_whole


def test_an_empty_list_has_no_nodes(program: Program, memory: SparseMemory) -> None:
    """Its head leads to itself."""
    memory.put_words(HEAD, HEAD, HEAD)
    assert (walked(program).nodes, walked(program).broken_at) == ([], None)


@pytest.mark.parametrize("place", range(6))
def test_a_link_to_nowhere_is_named_and_the_rest_is_found_from_the_end(
    program: Program, memory: SparseMemory, place: int
) -> None:
    """Whichever node it is in: what is before it comes from the beginning, what is behind it from the end."""
    memory.put_words(NODES[place], ELSEWHERE, ([HEAD, *NODES])[place])
    found = walked(program)
    assert (found.end, found.broken_at, found.leads_to) == (WalkOutcome.UNREADABLE, NODES[place], ELSEWHERE)
    assert found.nodes == NODES[: place + 1]
    assert found.from_end == NODES[place + 1 :]


def test_a_circle_is_named_and_met_once(program: Program, memory: SparseMemory) -> None:
    """The link back is the break."""
    memory.put_words(NODES[3], NODES[1], NODES[2])
    found = walked(program)
    assert (found.end, found.broken_at, found.leads_to) == (WalkOutcome.CIRCLE, NODES[3], NODES[1])
    assert (found.nodes, found.from_end) == (NODES[:4], NODES[4:])


def test_a_null_in_a_ring_is_a_break(program: Program, memory: SparseMemory) -> None:
    """Such a list comes back to its head, and NULL is no end of it."""
    memory.put_words(NODES[2], 0, NODES[1])
    found = walked(program)
    assert (found.broken_at, found.leads_to) == (NODES[2], 0)
    assert (found.nodes, found.from_end) == (NODES[:3], NODES[3:])


def test_a_list_that_crosses_into_another_is_broken_where_it_does_not_come_back(
    program: Program, memory: SparseMemory
) -> None:
    """It runs on in the other list until that comes back upon itself."""
    other = [0xFFFF_8880_0002_0000 + 0x100 * number for number in range(3)]
    ring(memory, ELSEWHERE, other)
    memory.put_words(NODES[2], other[1], NODES[1])
    found = walked(program)
    assert found.end is WalkOutcome.CIRCLE
    assert found.nodes == [*NODES[:3], *other[1:], ELSEWHERE, other[0]]
    assert found.from_end == NODES[3:]


def test_a_list_that_is_longer_than_the_budget_is_cut_and_not_called_broken(program: Program) -> None:
    """The budget's problem says so."""
    budget = Budget(4)
    found = walked(program, budget)
    assert (found.nodes, found.end, found.broken_at) == (NODES[:4], WalkOutcome.SPENT, None)
    assert "more than 4" in budget.lines()[0]


def test_hash_chains_end_with_null(program: Program, memory: SparseMemory) -> None:
    """Nodes of an hlist, and structures that point to the next one."""
    first, second = NODES[:2]
    memory.put_words(first, second, HEAD)
    memory.put_words(second, 0, first)
    budget = Budget(1000)
    offset = lists.offset_of(program, "struct timer_list", "entry")
    timers = lists.chained(first, program, "struct timer_list", "entry", budget)
    assert [timer.address_ for timer in timers] == [first - offset, second - offset]

    at = lists.offset_of(program, "struct irqaction", "next")
    memory.put(first, bytes(at) + second.to_bytes(8, "little"))
    memory.put(second, bytes(at + 8))
    actions = lists.chained(first, program, "struct irqaction", "next", budget)
    assert [action.address_ for action in actions] == [first, second]
    assert budget.is_whole


def test_two_hash_chains_may_not_meet(program: Program, memory: SparseMemory) -> None:
    """A node of one chain that is met on another ends that one."""
    memory.put_words(NODES[0], NODES[1], HEAD)
    memory.put_words(NODES[1], 0, NODES[0])
    memory.put_words(NODES[2], NODES[1], HEAD)
    budget, seen = Budget(1000), set[int]()
    for first, expected in ((NODES[0], 2), (NODES[2], 1)):
        chain = lists.chained(first, program, "struct timer_list", "entry", budget, seen)
        assert len(list(chain)) == expected
    assert "runs in a circle" in budget.lines()[0]


def test_the_command_says_where_a_list_breaks_and_shows_both_parts(
    sample: Session,
    debugger: Debugger,
    registry: Registry,
    program: Program,
    memory: SparseMemory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In words, and in JSON with the counts from either end."""
    memory.put_words(NODES[2], ELSEWHERE, NODES[1])
    monkeypatch.setitem(sample.kernel.__dict__, "program", program)
    result = registry.run(debugger, f"list -H {HEAD:x} -o 0")
    assert isinstance(result, ListNodes)
    shown = plain(lines_of(result, None))
    assert f"! the list breaks at {NODES[2]:016x}, whose link at {NODES[2]:x} leads to {ELSEWHERE:#x}" in shown
    assert "3 nodes were reached from the beginning, 3 more from the end" in shown
    broken = encode(result)["broken"]
    assert (broken["found"], broken["from_start"], broken["from_end"]) == ("unreadable", 3, 3)
    assert [node["from_end"] for node in encode(result)["nodes"]] == [False] * 3 + [True] * 3

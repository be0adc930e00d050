"""Waits and locks over memory made by code: what two sides prove, and what broken and contradicting words leave open."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.certainty import Certainty, weakest
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.waits.graph import WaitReader
from orcdbg.subsystems.waits.model import MAX_CYCLES, Edge, EvidenceKind, Graph, Mode, WaitKind
from orcdbg.subsystems.waits.sleeping import SleepingTask, StackPart
from orcdbg.typed.program import Program
from tests.build.btf import BtfBuilder
from tests.build.kernel import symbol_table
from tests.build.slabs import FlatMemory

TEXT, TASKS, STACKS, LOCKS = 0xFFFF_FFFF_8100_0000, 0xFF11_0000_0100_0000, 0xFF20_0000_0000_0000, 0xFF11_0000_0200_0000
STACK, TASK_SIZE = 0x4000, 0x200
COUNT = 4
# Where a thread's frames are on its stack: the sleep's, the slow path's with the waiter in it, and a caller's.
SLEEP, SLOW, WAITER, CALLER, END = 0x3000, 0x3100, 0x3140, 0x3200, 0x3280
SLOW_PATHS = {
    "mutex": "__mutex_lock.constprop.0",
    "rw_semaphore": "rwsem_down_write_slowpath",
    "semaphore": "__down_common",
}
HELD, DEPTH, DEP_MAP = 0x80, 0x78, 0x30


def _types(is_headless: bool, with_lockdep: bool) -> BtfBuilder:
    make = BtfBuilder()
    u32, u64 = make.integer("unsigned int", 4), make.integer("unsigned long", 8)
    pointer = make.pointer(0)

    def structure(name: str, size: int, *members: tuple[str, int, int]) -> int:
        return make.structure(name, size, [(title, type_, 8 * offset) for title, type_, offset in members])

    structure("thread_union", STACK, ("stack", make.array(u64, STACK // 8), 0))
    head = structure("list_head", 16, ("next", pointer, 0), ("prev", pointer, 8))
    atomic = structure("atomic64_t", 8, ("counter", u64, 0))
    held = structure("held_lock", 16, ("instance", pointer, 8))
    lockdep = [("lockdep_depth", u32, DEPTH), ("held_locks", make.array(held, 8), HELD)] if with_lockdep else []
    structure("task_struct", TASK_SIZE, ("pid", u32, 0), ("vfork_done", pointer, 8), *lockdep)
    waiters = ("first_waiter", pointer, 24) if is_headless else ("wait_list", head, 24)
    dep_map = [("dep_map", structure("lockdep_map", 8, ("key", pointer, 0)), DEP_MAP)] if with_lockdep else []
    structure("mutex", 0x38, ("owner", atomic, 0), waiters, *dep_map)
    structure("rw_semaphore", 0x38, ("count", atomic, 0), ("owner", atomic, 8), waiters, *dep_map)
    structure("semaphore", 0x38, ("count", u32, 4), waiters)
    swait = structure("swait_queue_head", 24, ("lock", u32, 0), ("task_list", head, 8))
    structure("completion", 32, ("done", u32, 0), ("wait", swait, 8))
    for name in ("mutex_waiter", "semaphore_waiter"):
        structure(name, 32, ("list", head, 0), ("task", pointer, 16))
    structure("rwsem_waiter", 32, ("list", head, 0), ("task", pointer, 16), ("type", u32, 24))
    structure("swait_queue", 24, ("task", pointer, 0), ("task_list", head, 8))
    structure("wait_queue_head", 24, ("lock", u32, 0), ("head", head, 8))
    structure(
        "wait_queue_entry", 40, ("flags", u32, 0), ("private", pointer, 8), ("func", pointer, 16), ("entry", head, 24)
    )
    return make


class MadeWaits:
    """Some tasks that sleep, and locks; each is written word by word.

    Args:
        is_headless: whether locks point to their first waiter, as since 7.1.
        with_lockdep: whether tasks have records of what they hold.
    """

    def __init__(self, is_headless: bool = False, with_lockdep: bool = False) -> None:
        self.memory = FlatMemory({TASKS: COUNT * TASK_SIZE, STACKS: COUNT * STACK, LOCKS: 0x1000, TEXT: 0x1000})
        self.is_headless = is_headless
        self._types = _types(is_headless, with_lockdep)
        self.tasks = [self.task(number) for number in range(COUNT)]

    @staticmethod
    def task(number: int, state: str = "UN") -> Task:
        """A task; its pid is its number."""
        place = TASKS + number * TASK_SIZE
        return Task(place, number, number, f"t{number}", 0, state, 0x20_0000, STACKS + number * STACK, None)

    @staticmethod
    def waiter(number: int) -> int:
        """Where a task's waiter is."""
        return STACKS + number * STACK + WAITER

    def lock(self, place: int, owner: int, waiters: list[int], at: int = 24, word: int = 0) -> None:
        """A lock with an owner's word at `word`, and these tasks' waiters on its list."""
        self.memory.words(place + word, owner)
        nodes = [self.waiter(number) for number in waiters]
        if self.is_headless:
            self.memory.words(place + at, nodes[0] if nodes else 0)
            self.ring(nodes)
        else:
            self.ring([place + at, *nodes])
        for number, node in zip(waiters, nodes, strict=True):
            self.memory.words(node + 16, self.tasks[number].address)
            self.memory.words(STACKS + number * STACK + CALLER, place)

    def ring(self, nodes: list[int]) -> None:
        """Links nodes in a ring."""
        for number, node in enumerate(nodes):
            self.memory.words(node, nodes[(number + 1) % len(nodes)], nodes[number - 1])

    def reader(self) -> WaitReader:
        """The reader over it."""
        linux = Linux(self.memory, symbol_table({"_text": (TEXT, 8)}), self._types.built().structs, 0)
        return WaitReader(Program(linux, Names(linux)), self.tasks, lambda address: TEXT <= address < TEXT + 0x1000)

    def sleeping(self, number: int, function: str, is_sure: bool = True) -> SleepingTask:
        """A task in a function's slow path."""
        base = STACKS + number * STACK
        parts = [
            StackPart("schedule", base + SLEEP, base + SLOW, True),
            StackPart(function, base + SLOW, base + CALLER, is_sure),
            StackPart("caller", base + CALLER, base + END, True),
        ]
        return SleepingTask(self.tasks[number], parts)

    def graph(self, waiters: list[int], lock: str = "mutex", is_sure: bool = True) -> Graph:
        """What is found of tasks in the slow path of a kind of lock."""
        return self.reader().graph([self.sleeping(number, SLOW_PATHS[lock], is_sure) for number in waiters])


def kinds(edge: Edge) -> list[EvidenceKind]:
    """What speaks for an edge."""
    return [each.kind for each in edge.evidence]


@pytest.fixture(params=[False, True], ids=["list", "first waiter"])
def made(request: pytest.FixtureRequest) -> MadeWaits:
    """Both ways in which locks keep their waiters."""
    return MadeWaits(is_headless=request.param)


# Mutexes


def test_two_mutexes_taken_crosswise_are_a_deadlock(made: MadeWaits) -> None:
    """Each edge is a fact, and so is the cycle; the lock has its waiters in order."""
    first, second = LOCKS, LOCKS + 0x100
    made.lock(first, made.tasks[0].address | 1, [1, 2])
    made.lock(second, made.tasks[1].address | 1, [0])
    graph = made.graph([0, 1, 2])
    assert [(edge.waiter, edge.object, edge.holder, edge.certainty) for edge in graph.edges] == [
        (made.tasks[0].address, second, made.tasks[1].address, Certainty.FACT),
        (made.tasks[1].address, first, made.tasks[0].address, Certainty.FACT),
        (made.tasks[2].address, first, made.tasks[0].address, Certainty.FACT),
    ]
    (cycle,) = graph.cycles
    assert set(cycle.tasks) == {made.tasks[0].address, made.tasks[1].address}
    assert cycle.certainty is Certainty.FACT
    assert [edge.waiter for edge in graph.chain(made.tasks[2].address)] == [made.tasks[at].address for at in (2, 0, 1)]
    lock = made.reader().lock(WaitKind.MUTEX, first)
    assert [waiter.task for waiter in lock.waiters] == [made.tasks[1].address, made.tasks[2].address]


@pytest.mark.parametrize(
    ("owner", "kind"),
    [
        (1, EvidenceKind.NO_OWNER),
        (LOCKS + 0x800 | 1, EvidenceKind.OWNER_UNKNOWN),
        (0x4141_4141_4141_4141, EvidenceKind.OWNER_UNKNOWN),
    ],
)
def test_an_owner_that_is_no_task_is_nobody(made: MadeWaits, owner: int, kind: EvidenceKind) -> None:
    """Neither a zero nor what points nowhere becomes a holder."""
    made.lock(LOCKS, owner, [0])
    (edge,) = made.graph([0]).edges
    assert (edge.object, edge.holder) == (LOCKS, None)
    assert kind in kinds(edge)


def test_a_mutex_that_was_handed_over_holds_its_new_owner_up_no_more(made: MadeWaits) -> None:
    """It waits for nobody, and those behind it wait for it."""
    made.lock(LOCKS, made.tasks[0].address | 5, [0, 1])
    first, second = made.graph([0, 1]).edges
    assert (first.holder, second.holder) == (None, made.tasks[0].address)
    assert EvidenceKind.HANDED_OVER in kinds(first)


def test_a_task_that_left_the_list_waits_for_nothing(made: MadeWaits) -> None:
    """Its structure is on its stack still, and nothing leads to it."""
    made.lock(LOCKS, made.tasks[1].address | 1, [0])
    made.memory.words(made.waiter(0), 0xDEAD_0000_0000_0100, 0xDEAD_0000_0000_0122)
    graph = made.graph([0])
    assert (graph.edges, graph.unexplained) == ((), (made.tasks[0].address,))


def test_a_waiter_that_names_another_task_is_not_this_ones(made: MadeWaits) -> None:
    """The list leads to it, and it is on the stack, but it says something else."""
    made.lock(LOCKS, made.tasks[1].address | 1, [0])
    made.memory.words(made.waiter(0) + 16, made.tasks[2].address)
    assert made.graph([0]).edges == ()


def test_a_waiter_outside_of_the_frames_of_its_slow_path_is_not_looked_for(made: MadeWaits) -> None:
    """What lies below the stack pointer is of calls that have returned."""
    made.lock(LOCKS, made.tasks[1].address | 1, [0])
    base = STACKS
    parts = [
        StackPart("schedule", base + CALLER, base + CALLER + 0x20, True),
        StackPart("mutex_lock", base + CALLER + 0x20, base + END, True),
    ]
    graph = made.reader().graph([SleepingTask(made.tasks[0], parts)])
    assert graph.edges == ()


def test_a_list_that_breaks_makes_a_hypothesis_of_its_lock() -> None:
    """The lock is the only head that was met, and the problem is said."""
    made = MadeWaits()
    made.lock(LOCKS, made.tasks[3].address | 1, [0, 1, 2])
    made.memory.words(made.waiter(2) + 8, 0xDEAD_0000_0000_0122)
    graph = made.graph([0])
    (edge,) = graph.edges
    assert (edge.object, edge.certainty) == (LOCKS, Certainty.HYPOTHESIS)
    assert EvidenceKind.LIST_BROKEN in kinds(edge)
    assert any("leads back" in problem for problem in graph.problems)


def test_two_heads_on_a_list_leave_the_lock_unknown() -> None:
    """A waiter whose task is not known looks like one; then nothing is claimed of the object, nor of a holder."""
    made = MadeWaits()
    made.lock(LOCKS, made.tasks[3].address | 1, [0, 1])
    made.memory.words(made.waiter(1) + 16, TASKS + 0x8000)
    (edge,) = made.graph([0]).edges
    assert (edge.object, edge.holder, kinds(edge)) == (None, None, [EvidenceKind.NO_HEAD])


def test_two_words_that_may_be_the_lock_leave_it_unknown() -> None:
    """Without a head both point into the ring, and both have the flag."""
    made = MadeWaits(is_headless=True)
    made.lock(LOCKS, made.tasks[3].address | 1, [0])
    made.memory.words(LOCKS + 0x100, made.tasks[2].address | 1, 0, 0, made.waiter(0))
    made.memory.words(STACKS + SLOW, LOCKS + 0x100)
    (edge,) = made.graph([0]).edges
    assert (edge.object, edge.holder) == (None, None)


def test_a_ring_of_one_that_no_lock_points_to_is_no_fact() -> None:
    """The only waiter stays linked with itself when it was taken off."""
    made = MadeWaits(is_headless=True)
    made.lock(LOCKS, made.tasks[3].address | 1, [0])
    made.memory.words(LOCKS + 24, 0)
    (edge,) = made.graph([0]).edges
    assert (edge.object, edge.holder) == (None, None)
    assert edge.certainty is not Certainty.FACT


def test_a_lock_that_denies_its_waiters_makes_a_hypothesis(made: MadeWaits) -> None:
    """Its list has one, and its flag says there is none."""
    made.lock(LOCKS, made.tasks[1].address, [0])
    (edge,) = made.graph([0]).edges
    assert edge.certainty is Certainty.HYPOTHESIS
    assert EvidenceKind.NO_WAITERS_FLAG in kinds(edge)


def test_a_frame_in_doubt_makes_a_hypothesis(made: MadeWaits) -> None:
    """Which lock's slow path it is, only the frame says."""
    made.lock(LOCKS, made.tasks[1].address | 1, [0])
    (edge,) = made.graph([0], is_sure=False).edges
    assert (edge.object_certainty, edge.certainty) == (Certainty.HYPOTHESIS, Certainty.HYPOTHESIS)


# Other kinds


@pytest.mark.parametrize(
    ("owner", "count", "holder", "certainty"),
    [
        (0, 3, True, Certainty.FACT),
        (1, 0x102, True, Certainty.HYPOTHESIS),
        (3, 0x102, True, Certainty.HYPOTHESIS),
        (1, 2, False, Certainty.FACT),
        (0, 2, False, Certainty.FACT),
    ],
    ids=["writer", "reader", "reader, no spinning", "reader that left", "nobody writes"],
)
def test_an_rwsem_says_who_writes_and_hints_at_who_reads(
    made: MadeWaits, owner: int, count: int, holder: bool, certainty: Certainty
) -> None:
    """The owner's flag and the count decide."""
    made.lock(LOCKS, made.tasks[1].address | owner, [0], word=8)
    made.memory.words(LOCKS, count)
    made.memory.words(made.waiter(0) + 24, 1)
    (edge,) = made.graph([0], "rw_semaphore").edges
    assert (edge.object, edge.mode, edge.certainty) == (LOCKS, Mode.READ, certainty)
    assert edge.holder == (made.tasks[1].address if holder else None)


def test_a_semaphore_does_not_tell_who_has_it(made: MadeWaits) -> None:
    """Nobody is named."""
    made.lock(LOCKS, 0, [0])
    (edge,) = made.graph([0], "semaphore").edges
    assert (edge.kind, edge.object, edge.holder) == (WaitKind.SEMAPHORE, LOCKS, None)
    assert EvidenceKind.NOT_RECORDED in kinds(edge)


@pytest.mark.parametrize("is_ending", [False, True])
def test_a_completion_is_up_to_the_task_whose_end_completes_it(is_ending: bool) -> None:
    """By its `vfork_done`; without one nobody is named."""
    made = MadeWaits()
    node = made.waiter(0) + 8
    made.ring([LOCKS + 16, node])
    made.memory.words(made.waiter(0), made.tasks[0].address)
    made.memory.words(made.tasks[1].address + 8, LOCKS if is_ending else 0)
    (edge,) = made.reader().graph([made.sleeping(0, "wait_for_completion")]).edges
    expected = (WaitKind.KTHREAD_STOP, made.tasks[1].address) if is_ending else (WaitKind.COMPLETION, None)
    assert (edge.kind, edge.holder, edge.object) == (*expected, LOCKS)
    assert edge.certainty is (Certainty.DERIVED if is_ending else Certainty.FACT)


def test_a_wait_queue_is_found_by_an_entry_that_wakes_the_task() -> None:
    """The head is the one node before which no code's address stands."""
    made = MadeWaits()
    entry = made.waiter(0)
    made.ring([LOCKS + 8, entry + 24])
    made.memory.words(entry, 0, made.tasks[0].address, TEXT + 0x100)
    (edge,) = made.reader().graph([made.sleeping(0, "some_driver_waits")]).edges
    assert (edge.kind, edge.object, edge.holder) == (WaitKind.WAIT_QUEUE, LOCKS, None)


# lockdep


@pytest.mark.parametrize(("state", "certainty"), [("UN", Certainty.FACT), ("RU", Certainty.HYPOTHESIS)])
def test_lockdeps_record_of_a_sleeper_is_a_fact_and_of_a_runner_none(state: str, certainty: Certainty) -> None:
    """The waiter's own record is older than its lock. A task that runs may be just taking it."""
    made = MadeWaits(with_lockdep=True)
    made.lock(LOCKS, made.tasks[3].address | 1, [0], word=8)
    made.memory.words(LOCKS, 0x102)
    made.tasks[1] = made.task(1, state)
    for number in (0, 1):
        made.memory.words(made.tasks[number].address + DEPTH, 1)
        made.memory.words(made.tasks[number].address + HELD, 0, LOCKS + DEP_MAP)
    (edge,) = made.graph([0], "rw_semaphore").edges
    assert (edge.holder, edge.certainty) == (made.tasks[1].address, certainty)
    assert EvidenceKind.HELD_LOCK in kinds(edge)


# Graphs


def _edge(waiter: int, holder: int | None) -> Edge:
    return Edge(waiter, 1, WaitKind.MUTEX, holder, Certainty.FACT, Certainty.FACT, None, None, None, None, None, ())


@given(st.lists(st.tuples(st.integers(1, 8), st.none() | st.integers(1, 8)), max_size=24))
@settings(max_examples=60, deadline=None)
def test_cycles_are_rings_and_every_edge_that_is_on_one_is_on_one_of_them(pairs: list[tuple[int, int | None]]) -> None:
    """Compared with what can be reached, edge by edge."""
    graph = Graph(tuple(_edge(*pair) for pair in dict.fromkeys(pairs)))
    covered = set()
    for cycle in graph.cycles:
        ring = [*cycle.edges, cycle.edges[0]]
        assert all(one.holder == other.waiter for one, other in itertools.pairwise(ring))
        assert len(set(cycle.tasks)) == len(cycle.tasks)
        covered |= {(edge.waiter, edge.holder) for edge in cycle.edges}

    def reached(start: int) -> set[int]:
        met: set[int] = set()
        pending = [start]
        while pending:
            for edge in graph.by_waiter.get(pending.pop(), ()):
                if edge.holder is not None and edge.holder not in met:
                    met.add(edge.holder)
                    pending.append(edge.holder)
        return met

    expected = {
        (edge.waiter, edge.holder)
        for edge in graph.edges
        if edge.holder is not None and edge.waiter in {edge.holder, *reached(edge.holder)}
    }
    assert covered == expected


def test_a_ring_of_many_tasks_is_one_cycle_and_many_rings_are_bounded() -> None:
    """Neither recursion nor a search for each edge stands in the way."""
    many = Graph(tuple(_edge(task, task % 20_000 + 1) for task in range(1, 20_001)))
    assert [len(cycle.edges) for cycle in many.cycles] == [20_000]
    selves = Graph(tuple(_edge(task, task) for task in range(1, 1000)))
    assert len(selves.cycles) == MAX_CYCLES


def test_what_needs_several_things_is_as_sure_as_the_least_of_them() -> None:
    """A cycle with one hypothesis is one."""
    assert weakest([Certainty.FACT, Certainty.HYPOTHESIS, Certainty.DERIVED]) is Certainty.HYPOTHESIS
    assert weakest([]) is Certainty.FACT

"""Who waits for whom, as the threads of the lab's own module said before they did."""

from __future__ import annotations

import statistics

import pytest

import orcdbg
from orcdbg.analysis.analysis import analyze
from orcdbg.analysis.findings import FindingKind
from orcdbg.base.certainty import Certainty
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.locks import LockStates
from orcdbg.commands.standard import standard_commands
from orcdbg.subsystems.waits.model import Edge, Graph
from orcdbg.target.session import Session
from orcdbg.target.wait_graph import wait_graph
from tests.lab.conftest import OpenScene
from tests.lab.draw import SEED, kernels_of
from tests.lab.scenes import Scene
from tests.lab.skips import skipped_if_unavailable
from tests.lab.waits import Said, said, waits

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("waits"))]

# A console of the emulator takes its time over a line.
_SECONDS = 0.5


@pytest.fixture
def scene(kernel: str) -> Scene:
    """The scene."""
    with skipped_if_unavailable(f"{kernel} waits"):
        return waits(kernel, SEED)


@pytest.fixture
def session(scene: Scene) -> Session:
    """A session over it, which has no file of the module."""
    return orcdbg.open(scene.vmlinux, scene.snapshot)


@pytest.fixture
def graph(session: Session) -> Graph:
    """All that is found."""
    return wait_graph(session)


@pytest.fixture
def told(scene: Scene) -> list[Said]:
    """What the threads said."""
    return said(scene)


def _edge(graph: Graph, one: Said) -> Edge:
    (edge,) = graph.by_waiter[one.waiter]
    return edge


def test_each_thread_waits_for_what_it_said(graph: Graph, told: list[Said]) -> None:
    """Its kind, the object, who has it and how sure that is; no thread is left out."""
    assert not graph.problems
    for one in told:
        edge = _edge(graph, one)
        assert edge.kind.value == one.kind, one
        assert one.object in (0, edge.object), one
        if one.holder:
            assert (edge.holder, edge.certainty.value) == (one.holder, one.certainty), one
        else:
            # Since 6.16 a semaphore has a hint.
            assert edge.holder is None or edge.certainty is Certainty.HYPOTHESIS, one


def test_deadlocks_are_named_and_no_other(graph: Graph, told: list[Said]) -> None:
    """Two mutexes, two rwsems, a mutex taken twice, and a work that waits for the thread that flushes it."""
    waiters = {one.name: one.waiter for one in told}
    worker = next(name for name in waiters if not name.startswith("w-"))
    expected = {
        frozenset(waiters[name] for name in names)
        for names in (("w-ab", "w-ba"), ("w-xy", "w-yx"), ("w-self",), ("w-flusher", worker))
    }
    found = {frozenset(cycle.tasks) for cycle in graph.cycles if cycle.certainty is not Certainty.HYPOTHESIS}
    assert found == expected
    doubtful = {frozenset(cycle.tasks) for cycle in graph.cycles if cycle.certainty is Certainty.HYPOTHESIS}
    assert doubtful <= {frozenset([waiters["w-semaphore"]])}


def test_an_analysis_has_the_same_deadlocks(session: Session, graph: Graph) -> None:
    """As something that was found: nothing died, so that they are no cause."""
    answer = analyze(session)
    found = [finding for finding in answer.findings if finding.kind is FindingKind.WAIT_CYCLE]
    assert [finding.addresses for finding in found] == [cycle.tasks for cycle in graph.cycles]
    assert [finding.certainty for finding in found] == [cycle.certainty for cycle in graph.cycles]
    assert answer.cause is None
    assert "deadlocks" not in {untold.what for untold in answer.unknown}


def test_ages_count_from_when_each_said_it(graph: Graph, told: list[Said]) -> None:
    """All are asleep since they spoke: that moment and their age add up to the moment of the snapshot."""
    ends = [one.seconds + (_edge(graph, one).age or 0) / 1e9 for one in told]
    middle = statistics.median(ends)
    assert [one for one, end in zip(told, ends, strict=True) if abs(end - middle) > _SECONDS] == []


def test_locks_have_the_waiters_and_holders_of_the_graph(session: Session, graph: Graph, told: list[Said]) -> None:
    """Asked one by one by address and type, and all together."""
    registry, debugger = standard_commands(), Debugger(session)
    words = {
        "mutex": "mutex",
        "rwsem": "rwsem",
        "semaphore": "semaphore",
        "rt-mutex": "rt_mutex",
        "completion": "completion",
    }
    asked = {(one.object, words[one.kind]) for one in told if one.kind in words}
    assert len(asked) == 10
    for address, word in asked:
        answer = registry.run(debugger, f"locks -t {word} {address:x}")
        assert isinstance(answer, LockStates)
        (lock,) = answer.locks
        expected = {edge.waiter for edge in graph.edges if edge.object == address}
        assert {waiter.task for waiter in lock.waiters} == expected
        holders = {edge.holder for edge in graph.edges if edge.object == address}
        assert {holder.task for holder in lock.holders} == holders
    everything = registry.run(debugger, "locks")
    assert isinstance(everything, LockStates)
    assert {lock.address for lock in everything.locks} == {address for address, word in asked if word != "completion"}


def test_an_idle_machine_has_no_deadlock_and_nobody_holds_a_lock(kernel: str, open_scene: OpenScene) -> None:
    """Of its waits none is for a lock; a parent waits for the child that shares its memory."""
    graph = wait_graph(open_scene(kernel, "idle")[1])
    assert not graph.cycles
    assert not graph.problems
    assert not graph.unexplained
    assert [edge for edge in graph.edges if edge.kind.is_lock] == []

"""What does this task sleep for, by the structure that it put on its own stack and on the list of what it waits for?

Mirrors kernel/locking/mutex.c, rwsem.c, semaphore.c, rtmutex.c; kernel/sched/completion.c, swait.c, wait.c, wait_bit.c;
mm/filemap.c for folios, kernel/kthread.c, kernel/fork.c, kernel/workqueue.c, kernel/rcu/update.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from orcdbg.base.certainty import Certainty, weakest
from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import read_memory_pieces, read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Chain
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.containers import lists
from orcdbg.subsystems.containers.lists import offset_of
from orcdbg.subsystems.waits.locks import LISTINGS, ListLayout, Locks
from orcdbg.subsystems.waits.model import EvidenceKind, Mode, WaitEvidence, WaitKind
from orcdbg.subsystems.waits.rings import KnownTasks, Ring, Rings
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# Functions between a sleep and the one that waits.
_SLEEPING = frozenset(
    (
        *("__schedule", "schedule", "schedule_preempt_disabled", "schedule_rtlock", "preempt_schedule_common"),
        *("schedule_timeout", "schedule_timeout_interruptible", "schedule_timeout_killable"),
        *("schedule_timeout_uninterruptible", "schedule_timeout_idle", "io_schedule", "io_schedule_timeout"),
        *("schedule_hrtimeout_range", "schedule_hrtimeout_range_clock", "schedule_hrtimeout"),
        *("bit_wait", "bit_wait_io", "bit_wait_timeout", "bit_wait_io_timeout", "wait_woken", "rt_mutex_schedule"),
    )
)
# The slow paths of locks and completions, without their underscores and what compilers append. Which of them are inlined
# differs from build to build; the structure is in the frame of one of them.
_SLOW_PATHS: Mapping[str, WaitKind] = {
    **dict.fromkeys(
        (
            *(
                "mutex_lock",
                "mutex_lock_common",
                "mutex_lock_slowpath",
                "mutex_lock_interruptible",
                "mutex_lock_killable",
            ),
            *(
                "mutex_lock_interruptible_slowpath",
                "mutex_lock_killable_slowpath",
                "mutex_lock_io",
                "mutex_lock_nested",
            ),
            *("mutex_lock_interruptible_nested", "mutex_lock_killable_nested", "mutex_lock_io_nested"),
            *("ww_mutex_lock", "ww_mutex_lock_slowpath", "ww_mutex_lock_interruptible"),
            *("ww_mutex_lock_interruptible_slowpath",),
        ),
        WaitKind.MUTEX,
    ),
    **dict.fromkeys(
        (
            *("rwsem_down_read_slowpath", "rwsem_down_write_slowpath", "down_read_common", "down_write_common"),
            *("down_read", "down_read_interruptible", "down_read_killable", "down_read_nested"),
            *("down_write", "down_write_killable", "down_write_nested"),
        ),
        WaitKind.RWSEM,
    ),
    **dict.fromkeys(
        ("down", "down_common", "down_interruptible", "down_killable", "down_timeout"),
        WaitKind.SEMAPHORE,
    ),
    **dict.fromkeys(
        (
            *("wait_for_common", "do_wait_for_common", "wait_for_common_io", "wait_for_completion"),
            *("wait_for_completion_timeout", "wait_for_completion_io", "wait_for_completion_io_timeout"),
            *("wait_for_completion_interruptible", "wait_for_completion_interruptible_timeout"),
            *("wait_for_completion_killable", "wait_for_completion_killable_timeout", "wait_for_completion_state"),
        ),
        WaitKind.COMPLETION,
    ),
}
# Who waits for a completion inside a structure of its own; the innermost of these frames.
_GRACE_PERIODS = frozenset(("wait_rcu_gp", "synchronize_srcu", "synchronize_rcu", "synchronize_rcu_normal"))
_FLUSHES = frozenset(("flush_work", "cancel_work_sync", "cancel_work_timer"))
# They have the entry in the frame of one and sleep in another.
_BIT_WAITS = frozenset(("wait_on_bit", "wait_on_bit_lock", "out_of_line_wait_on_bit", "out_of_line_wait_on_bit_lock"))
# Frames above the sleep in which the entry of a wait queue is looked for: do_wait() has it in its caller's frame.
_QUEUE_FRAMES = 3
# Frames behind a slow path where its callers save the registers that hold the lock's address.
_CALLERS = 3
_MAX_WORDS = 4096
# Of the tasks on one ring so many are asked where the lock is; all of a false thousand would cost its square.
_MAX_LOOKS = 8
_WORK_HAS_QUEUE, _WORK_FLAGS = 0x4, 0xFF  # WORK_STRUCT_PWQ, and the bits below the queue's address
_MAX_WORKERS = 1 << 12

FindText = Callable[[int], bool]


class StackPart(NamedTuple):
    """A frame of a walked stack: its function's name as in the symbol table, and the bytes [start, end) that are its own."""

    function: str
    start: int
    end: int
    is_sure: bool


@dataclass(frozen=True, slots=True)
class SleepingTask:
    """A task that is switched out, with the frames of its stack, the innermost first; `only_locks` are wanted of its waits."""

    task: Task
    parts: Sequence[StackPart]
    only_locks: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """What a task waits for, without who has it; fields as in `Edge`.

    `structure` is what the task is on the list with, `function` the one that waits: of a lock the slow path's caller.
    `holder` is a task that is known without the object's help, with how sure that is.
    """

    kind: WaitKind
    object: int | None
    structure: int
    certainty: Certainty
    evidence: tuple[WaitEvidence, ...]
    function: str
    mode: Mode | None = None
    bit: int | None = None
    holder: int | None = None
    holder_certainty: Certainty = Certainty.DERIVED


def plain_name(function: str) -> str:
    """A function's name without its underscores and what compilers append: `mutex_lock` of `__mutex_lock.constprop.0`."""
    return function.partition(".")[0].lstrip("_")


class SleepFinder:
    """Finds what tasks sleep for.

    Args:
        program: the kernel.
        tasks: its tasks.
        locks: reads locks.
        is_text: whether an address is in code.
        budget: what walks draw on, and where problems go.
    """

    def __init__(self, program: Program, tasks: KnownTasks, locks: Locks, is_text: FindText, budget: Budget) -> None:
        self._program = program
        self._memory = program.memory
        self._tasks = tasks
        self._locks = locks
        self._is_text = is_text
        self._budget = budget
        self._rings = Rings(program.memory, budget)
        self._ends: Mapping[int, int] | None = None
        # Of each ring once: a thousand tasks are on it, and each would look at all of them. By kind and first node.
        self._heads: dict[tuple[WaitKind, int], list[int]] = {}
        self._locks_of_rings: dict[tuple[WaitKind, int], int] = {}
        self._looked_for: dict[tuple[WaitKind, int], int] = {}

    def find(self, sleeper: SleepingTask) -> Wait | None:
        """What a task sleeps for; None where nothing on its stack says so.

        Raises:
            OrcdbgError: memory or types are missing.
        """
        parts = sleeper.parts
        first = next((at for at, part in enumerate(parts) if part.function.partition(".")[0] not in _SLEEPING), None)
        if first is None:
            return None

        wait = self._rt_mutex(sleeper.task, parts[first].function)
        if wait is None:
            kind = _SLOW_PATHS.get(plain_name(parts[first].function))
            if sleeper.only_locks and (kind is None or not kind.is_lock):
                return None
            wait = self._listed(kind, sleeper, first) if kind is not None else self._queued(sleeper, first)
        if wait is None or all(part.is_sure for part in parts[: first + 1]):
            return wait

        doubt = WaitEvidence(EvidenceKind.DOUBTFUL_STACK, parts[0].start)
        return replace(wait, certainty=Certainty.HYPOTHESIS, evidence=(*wait.evidence, doubt))

    # The waiter's own stack

    def _words(self, task: Task, start: int, end: int) -> list[tuple[int, int]]:
        """The words of a part of a task's stack with their places; none where it is not on that stack."""
        count = (end - start) // 8
        if count <= 0 or start % 8 or not self._tasks.is_on_stack(task.address, start):
            return []
        count = min(count, _MAX_WORDS, (task.stack + self._tasks.stack_size - start) // 8)
        data = self._memory.read(start, 8 * count)
        return [(start + 8 * number, word) for number, (word,) in enumerate(struct.iter_unpack("<Q", data))]

    def _naming(self, task: Task, start: int, end: int) -> Iterator[int]:
        """Where on that part of its stack the task's own address is."""
        return (place for place, word in self._words(task, start, end) if word == task.address)

    # Locks and completions

    def _listed(self, kind: WaitKind, sleeper: SleepingTask, first: int) -> Wait | None:
        layout = self._locks.layout(kind)
        if layout is None:
            return None
        parts = sleeper.parts
        last = first
        while last + 1 < len(parts) and _SLOW_PATHS.get(plain_name(parts[last + 1].function)) is kind:
            last += 1

        for place in self._naming(sleeper.task, parts[0].start, parts[last].end):
            structure = place - layout.task & U64
            ring = self._rings.find(structure + layout.link & U64)
            if ring is None or structure < parts[0].start:
                continue
            caller = parts[min(last + 1, len(parts) - 1)].function
            wait = self._on_ring(kind, layout, structure, ring, caller)
            if wait.object is None and layout.head is None and ring.is_whole:
                wait = self._headless(wait, layout, ring, sleeper, parts[min(last + _CALLERS, len(parts) - 1)].end)
            wait = self._with_flag(wait)
            return self._special(wait, sleeper, parts[last + 1 :]) if kind is WaitKind.COMPLETION else wait
        return None

    def _heads_of(self, kind: WaitKind, ring: Ring, is_waiter: Callable[[int], bool]) -> list[int]:
        """The nodes of a ring that are no waiters."""
        key = kind, ring.nodes[0]
        if key not in self._heads:
            self._heads[key] = [node for node in ring.nodes if not is_waiter(node)]
        return self._heads[key]

    def _on_ring(self, kind: WaitKind, layout: ListLayout, structure: int, ring: Ring, function: str) -> Wait:
        """What a waiter on a list waits for: the one node of the ring that is no waiter is the lock's own."""
        mode = self._locks.mode_of(structure) if kind is WaitKind.RWSEM else None
        heads = self._heads_of(kind, ring, lambda node: self._locks.task_at(layout, node) is not None)
        name = LISTINGS[kind].waiter
        if layout.head is None or len(heads) != 1:
            evidence = WaitEvidence(EvidenceKind.NO_HEAD, structure, None, name)
            return Wait(kind, None, structure, Certainty.DERIVED, (evidence,), function, mode)

        address = heads[0] - layout.head & U64
        if ring.is_whole:
            listed = WaitEvidence(EvidenceKind.LISTED, structure, address, name)
            return Wait(kind, address, structure, Certainty.FACT, (listed,), function, mode)
        broken = WaitEvidence(EvidenceKind.LIST_BROKEN, structure, address, name)
        return Wait(kind, address, structure, Certainty.HYPOTHESIS, (broken,), function, mode)

    def _headless(self, wait: Wait, layout: ListLayout, ring: Ring, sleeper: SleepingTask, end: int) -> Wait:
        """The lock that points to one of a ring of waiters: it is where a word of the stack, or of the task, says.

        The compiler keeps the lock's address in a register or on the stack all through the slow path, which unlocks it.
        """
        key = wait.kind, ring.nodes[0]
        if self._heads[key]:
            return wait
        named = dict(self._named_by_task(sleeper.task))
        if key not in self._locks_of_rings:
            if self._looked_for.get(key, 0) >= _MAX_LOOKS:
                return wait
            self._looked_for[key] = self._looked_for.get(key, 0) + 1
            words = [word for _, word in self._words(sleeper.task, sleeper.parts[0].start, end)]
            locks = self._pointing(wait.kind, layout, ring, {*words, *named})
            if len(locks) != 1:
                return wait
            self._locks_of_rings[key] = locks[0]

        lock = self._locks_of_rings[key]
        evidence = [WaitEvidence(EvidenceKind.LISTED, wait.structure, lock, LISTINGS[wait.kind].waiter)]
        if lock in named:
            evidence.append(WaitEvidence(EvidenceKind.NAMED_BY_TASK, named[lock], lock))
        return replace(wait, object=lock, certainty=Certainty.FACT, evidence=tuple(evidence))

    def _pointing(self, kind: WaitKind, layout: ListLayout, ring: Ring, words: Iterable[int]) -> list[int]:
        """Which of some words are addresses of what points to a waiter of a ring, where a lock of this kind does."""
        assert layout.first is not None
        first = layout.first
        waiters = {node - layout.link & U64 for node in ring.nodes}
        links = {each for node in ring.nodes for each in (node, node + 8)}
        # What looks like a lock's pointer to a waiter may be a link between two waiters.
        candidates = sorted(word for word in words if word >> 63 and not word % 8 and word + first & U64 not in links)
        pieces = read_memory_pieces(self._memory, [word + first & U64 for word in candidates], [8] * len(candidates))
        locks = [
            word
            for word, piece in zip(candidates, pieces, strict=True)
            if piece is not None and int.from_bytes(piece, "little") in waiters
        ]
        if len(locks) > 1:
            locks = [lock for lock in locks if self._locks.waiters_flag(kind, lock)]
        return locks

    def _named_by_task(self, task: Task) -> Iterator[tuple[int, int]]:
        """What a task_struct itself says that the task waits for, and where: locks' addresses, of no certain kind."""
        found = self._program.object("task_struct", task.address)
        # `blocker` since 6.16 (e711faaafbe5), with its kind in the low bits; `blocked_on` of some kernels, of mutexes alone.
        for name in ("blocker", "blocked_on"):
            member = found.first_of_(name)
            if member is None or member.size_ != 8 or not isinstance(member.address_, int):
                continue
            word = read_u64(self._memory, member.address_)
            if word:
                yield word & ~3, member.address_

    def _with_flag(self, wait: Wait) -> Wait:
        """A lock whose word denies that there are waiters contradicts its list."""
        if wait.object is None or self._locks.waiters_flag(wait.kind, wait.object) is not False:
            return wait
        denial = WaitEvidence(EvidenceKind.NO_WAITERS_FLAG, wait.object, None, LISTINGS[wait.kind].lock)
        return replace(wait, certainty=Certainty.HYPOTHESIS, evidence=(*wait.evidence, denial))

    def _rt_mutex(self, task: Task, function: str) -> Wait | None:
        """The rt_mutex that a task itself says it is blocked on; its waiter is in the lock's tree."""
        word = self._program.object("task_struct", task.address).first_of_("pi_blocked_on")
        # While a futex is requeued, the member holds a number and no address.
        if word is None or not int(word) >> 63:
            return None
        waiter = word.deref_()
        structure, lock = int(word), int(waiter.member_("lock"))
        if int(waiter.member_("task")) != task.address or not self._is_in_tree(structure, lock):
            return None
        listed = WaitEvidence(EvidenceKind.LISTED, structure, lock, "rt_mutex_waiter")
        named = WaitEvidence(EvidenceKind.NAMED_BY_TASK, word.address_ or 0, structure)
        return Wait(WaitKind.RT_MUTEX, lock, structure, Certainty.FACT, (listed, named), function)

    def _is_in_tree(self, structure: int, lock: int) -> bool:
        """Whether the way up from a waiter's node ends at the root that an rt_mutex has."""
        waiter = self._program.object("struct rt_mutex_waiter", structure)
        entry = waiter.first_of_("tree.entry", "tree_entry")
        top = int(self._locks.rt_mutex_base(lock).member_("waiters.rb_root.rb_node"))
        if entry is None:
            return False

        def parent_of(node: int) -> int:
            return read_u64(self._memory, node) & ~3

        part = self._budget.share(64)
        way = list(Chain(entry.address_ or 0, parent_of, part, "the way up from a waiter"))
        return bool(way) and way[-1] == top

    # What completions are in

    def _special(self, wait: Wait, sleeper: SleepingTask, callers: Sequence[StackPart]) -> Wait:
        """A completion's wait as what it is for, where the caller or the structure around says so."""
        if wait.object is None:
            return wait
        names = [plain_name(part.function) for part in callers[:2]]
        if any(name in _FLUSHES for name in names):
            return self._flush(wait, sleeper.task) or wait
        if any(name in _GRACE_PERIODS for name in names):
            return self._grace_period(wait, sleeper.task)
        ending = self._ending(wait.object)
        if ending is None:
            return wait

        kind = WaitKind.KTHREAD_STOP if self._tasks.by_address[ending].is_kernel_thread else WaitKind.VFORK
        place = ending + offset_of(self._program, "task_struct", "vfork_done")
        evidence = WaitEvidence(EvidenceKind.VFORK_DONE, place, wait.object, "task_struct")
        return replace(wait, kind=kind, holder=ending, evidence=(*wait.evidence, evidence))

    def _ending(self, completion: int) -> int | None:
        """The task that completes a completion when it ends, or when it runs another program: its `vfork_done`."""
        if self._ends is None:
            offset = offset_of(self._program, "task_struct", "vfork_done")
            tasks = list(self._tasks.by_address)
            words = read_memory_pieces(self._memory, [task + offset & U64 for task in tasks], [8] * len(tasks))
            self._ends = {
                int.from_bytes(word, "little"): task
                for task, word in zip(tasks, words, strict=True)
                if word is not None and any(word)
            }
        return self._ends.get(completion)

    def _grace_period(self, wait: Wait, task: Task) -> Wait:
        """A wait for readers of RCU or SRCU: its `rcu_synchronize` is on the waiter's own stack."""
        inside = offset_of(self._program, "struct rcu_synchronize", "completion")
        address = (wait.object or 0) - inside & U64
        if not self._tasks.is_on_stack(task.address, address):
            return wait
        return replace(wait, kind=WaitKind.RCU, object=address)

    def _flush(self, wait: Wait, task: Task) -> Wait | None:
        """A wait for a work: its `wq_barrier` is behind the work, on the worker's list or among those that nobody has begun."""
        program = self._program
        barrier = program.object(
            "struct wq_barrier", (wait.object or 0) - offset_of(program, "struct wq_barrier", "done")
        )
        place = barrier.address_ or 0
        function = program.linux.find_address("wq_barrier_func")
        data = int(barrier.member_("work.data.counter")) & U64
        is_barrier = function is not None and int(barrier.member_("work.func")) == function
        if not is_barrier or not data & _WORK_HAS_QUEUE or not self._tasks.is_on_stack(task.address, place):
            return None
        ring = self._rings.find(barrier.member_("work.entry").address_ or 0)
        if ring is None or not ring.is_whole:
            return None

        pool = program.value("struct pool_workqueue *", data & ~_WORK_FLAGS).member_("pool")
        scheduled = self._scheduled(pool.deref_())
        entry = offset_of(program, "struct work_struct", "entry")
        pending = pool.member_("worklist").address_
        # From the barrier back to the head: the work that it is for comes first that is no barrier itself.
        for node in reversed(ring.nodes[1:]):
            worker = scheduled.get(node)
            if worker is not None:
                work = int(program.object("struct worker", worker).member_("current_work"))
                evidence = WaitEvidence(EvidenceKind.BARRIER, place, worker, "wq_barrier")
                return self._flushed(wait, work, worker, evidence)
            if node == pending:
                return None
            if int(program.object("struct work_struct", node - entry).member_("func")) != function:
                owner = next((scheduled[each] for each in ring.nodes if each in scheduled), None)
                if owner is not None:
                    evidence = WaitEvidence(EvidenceKind.BARRIER, place, owner, "wq_barrier")
                    return self._flushed(wait, node - entry & U64, owner, evidence)
                evidence = WaitEvidence(EvidenceKind.PENDING, place, pool.deref_().address_, "wq_barrier")
                return self._flushed(wait, node - entry & U64, None, evidence)
        return None

    def _flushed(self, wait: Wait, work: int, worker: int | None, evidence: WaitEvidence) -> Wait:
        holder = None
        if worker is not None:
            task = int(self._program.object("struct worker", worker).member_("task"))
            holder = task if task in self._tasks else None
        return replace(
            wait,
            kind=WaitKind.FLUSH_WORK,
            object=work or None,
            certainty=weakest((wait.certainty, Certainty.DERIVED)),
            holder=holder,
            evidence=(*wait.evidence, evidence),
        )

    def _scheduled(self, pool: Object) -> Mapping[int, int]:
        """By the heads of their lists of work, the workers of a pool."""
        found = {}
        part = self._budget.share(_MAX_WORKERS)
        for worker in lists.entries(pool.member_("workers"), "worker", "node", part):
            found[worker.member_("scheduled").address_ or 0] = worker.address_ or 0
        self._budget.settle(part)
        return found

    # Wait queues

    def _queued(self, sleeper: SleepingTask, first: int) -> Wait | None:
        """The wait queue that a task has its entry on; the innermost entry, where there are several."""
        program, parts = self._program, sleeper.parts
        private, link, func = (
            offset_of(program, "struct wait_queue_entry", path) for path in ("private", "entry", "func")
        )
        last = parts[min(first + _QUEUE_FRAMES, len(parts)) - 1]
        for place in self._naming(sleeper.task, parts[0].start, last.end):
            entry = place - private & U64
            ring = self._rings.find(entry + link & U64)
            if ring is None or entry < parts[0].start or not self._is_entry(entry + link, link, func):
                continue
            heads = self._heads_of(WaitKind.WAIT_QUEUE, ring, lambda node: self._is_entry(node, link, func))
            wait = self._on_queue(entry, ring, heads, parts[first].function)
            if wait.certainty is Certainty.FACT and entry >= self._own_end(parts, first):
                # It is on that queue; that it sleeps for it, and not for something of the function's that was called, follows.
                return replace(wait, certainty=Certainty.DERIVED)
            return wait
        return None

    @staticmethod
    def _own_end(parts: Sequence[StackPart], first: int) -> int:
        """Where the frame of the function that sleeps ends; of those that wait for bits the outermost one's."""
        last = first
        while last + 1 < len(parts) and {plain_name(parts[at].function) for at in (last, last + 1)} <= _BIT_WAITS:
            last += 1
        return parts[last].end

    def _is_entry(self, node: int, link: int, func: int) -> bool:
        """Whether a node is of an entry, which has the address of code where a queue's head has its lock."""
        try:
            word = read_u64(self._memory, node - link + func & U64)
        except MemoryFault:
            return False
        return bool(word >> 63) and self._is_text(word)

    def _on_queue(self, entry: int, ring: Ring, heads: Sequence[int], function: str) -> Wait:
        name = "wait_queue_entry"
        if len(heads) != 1:
            evidence = WaitEvidence(EvidenceKind.NO_HEAD, entry, None, name)
            return Wait(WaitKind.WAIT_QUEUE, None, entry, Certainty.DERIVED, (evidence,), function)
        queue = heads[0] - offset_of(self._program, "struct wait_queue_head", "head") & U64
        kind = EvidenceKind.LISTED if ring.is_whole else EvidenceKind.LIST_BROKEN
        certainty = Certainty.FACT if ring.is_whole else Certainty.HYPOTHESIS
        wait = Wait(WaitKind.WAIT_QUEUE, queue, entry, certainty, (WaitEvidence(kind, entry, queue, name),), function)
        return self._hashed(wait)

    def _hashed(self, wait: Wait) -> Wait:
        """What an entry's function tells of queues that many things share: the folio, bit or variable that it is about."""
        program = self._program
        woken_by = int(program.object("struct wait_queue_entry", wait.structure).member_("func"))
        known = {
            program.linux.find_address(name): name
            for name in ("wake_page_function", "wake_bit_function", "var_wake_function", "percpu_rwsem_wake_function")
        }
        name = known.get(woken_by)
        if name == "wake_page_function":
            return self._folio(wait)
        if name in ("wake_bit_function", "var_wake_function"):
            outer = program.object(
                "struct wait_bit_queue_entry",
                wait.structure - offset_of(program, "struct wait_bit_queue_entry", "wq_entry"),
            )
            address, bit = int(outer.member_("key.flags")), int(outer.member_("key.bit_nr"))
            if name == "wake_bit_function":
                return replace(wait, kind=WaitKind.BIT, object=address, bit=bit)
            return replace(wait, kind=WaitKind.VARIABLE, object=address)
        if name == "percpu_rwsem_wake_function":
            inside = offset_of(program, "struct percpu_rw_semaphore", "waiters")
            return replace(wait, kind=WaitKind.PERCPU_RWSEM, object=(wait.object or 0) - inside & U64)
        return wait

    def _folio(self, wait: Wait) -> Wait:
        program = self._program
        outer = program.object(
            "struct wait_page_queue", wait.structure - offset_of(program, "struct wait_page_queue", "wait")
        )
        folio = outer.first_of_("folio", "page")
        bit = int(outer.member_("bit_nr"))
        names = _page_flags(program, ("PG_locked", "PG_writeback"))
        kinds = {names.get("PG_locked"): WaitKind.FOLIO_LOCK, names.get("PG_writeback"): WaitKind.WRITEBACK}
        kind = kinds.get(bit, WaitKind.FOLIO_BIT)
        return replace(wait, kind=kind, object=None if folio is None else int(folio), bit=bit)


def _page_flags(program: Program, names: Iterable[str]) -> Mapping[str, int]:
    """The numbers of bits of `enum pageflags`, of those that this kernel has."""
    enumeration = program.type("enum pageflags")
    wanted = set(names)
    return {name: bit for name, bit in getattr(enumeration, "enumerators", ()) if name in wanted}

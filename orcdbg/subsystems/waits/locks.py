"""Who has this lock, and who waits for it?

Mirrors kernel/locking/mutex.c, rwsem.c, semaphore.c, rtmutex_common.h; kernel/sched/completion.c; kernel/locking/lockdep.c
for what debugging kernels record.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orcdbg.base.certainty import Certainty
from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import read_memory_pieces, read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import list_nodes
from orcdbg.subsystems.containers import rbtree
from orcdbg.subsystems.containers.lists import offset_of
from orcdbg.subsystems.waits.model import EvidenceKind, Mode, WaitEvidence, WaitKind
from orcdbg.subsystems.waits.rings import KnownTasks
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# MUTEX_FLAG_WAITERS, _HANDOFF and _PICKUP; RWSEM_READER_OWNED and what tells spinners to stop: the low bits of owners.
_OWNER_FLAGS = 7
_MUTEX_WAITERS, _MUTEX_PICKUP = 1, 4
_READER_OWNED = 1
# RWSEM_WRITER_LOCKED, RWSEM_FLAG_WAITERS and RWSEM_READER_SHIFT, of the count; since 5.3 (64489e78004c).
_WRITER_LOCKED, _RWSEM_WAITERS, _READER_SHIFT = 1, 2, 8
_RT_WAITERS = 1
_MAX_HELD = 48  # MAX_LOCK_DEPTH


@dataclass(frozen=True, slots=True)
class Listing:
    """How a kind of lock keeps its waiters: types, and where the lock has its list, the waiter its link and its task."""

    lock: str
    waiter: str
    head: str = "wait_list"
    link: str = "list"


LISTINGS: Mapping[WaitKind, Listing] = {
    WaitKind.MUTEX: Listing("mutex", "mutex_waiter"),
    WaitKind.RWSEM: Listing("rw_semaphore", "rwsem_waiter"),
    WaitKind.SEMAPHORE: Listing("semaphore", "semaphore_waiter"),
    WaitKind.COMPLETION: Listing("completion", "swait_queue", "wait.task_list", "task_list"),
}
# Since 7.1 (25500ba7e77c) a lock points to its first waiter, and the waiters are a ring without a head.
_FIRST_WAITER = "first_waiter"


@dataclass(frozen=True, slots=True)
class ListLayout:
    """Offsets of a `Listing` in this kernel; `head` of the list in the lock, or else `first` of a pointer to a waiter."""

    head: int | None
    first: int | None
    link: int
    task: int
    size: int


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A task that has a lock, or is to end a wait: `task` None with the evidence that tells of none."""

    task: int | None
    certainty: Certainty
    evidence: WaitEvidence


@dataclass(frozen=True, slots=True)
class ListedWaiter:
    """A waiter on a lock's list.

    Attributes:
        structure: its address.
        task: that it names; None where that is none of the list, or the structure is not on that task's stack.
        mode: of a lock that readers share.
    """

    structure: int
    task: int | None
    mode: Mode | None


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock's state.

    Attributes:
        address: of it.
        kind: what it is.
        word: its owner's word as it stands there; None where it has none.
        count: of a semaphore or rwsem its count, of a completion `done`.
        holders: who has it; one of no task says why none is known.
        waiters: in the lock's order.
    """

    address: int
    kind: WaitKind
    word: int | None
    count: int | None
    holders: tuple[LockHolder, ...]
    waiters: tuple[ListedWaiter, ...]


class Locks:
    """Reads locks, each once.

    Args:
        program: the kernel.
        tasks: its tasks.
        budget: what walks draw on, and where problems go.
    """

    def __init__(self, program: Program, tasks: KnownTasks, budget: Budget) -> None:
        self._program = program
        self._tasks = tasks
        self._budget = budget
        self._layouts: dict[WaitKind, ListLayout | None] = {}
        self._known: dict[tuple[WaitKind, int], Lock] = {}

    def layout(self, kind: WaitKind) -> ListLayout | None:
        """Where this kernel keeps what a `Listing` names; None where it lacks the types, as PREEMPT_RT's locks do."""
        if kind not in self._layouts:
            self._layouts[kind] = self._layout(LISTINGS[kind])
        return self._layouts[kind]

    def _layout(self, listing: Listing) -> ListLayout | None:
        program = self._program
        try:
            lock = program.object(f"struct {listing.lock}", 0)
            waiter = program.type(f"struct {listing.waiter}")
            link, task = (offset_of(program, waiter, path) for path in (listing.link, "task"))
        except NotFound:
            return None
        head = lock.member_(listing.head).address_ if lock.has_member_(listing.head) else None
        first = lock.member_(_FIRST_WAITER).address_ if lock.has_member_(_FIRST_WAITER) else None
        if head is None and first is None:
            return None
        return ListLayout(head, first, link, task, waiter.size)

    def task_at(self, layout: ListLayout, node: int) -> int | None:
        """The task whose waiter a node of a list is: it names a task, on whose stack it is; None of a list's head."""
        try:
            task = read_u64(self._program.memory, node - layout.link + layout.task & U64)
        except MemoryFault:
            return None
        return task if self._tasks.is_on_stack(task, node) else None

    def lock(self, kind: WaitKind, address: int) -> Lock:
        """A lock's state.

        Args:
            kind: one that is a lock, or a completion.
            address: of the lock.

        Raises:
            OrcdbgError: it cannot be read, or this kernel has no such thing.
        """
        known = self._known.get((kind, address))
        if known is None:
            known = self._known[kind, address] = self._read(kind, address)
        return known

    def _read(self, kind: WaitKind, address: int) -> Lock:
        if kind is WaitKind.RT_MUTEX:
            return self._rt_mutex(self.rt_mutex_base(address))
        lock = self._program.object(f"struct {LISTINGS[kind].lock}", address)
        inner = lock.first_of_("rtmutex", "rwbase.rtmutex")
        if inner is not None and kind is not WaitKind.COMPLETION:
            # PREEMPT_RT builds its mutexes and rwsems on rt_mutexes.
            return self._rt_mutex(inner)
        waiters = self._waiters(kind, address)
        if kind is WaitKind.MUTEX:
            return self._mutex(lock, waiters)
        if kind is WaitKind.RWSEM:
            return self._rwsem(lock, waiters)
        if kind is WaitKind.SEMAPHORE:
            return self._semaphore(lock, waiters)
        nobody = LockHolder(None, Certainty.FACT, WaitEvidence(EvidenceKind.NOT_RECORDED, address, None, "completion"))
        return Lock(address, kind, None, int(lock.member_("done")), (nobody,), waiters)

    # Waiters

    def _waiters(self, kind: WaitKind, address: int) -> tuple[ListedWaiter, ...]:
        layout = self.layout(kind)
        if layout is None:
            raise NotFound("list of waiters", f"struct {LISTINGS[kind].lock}")
        return tuple(self._waiter(kind, layout, node) for node in self._nodes(kind, layout, address))

    def _nodes(self, kind: WaitKind, layout: ListLayout, address: int) -> Iterator[int]:
        memory = self._program.memory
        what = f"the waiters of the {kind.value} at {address:#x}"
        if layout.head is not None:
            yield from list_nodes(memory, address + layout.head, self._budget, what)
            return
        assert layout.first is not None
        first = read_u64(memory, address + layout.first & U64)
        if first:
            yield first + layout.link & U64
            yield from list_nodes(memory, first + layout.link & U64, self._budget, what)

    def _waiter(self, kind: WaitKind, layout: ListLayout, node: int) -> ListedWaiter:
        structure = node - layout.link & U64
        mode = self.mode_of(structure) if kind is WaitKind.RWSEM else None
        return ListedWaiter(structure, self.task_at(layout, node), mode)

    def mode_of(self, structure: int) -> Mode | None:
        """Whether an `rwsem_waiter` wants to read or to write; None where it cannot be read or says neither."""
        try:
            number = int(self._program.object("struct rwsem_waiter", structure).member_("type"))
        except OrcdbgError:
            return None
        # RWSEM_WAITING_FOR_WRITE, RWSEM_WAITING_FOR_READ.
        return {0: Mode.WRITE, 1: Mode.READ}.get(number)

    # Holders

    def _named(self, word: Object, number: int, structure: str, kind: EvidenceKind, certainty: Certainty) -> LockHolder:
        """The holder that an owner's word names, its flags aside."""
        address = word.address_ or 0
        task = number & ~_OWNER_FLAGS
        if not task:
            return LockHolder(None, Certainty.FACT, WaitEvidence(EvidenceKind.NO_OWNER, address, number, structure))
        if task not in self._tasks:
            return LockHolder(
                None, Certainty.FACT, WaitEvidence(EvidenceKind.OWNER_UNKNOWN, address, number, structure)
            )
        return LockHolder(task, certainty, WaitEvidence(kind, address, number, structure))

    def _mutex(self, lock: Object, waiters: tuple[ListedWaiter, ...]) -> Lock:
        word = lock.member_("owner.counter")
        number = int(word) & U64
        found = self._named(word, number, "mutex", EvidenceKind.OWNER, Certainty.FACT)
        if number & _MUTEX_PICKUP and found.task in {waiter.task for waiter in waiters}:
            # Handed over: the waiter has it, and leaves the list when it runs.
            evidence = WaitEvidence(EvidenceKind.HANDED_OVER, word.address_ or 0, number, "mutex")
            found = LockHolder(found.task, Certainty.FACT, evidence)
        holders = self._with_held(lock, waiters, found)
        return Lock(lock.address_ or 0, WaitKind.MUTEX, number, None, holders, waiters)

    def _rwsem(self, lock: Object, waiters: tuple[ListedWaiter, ...]) -> Lock:
        word = lock.member_("owner.counter")
        number, count = int(word) & U64, int(lock.member_("count.counter"))
        structure = "rw_semaphore"
        if number & _READER_OWNED:
            found = self._named(word, number, structure, EvidenceKind.LAST_READER, Certainty.HYPOTHESIS)
            if found.task is not None and not count >> _READER_SHIFT:
                evidence = WaitEvidence(EvidenceKind.NOT_LOCKED, word.address_ or 0, number, structure)
                found = LockHolder(None, Certainty.FACT, evidence)
        else:
            found = self._named(word, number, structure, EvidenceKind.OWNER, Certainty.FACT)
            if found.task is not None and not count & _WRITER_LOCKED:
                evidence = WaitEvidence(EvidenceKind.NOT_LOCKED, word.address_ or 0, number, structure)
                found = LockHolder(None, Certainty.FACT, evidence)
        return Lock(lock.address_ or 0, WaitKind.RWSEM, number, count, self._with_held(lock, waiters, found), waiters)

    def _semaphore(self, lock: Object, waiters: tuple[ListedWaiter, ...]) -> Lock:
        address, count = lock.address_ or 0, int(lock.member_("count"))
        # Since 6.16 (194a9b9e843b), where hung tasks' blockers are named. Any task may give a semaphore back.
        word = lock.first_of_("last_holder")
        number = None if word is None else int(word) & U64
        if word is None or number is None or count or not number:
            found = LockHolder(
                None, Certainty.FACT, WaitEvidence(EvidenceKind.NOT_RECORDED, address, None, "semaphore")
            )
        else:
            found = self._named(word, number, "semaphore", EvidenceKind.LAST_HOLDER, Certainty.HYPOTHESIS)
        return Lock(address, WaitKind.SEMAPHORE, number, count, (found,), waiters)

    def rt_mutex_base(self, address: int) -> Object:
        """What an rt_mutex has its waiters in: since 5.15 (830e6acc8a1c) an `rt_mutex_base`, which it begins with."""
        try:
            return self._program.object("struct rt_mutex_base", address)
        except NotFound:
            return self._program.object("struct rt_mutex", address)

    def _rt_mutex(self, lock: Object) -> Lock:
        address, word = lock.address_ or 0, lock.member_("owner")
        number = int(word)
        found = self._named(word, number, "rt_mutex", EvidenceKind.OWNER, Certainty.FACT)
        waiters = []
        # Since 6.5 (f7853c342418) a waiter has two nodes with their own priorities.
        entry = "tree.entry" if self._has("rt_mutex_waiter", "tree.entry") else "tree_entry"
        for waiter in rbtree.entries(lock.member_("waiters"), "rt_mutex_waiter", entry, self._budget):
            place, task = waiter.address_ or 0, int(waiter.member_("task"))
            waiters.append(ListedWaiter(place, task if self._tasks.is_on_stack(task, place) else None, None))
        return Lock(address, WaitKind.RT_MUTEX, number, None, (found,), tuple(waiters))

    def _has(self, type_: str, path: str) -> bool:
        return self._program.object(f"struct {type_}", 0).has_member_(path)

    # What lockdep records

    def _with_held(self, lock: Object, waiters: tuple[ListedWaiter, ...], found: LockHolder) -> tuple[LockHolder, ...]:
        """The holders by the lock's own word and by lockdep's records, where there are any.

        lockdep writes its record when a task begins to take a lock, so those of waiters say nothing. A task that runs may be
        just taking it; one that sleeps elsewhere has it.
        """
        path = "dep_map" if lock.has_member_("dep_map") else None
        if path is None:
            return (found,)
        waiting = {waiter.task for waiter in waiters}
        holders = []
        for task, record in self._held.get(lock.member_(path).address_ or 0, ()):
            if task in waiting:
                continue
            is_asleep = self._tasks.by_address[task].sleep is not None
            certainty = Certainty.FACT if is_asleep or task == found.task else Certainty.HYPOTHESIS
            evidence = WaitEvidence(EvidenceKind.HELD_LOCK, record, lock.address_, "held_lock")
            holders.append(LockHolder(task, certainty, evidence))
        if found.task is None or any(holder.task == found.task for holder in holders):
            return tuple(holders) or (found,)
        # A word that names somebody without a record is a hint where readers share the lock, else the owner.
        return (*holders, found) if found.certainty is Certainty.FACT or not holders else tuple(holders)

    @functools.cached_property
    def _held(self) -> Mapping[int, list[tuple[int, int]]]:
        """By the address of a lock's `lockdep_map` the tasks that lockdep has records of it for, and the records' addresses."""
        program = self._program
        layout = program.object("task_struct", 0)
        if not layout.has_member_("held_locks") or not layout.has_member_("lockdep_depth"):
            return {}
        depth, records = (layout.member_(name).address_ or 0 for name in ("lockdep_depth", "held_locks"))
        size = program.type("struct held_lock").size
        instance = offset_of(program, "struct held_lock", "instance")
        tasks = list(self._tasks.by_address)
        depths = read_memory_pieces(program.memory, [task + depth & U64 for task in tasks], [4] * len(tasks))
        found: dict[int, list[tuple[int, int]]] = {}
        for task, data in zip(tasks, depths, strict=True):
            count = min(int.from_bytes(data or b"", "little"), _MAX_HELD)
            places = [task + records + number * size for number in range(count)]
            words = read_memory_pieces(program.memory, [place + instance & U64 for place in places], [8] * count)
            for place, word in zip(places, words, strict=True):
                found.setdefault(int.from_bytes(word or b"", "little"), []).append((task, place))
        return found

    def waiters_flag(self, kind: WaitKind, address: int) -> bool | None:
        """Whether a lock's word says that there are waiters; None of kinds that do not say, and where it cannot be read."""
        path, flag = {
            WaitKind.MUTEX: ("owner.counter", _MUTEX_WAITERS),
            WaitKind.RWSEM: ("count.counter", _RWSEM_WAITERS),
        }.get(kind, ("", 0))
        if not path:
            return None
        try:
            return bool(int(self._program.object(f"struct {LISTINGS[kind].lock}", address).member_(path)) & flag)
        except OrcdbgError:
            return None

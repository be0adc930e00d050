"""Which return addresses did kretprobes take off a task's stack?

Mirrors kernel/kprobes.c and kernel/trace/rethook.c. Since 5.11 each task has a list of its own, before there was one hash
table of all instances.
"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.base.errors import Corrupt, MemoryFault, NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.ret_stack import ReplacedReturn, Tracer

_BUCKETS = 64  # KPROBE_TABLE_SIZE
# A task's lists, newest first: since 5.18 (54ecbe6f1ed5) that of rethook, which kretprobes use; since 5.11 (d741bf41d7c7)
# their own, empty where they use rethook.
_LISTS = (("rethooks", "rethook_node", "frame"), ("kretprobe_instances", "kretprobe_instance", "fp"))
# Instances of one task, or of all that share the hash table. A call chain of 16 KiB has no room for 2^11 probed calls; of
# the table, 2^12 are 64 CPUs' with 64 each. Every task of a hostile snapshot may have a list that is as long.
MAX_INSTANCES = 1 << 12


def kretprobe_returns(linux: Linux, task: int) -> list[ReplacedReturn]:
    """The return addresses that kretprobes keep for a task, the innermost of each slot first.

    Half a list is worth nothing: the entry that is missing may be the one for the slot asked about.

    Raises:
        Corrupt: a list runs in a circle, or is longer than any can be.
        MemoryFault: an instance is not in the snapshot.
    """
    budget = Budget(MAX_INSTANCES)
    found = list(_returns(linux, task, budget))
    if not budget.is_whole:
        raise Corrupt("; ".join(budget.lines()))
    return found


def _returns(linux: Linux, task: int, budget: Budget) -> Iterator[ReplacedReturn]:
    types = linux.types
    lists = [(head, struct, slot) for head, struct, slot in _LISTS if types.has("task_struct", head)]
    for head, struct, slot in lists:
        yield from _of_task(linux, task, head, struct, slot, budget)
    if lists:
        return

    table = linux.find_address("kretprobe_inst_table")
    if table is None or not types.has("kretprobe_instance", "hlist"):
        return
    seen: set[int] = set()
    for number in range(_BUCKETS):
        yield from _of_bucket(linux, table + 8 * number, task, budget, seen)


def _of_task(linux: Linux, task: int, head: str, struct: str, slot: str, budget: Budget) -> Iterator[ReplacedReturn]:
    """A task's llist, to which the newest instance is added in front."""
    if not linux.types.has(struct, slot):
        return
    first = linux.member("task_struct", head, task)
    offset = linux.types.offset(struct, "llist")
    for node in linux.chain(first, budget, f"the list of {struct} of task {task:#x}"):
        record = node - offset
        address, place = linux.member(struct, "ret_addr", record), linux.member(struct, slot, record)
        owner = _owner(linux, struct, record)
        yield ReplacedReturn(address, place, record, owner=owner, callee=_probed(linux, struct, record, owner))


def _owner(linux: Linux, struct: str, record: int) -> Tracer | None:
    """Whose a node of rethook is, which fprobes use too in some versions: a kretprobe's is told by the handler.

    One that was taken away meanwhile has no handler any more (rethook_free), and counts as rethook's.
    """
    if not linux.types.has(struct, "rethook") or not linux.types.has("rethook", "handler"):
        return None
    handler = linux.find_address("kretprobe_rethook_handler")
    try:
        found = linux.member("rethook", "handler", linux.member(struct, "rethook", record))
    except MemoryFault:
        return None
    return Tracer.KRETPROBE if found and found == handler else None


def _probed(linux: Linux, struct: str, record: int, owner: Tracer | None) -> int | None:
    """Where the probe is, in the function that was to return; None where the record does not lead there.

    The instance points to its kretprobe, since 5.11 (d741bf41d7c7) through a holder; a node of rethook to what its user gave,
    which is the kretprobe where that is the user.
    """
    types = linux.types
    try:
        if struct == "rethook_node":
            probe = linux.member("rethook", "data", linux.member(struct, "rethook", record)) if owner else None
        elif types.has(struct, "rph"):
            probe = linux.member("kretprobe_holder", "rp", linux.member(struct, "rph", record))
        else:
            probe = linux.member(struct, "rp", record) if types.has(struct, "rp") else None
        return linux.member("kprobe", "addr", probe + types.offset("kretprobe", "kp")) or None if probe else None
    except (MemoryFault, NotFound):
        return None


def _of_bucket(linux: Linux, head: int, task: int, budget: Budget, seen: set[int]) -> Iterator[ReplacedReturn]:
    """One chain of the hash table: instances of all tasks whose address hashes there."""
    first = read_u64(linux.memory, head)
    offset = linux.types.offset("kretprobe_instance", "hlist")
    for node in linux.chain(first, budget, f"the list of kretprobe instances at {head:#x}", seen=seen):
        record = node - offset
        if linux.member("kretprobe_instance", "task", record) == task:
            address = linux.member("kretprobe_instance", "ret_addr", record)
            slot = linux.member("kretprobe_instance", "fp", record)
            callee = _probed(linux, "kretprobe_instance", record, None)
            yield ReplacedReturn(address, slot, record, callee=callee)

"""How are waits, holders and what speaks for them said?"""

from __future__ import annotations

from collections.abc import Mapping

from orcdbg.base.certainty import Certainty
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.waits.locks import LockHolder
from orcdbg.subsystems.waits.model import Edge, EvidenceKind, WaitEvidence, WaitKind
from orcdbg.views.records import record
from orcdbg.views.view import Json, hexadecimal

_KINDS: Mapping[WaitKind, str] = {
    WaitKind.RT_MUTEX: "rt_mutex",
    WaitKind.KTHREAD_STOP: "the end of a kernel thread, by the completion at",
    WaitKind.VFORK: "exec or exit of a child, by the completion at",
    WaitKind.FLUSH_WORK: "work",
    WaitKind.RCU: "an RCU grace period, by the rcu_synchronize at",
    WaitKind.WAIT_QUEUE: "wait queue",
    WaitKind.PERCPU_RWSEM: "percpu_rw_semaphore",
    WaitKind.FOLIO_LOCK: "the lock of folio",
    WaitKind.WRITEBACK: "writeback of folio",
    WaitKind.FOLIO_BIT: "a bit of folio",
    WaitKind.BIT: "a bit of the word at",
    WaitKind.VARIABLE: "the variable at",
}

_EVIDENCE: Mapping[EvidenceKind, str] = {
    EvidenceKind.LISTED: "its {structure} {address:x} leads to {value:x}, and the list leads back to it",
    EvidenceKind.LIST_BROKEN: "its {structure} {address:x} is on a list that breaks; the only head met on it is in {value:x}",
    EvidenceKind.NO_HEAD: "its {structure} {address:x} is linked, but nothing says which one object has that list",
    EvidenceKind.NAMED_BY_TASK: "its task_struct names {value:x} at {address:x}",
    EvidenceKind.DOUBTFUL_STACK: "the stack at {address:x} is in doubt, and so is which function waits",
    EvidenceKind.NO_WAITERS_FLAG: "the {structure} at {address:x} does not say that it has waiters, though one is on its list",
    EvidenceKind.OWNER: "{structure} owner at {address:x} is {value:x}",
    EvidenceKind.OWNER_UNKNOWN: "{structure} owner at {address:x} is {value:x}, which is no task of the task list",
    EvidenceKind.NO_OWNER: "{structure} owner at {address:x} is {value:x}: nobody",
    EvidenceKind.HANDED_OVER: "{structure} owner at {address:x} is {value:x}: handed to a waiter that has not run since",
    EvidenceKind.LAST_READER: "{structure} owner at {address:x} is {value:x}: the last reader to come, which may have left; "
    "`bt` of it would show whether it is inside",
    EvidenceKind.LAST_HOLDER: "{structure} last_holder at {address:x} is {value:x}: the last task to take it, "
    "which may have given it back",
    EvidenceKind.NOT_LOCKED: "{structure} owner at {address:x} is {value:x}, but the count says that nobody has it so",
    EvidenceKind.HELD_LOCK: "lockdep's held_lock {address:x} is of the lock at {value:x}",
    EvidenceKind.NOT_RECORDED: "a {structure} does not record who is to end the wait",
    EvidenceKind.VFORK_DONE: "vfork_done of the other at {address:x} is {value:x}: it completes that when it ends or runs a "
    "program",
    EvidenceKind.BARRIER: "its wq_barrier {address:x} is next on the list of worker {value:x}",
    EvidenceKind.PENDING: "its wq_barrier {address:x} is behind work that no worker of pool {value:x} has begun",
}


def kind_text(kind: WaitKind) -> str:
    """What is waited for, before its address."""
    return _KINDS.get(kind, kind.value)


def evidence_text(evidence: WaitEvidence) -> str:
    """A piece of evidence as a clause."""
    return _EVIDENCE[evidence.kind].format(
        address=evidence.address, value=evidence.value or 0, structure=evidence.structure or "structure"
    )


def evidence_command(evidence: WaitEvidence) -> str | None:
    """The command that shows it; None where a word says it all."""
    if evidence.structure is None:
        return f"rd {evidence.address:x}"
    if evidence.kind in _OF_STRUCTURE:
        return f"struct {evidence.structure} {evidence.address:x}"
    return f"rd {evidence.address:x}"


_OF_STRUCTURE = (
    EvidenceKind.LISTED,
    EvidenceKind.LIST_BROKEN,
    EvidenceKind.NO_HEAD,
    EvidenceKind.NO_WAITERS_FLAG,
    EvidenceKind.HELD_LOCK,
    EvidenceKind.NOT_RECORDED,
    EvidenceKind.BARRIER,
    EvidenceKind.PENDING,
)


def task_text(address: int, tasks: Mapping[int, Task]) -> str:
    """A task in a sentence: `PID 94 "init"`."""
    task = tasks.get(address)
    return f"task {address:x}" if task is None else f'PID {task.pid} "{task.comm}"'


def object_text(kind: WaitKind, address: int | None, bit: int | None, symbols: Mapping[int, str]) -> str:
    """What is waited for, with its name where it has one."""
    if address is None:
        return f"{kind_text(kind)}, which one is not known"
    name = f" {symbols[address]}" if address in symbols else ""
    number = f", bit {bit}" if bit is not None and kind in (WaitKind.BIT, WaitKind.FOLIO_BIT) else ""
    return f"{kind_text(kind)} {address:016x}{name}{number}"


def certainty_text(certainty: Certainty) -> str:
    """How sure it is, as `analyze` writes it."""
    return certainty.name


def task_reference(address: int | None, tasks: Mapping[int, Task]) -> Json | None:
    """A task as JSON names it; None for none."""
    if address is None:
        return None
    task = tasks.get(address)
    return {
        "task": hexadecimal(address),
        "pid": None if task is None else task.pid,
        "comm": None if task is None else task.comm,
        "state": None if task is None else task.state,
    }


def evidence_json(evidence: WaitEvidence) -> Json:
    """A piece of evidence, with its words and the command that shows it."""
    return record(evidence, ("address", "value"), text=evidence_text(evidence), command=evidence_command(evidence))


def holder_json(holder: LockHolder, tasks: Mapping[int, Task]) -> Json:
    """A holder, or why none is known."""
    return {
        "holder": task_reference(holder.task, tasks),
        "certainty": holder.certainty.value,
        "evidence": evidence_json(holder.evidence),
    }


def edge_json(edge: Edge, tasks: Mapping[int, Task], symbols: Mapping[int, str]) -> Json:
    """An edge."""
    return record(
        edge,
        ("object",),
        waiter=task_reference(edge.waiter, tasks),
        holder=task_reference(edge.holder, tasks),
        symbol=symbols.get(edge.object or 0),
        evidence=[evidence_json(each) for each in edge.evidence],
    )

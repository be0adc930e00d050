"""What is one statement of an analysis: what it says, how sure it is, what shows it?"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orcdbg.base.certainty import Certainty


class FindingKind(enum.Enum):
    """What a statement says; the values are the JSON contract's words. The words for people are the views'."""

    # What it died of.
    NO_DEATH = "no-death"
    NULL_POINTER = "null-pointer"
    WILD_POINTER = "wild-pointer"
    NON_CANONICAL = "non-canonical-address"
    GENERAL_PROTECTION = "general-protection"
    BAD_CALL = "call-through-bad-pointer"
    USE_AFTER_FREE = "use-after-free"
    DOUBLE_FREE = "double-free"
    OVERRUN = "overrun"
    LIST_CORRUPTION = "list-corruption"
    BUG = "bug"
    WARNING = "warning"
    REFCOUNT = "refcount"
    STACK_OVERFLOW = "stack-overflow"
    STACK_SMASHED = "stack-smashed"
    DOUBLE_FAULT = "double-fault"
    SOFT_LOCKUP = "soft-lockup"
    HARD_LOCKUP = "hard-lockup"
    HUNG_TASK = "hung-task"
    DEADLOCK = "deadlock"
    RCU_STALL = "rcu-stall"
    OUT_OF_MEMORY = "out-of-memory"
    DIVIDE_ERROR = "divide-error"
    INVALID_OPCODE = "invalid-opcode"
    CHANGED_TEXT = "changed-text"
    MACHINE_CHECK = "machine-check"
    NMI_PANIC = "nmi-panic"
    SYSRQ = "sysrq"
    INIT_KILLED = "init-killed"
    PANIC_CALLED = "panic-called"
    OOPS_IN_LOG = "oops-in-log"

    # What the head says.
    MESSAGE = "message"
    ANNOUNCED = "announced"
    PANICKED = "panicked"
    UPTIME = "uptime"
    LOAD = "load"
    TAINT = "taint"
    COMMAND_LINE = "command-line"
    CPUS_PRESENT = "cpus-present"
    CONTEXT = "context"
    EXCEPTION = "exception"
    INSTRUCTION = "instruction"
    OPERAND = "operand"
    LOADED_FROM = "loaded-from"
    LOADED_SINCE_CHANGED = "loaded-from-since-changed"
    TYPED = "typed"
    POINTER_NULL = "pointer-null"
    POINTER_ERROR = "pointer-error"
    POINTER_POISON = "pointer-poison"
    POINTER_CHARACTERS = "pointer-characters"
    POINTER_NON_CANONICAL = "pointer-non-canonical"
    POINTER_USER = "pointer-user"
    POINTER_UNMAPPED = "pointer-unmapped"
    POINTER_SLAB_FREE = "pointer-slab-free"
    POINTER_SLAB_ALLOCATED = "pointer-slab-allocated"
    POINTER_SLAB_UNKNOWN = "pointer-slab-unknown"
    POINTER_SYMBOL = "pointer-symbol"
    POINTER_STACK = "pointer-stack"
    POINTER_MAPPED = "pointer-mapped"
    TEXT_INTACT = "text-intact"
    TEXT_CHANGED = "text-changed"
    TEXT_NOT_AUDITED = "text-not-audited"
    FRAME = "frame"
    MODULE_TAINT = "module-taint"
    CPU = "cpu"
    BLOCKED = "blocked"
    WAITS_FOR = "waits-for"
    WAIT_CYCLE = "wait-cycle"
    MEMORY = "memory"
    PLANTED = "planted"
    LOG_PROBLEM = "log-problem"
    LOST = "lost"

    # Details of a death.
    CALL_REGISTER = "call-register"
    DIVISOR = "divisor"
    DIVISOR_REGISTER = "divisor-register"
    WAITS_AT = "waits-at"
    LIST_NODE = "list-node"
    CANARY = "canary"
    RECURSION = "recursion"
    STACK_ROOM = "stack-room"
    ASCII_POINTER = "ascii-pointer"


CAUSES: Sequence[FindingKind] = (
    FindingKind.CHANGED_TEXT,
    FindingKind.USE_AFTER_FREE,
    FindingKind.DOUBLE_FREE,
    FindingKind.LIST_CORRUPTION,
    FindingKind.REFCOUNT,
    FindingKind.STACK_OVERFLOW,
    FindingKind.STACK_SMASHED,
    FindingKind.DOUBLE_FAULT,
    FindingKind.BAD_CALL,
    FindingKind.NULL_POINTER,
    FindingKind.NON_CANONICAL,
    FindingKind.WILD_POINTER,
    FindingKind.GENERAL_PROTECTION,
    FindingKind.DIVIDE_ERROR,
    FindingKind.BUG,
    FindingKind.WARNING,
    FindingKind.INVALID_OPCODE,
    FindingKind.SOFT_LOCKUP,
    FindingKind.HARD_LOCKUP,
    FindingKind.RCU_STALL,
    FindingKind.DEADLOCK,
    FindingKind.HUNG_TASK,
    FindingKind.OUT_OF_MEMORY,
    FindingKind.MACHINE_CHECK,
    FindingKind.NMI_PANIC,
    FindingKind.SYSRQ,
    FindingKind.INIT_KILLED,
    FindingKind.PANIC_CALLED,
    FindingKind.OOPS_IN_LOG,
)
"""What an analysis may name as what the kernel died of; of several found the first counts, which says most."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """Something that shows a statement to be so.

    Attributes:
        text: what memory, the log or a frame holds, quoted: it may hold anything.
        command: what shows it to the user.
    """

    text: str
    command: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement.

    Attributes:
        kind: what it says.
        certainty: how sure it is.
        values: what it is said of, by the names in the words of the view.
        evidence: what shows it.
        addresses: where to look on.
    """

    kind: FindingKind
    certainty: Certainty
    values: Mapping[str, str | int] = field(default_factory=dict)
    evidence: Sequence[Exhibit] = ()
    addresses: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Untold:
    """What could not be told, and why.

    Attributes:
        what: a detector's name, or a point's of the head.
        why: the error's words.
    """

    what: str
    why: str


def fact(kind: FindingKind, *evidence: Exhibit, addresses: Sequence[int] = (), **values: str | int) -> Finding:
    """A statement that was read."""
    return Finding(kind, Certainty.FACT, values, evidence, addresses)


def derived(kind: FindingKind, *evidence: Exhibit, addresses: Sequence[int] = (), **values: str | int) -> Finding:
    """A statement that follows by a rule."""
    return Finding(kind, Certainty.DERIVED, values, evidence, addresses)


def hypothesis(kind: FindingKind, *evidence: Exhibit, addresses: Sequence[int] = (), **values: str | int) -> Finding:
    """A statement that may be."""
    return Finding(kind, Certainty.HYPOTHESIS, values, evidence, addresses)

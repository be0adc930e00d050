"""Which signals does a task wait for, block, handle, and which are pending?

Mirrors include/linux/sched/signal.h, include/linux/signal_types.h, fs/proc/array.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.subsystems.containers import lists
from orcdbg.typed.objects import Object

MAX_QUEUED = 1 << 18
SIGNALS = 64
SIG_DFL, SIG_IGN = 0, 1

_NAMES = (
    *(
        "HUP",
        "INT",
        "QUIT",
        "ILL",
        "TRAP",
        "ABRT",
        "BUS",
        "FPE",
        "KILL",
        "USR1",
        "SEGV",
        "USR2",
        "PIPE",
        "ALRM",
        "TERM",
    ),
    *("STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO"),
    *("PWR", "SYS"),
)
_FIRST_REAL_TIME = 32


def signal_name(number: int) -> str:
    """`SIGHUP` for 1; real-time signals by their distance from the first."""
    if 0 < number <= len(_NAMES):
        return f"SIG{_NAMES[number - 1]}"
    return f"SIGRTMIN+{number - _FIRST_REAL_TIME}" if number > _FIRST_REAL_TIME else "SIGRTMIN"


@dataclass(frozen=True, slots=True)
class Handling:
    """What happens at a signal: `handler` the user address, 0 the default and 1 for ignored; `mask` blocks others meanwhile."""

    number: int
    handler: int
    mask: int
    flags: int


@dataclass(frozen=True, slots=True)
class QueuedSignal:
    """A signal that waits, with what was sent along: si_code, and the sender's pid where it has one."""

    number: int
    code: int
    address: int


@dataclass(frozen=True, slots=True)
class Signals:
    """A task's signals; masks have bit 0 for signal 1.

    Attributes:
        signal_struct: its address.
        threads: of the process; None where it is not told.
        handling: each signal's, 1 to 64.
        blocked: mask of the task.
        pending: mask of those for the task alone.
        shared_pending: mask of those for the whole process.
        queued: those for the task, with their data.
        shared_queued: those for the process.
    """

    signal_struct: int
    threads: int | None
    handling: list[Handling]
    blocked: int
    pending: int
    shared_pending: int
    queued: list[QueuedSignal]
    shared_queued: list[QueuedSignal]


def signals_of(task: Object, budget: Budget) -> Signals:
    """The signals of a task.

    Args:
        task: its `task_struct`.
        budget: what the walk draws on, and where problems go.

    Raises:
        MemoryFault: its own structures cannot be read; queued ones that cannot are the budget's.
    """
    shared, handlers = task.member_("signal"), task.member_("sighand")
    threads = shared.first_of_("nr_threads") if int(shared) else None
    return Signals(
        int(shared),
        None if threads is None else int(threads),
        # A task that ended has given its handlers back.
        _handling(handlers) if int(handlers) else [],
        _mask(task.member_("blocked")),
        _mask(task.member_("pending.signal")),
        _mask(shared.member_("shared_pending.signal")) if int(shared) else 0,
        _queue(task.member_("pending.list"), budget),
        _queue(shared.member_("shared_pending.list"), budget) if int(shared) else [],
    )


def _mask(signals: Object) -> int:
    """A `sigset_t`, one word on x86-64."""
    return int(signals.member_("sig")[0])


def _handling(handlers: Object) -> list[Handling]:
    actions = handlers.member_("action")
    return [
        Handling(
            number,
            int(action.member_("sa.sa_handler")),
            _mask(action.member_("sa.sa_mask")),
            int(action.member_("sa.sa_flags")),
        )
        for number, action in enumerate((actions[index] for index in range(SIGNALS)), 1)
    ]


def _queue(head: Object, budget: Budget) -> list[QueuedSignal]:
    found = []
    for queued in lists.entries(head, "sigqueue", "list", budget):
        try:
            info = queued.member_("info")
            found.append(
                QueuedSignal(int(info.member_("si_signo")), int(info.member_("si_code")), queued.address_ or 0)
            )
        except OrcdbgError as error:
            budget.note_error("a queued signal", queued.address_ or 0, error)
    return found

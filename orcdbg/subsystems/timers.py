"""Which timers run on each CPU, and when are they due?

Mirrors kernel/time/timer.c, kernel/time/hrtimer.c, kernel/time/timer_list.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.tasks import started_cpus
from orcdbg.subsystems.containers import lists, rbtree
from orcdbg.subsystems.kernel_variables import bits_of, per_cpu_variable, variable
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program
from orcdbg.typed.types import ArrayType

MAX_TIMERS = 1 << 20
# More wheels and clocks than any kernel has.
_MOST_BASES = 16
# clockid_t (include/uapi/linux/time.h).
_CLOCKS = {0: "REALTIME", 1: "MONOTONIC", 7: "BOOTTIME", 11: "TAI"}


@dataclass(frozen=True, slots=True)
class WheelTimer:
    """A timer of a timer wheel: due at `expires` in jiffies; `function` is an address."""

    cpu: int
    base: int
    address: int
    expires: int
    function: int


@dataclass(frozen=True, slots=True)
class HighResolutionTimer:
    """An hrtimer: due at `expires` in nanoseconds of its `clock`, at the earliest at `soft_expires`."""

    cpu: int
    clock: str
    is_soft: bool
    address: int
    expires: int
    soft_expires: int
    function: int


def jiffies(program: Program) -> int:
    """The kernel's time in ticks, as it stood last."""
    return int(variable(program, "jiffies_64", "unsigned long"))


def wheel_timers(program: Program, budget: Budget) -> list[WheelTimer]:
    """The timers of all CPUs' timer wheels, by when they are due."""
    found: list[WheelTimer] = []
    for cpu in started_cpus(program.linux):
        try:
            found += _of_cpu(program, cpu, budget)
        except OrcdbgError as error:
            budget.note_error(f"the timers of CPU {cpu}", 0, error)
    return sorted(found, key=lambda timer: (timer.cpu, timer.expires))


def _of_cpu(program: Program, cpu: int, budget: Budget) -> Iterator[WheelTimer]:
    first = per_cpu_variable(program, "timer_bases", "struct timer_base", cpu)
    size = program.type("timer_base").size
    for number in range(_wheel_count(program)):
        base = program.object("timer_base", (first.address_ or 0) + number * size)
        vectors = base.member_("vectors")
        buckets = min(len(vectors), 8 * base.member_("pending_map").size_)
        seen: set[int] = set()
        for bucket in bits_of(base.member_("pending_map"), buckets):
            head = vectors[bucket].member_("first")
            for timer in lists.chained(int(head), program, "timer_list", "entry", budget, seen, head.address_):
                try:
                    yield WheelTimer(
                        cpu,
                        number,
                        timer.address_ or 0,
                        int(timer.member_("expires")),
                        int(timer.member_("function")),
                    )
                except OrcdbgError as error:
                    budget.note_error("a timer", timer.address_ or 0, error)


def _wheel_count(program: Program) -> int:
    """Wheels of a CPU: one, or with NO_HZ two, of which one is for timers that can wait; since 6.9 (73129cf4b69c) three."""
    known = program.catalog.variable("timer_bases")
    if isinstance(known, ArrayType) and known.length:
        return min(known.length, _MOST_BASES)
    # 5.10's BTF describes no variables; its symbol is as large as the array.
    symbol = program.linux.symbols.find("timer_bases")
    size = program.type("timer_base").size
    return max(1, min(symbol.size // size, _MOST_BASES)) if symbol is not None and symbol.size and size else 1


def high_resolution_timers(program: Program, budget: Budget) -> list[HighResolutionTimer]:
    """The hrtimers of all CPUs, by clock and when they are due."""
    found: list[HighResolutionTimer] = []
    for cpu in started_cpus(program.linux):
        try:
            bases = per_cpu_variable(program, "hrtimer_bases", "struct hrtimer_cpu_base", cpu).member_("clock_base")
            count = min(len(bases), _MOST_BASES)
            for number in range(count):
                found += _of_clock(cpu, bases[number], number >= count // 2, budget)
        except OrcdbgError as error:
            budget.note_error(f"the hrtimers of CPU {cpu}", 0, error)
    return found


def _of_clock(cpu: int, base: Object, is_soft: bool, budget: Budget) -> Iterator[HighResolutionTimer]:
    clock = _CLOCKS.get(int(base.member_("clockid")), "?")
    active = base.member_("active")
    # Before 5.4 (511885d7061e) the head had a plain root.
    root = active.first_of_("rb_root", "head")
    if root is None:
        return
    path = "node.node.node" if _is_linked(base.program_) else "node.node"
    for timer in rbtree.entries(root, "hrtimer", path, budget):
        try:
            function = timer.first_of_("function", "_function")
            yield HighResolutionTimer(
                cpu,
                clock,
                is_soft,
                timer.address_ or 0,
                int(timer.member_("node.expires")),
                int(timer.member_("_softexpires")),
                0 if function is None else int(function),
            )
        except OrcdbgError as error:
            budget.note_error("an hrtimer", timer.address_ or 0, error)


def _is_linked(program: Program) -> bool:
    """Whether the nodes of a queue of timers are chained besides (7.1)."""
    return program.object("hrtimer", 0).member_("node").has_member_("node.node")


def until(timer: WheelTimer, now: int) -> int:
    """Ticks until a timer is due; negative where it is late."""
    ticks = timer.expires - now & U64
    return ticks - (1 << 64) if ticks >> 63 else ticks

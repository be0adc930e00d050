"""How did the CPU that panicked come to panic(), and what was interrupted there?

The crashing stack, innermost first, is: what panic() does in the end, panic() itself, the kernel's own handling of the fault or
the lockup (the *route*), the registers that an exception or interrupt saved, and then what the machine was about (the *way*).
Without an exception, the route ends at the first function that is none of the kernel's handling.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.unwind.frame import Frame, FrameKind, StackTrace

_PARTS = re.compile(r"\.(?:cold|isra|constprop|part|llvm|lto_priv)(?:\.\d+)*(?=\.|$)")

PANIC = frozenset(("panic", "vpanic", "nmi_panic"))


class Route(enum.Enum):
    """What made the kernel panic, by a function on the crashing stack; the values name them to people."""

    SYSRQ = "sysrq"
    STACK_PROTECTOR = "the stack protector"
    SOFT_LOCKUP = "the soft lockup detector"
    HARD_LOCKUP = "the hard lockup detector"
    HUNG_TASK = "the hung task detector"
    RCU_STALL = "the RCU stall detector"
    OUT_OF_MEMORY = "the OOM killer"
    WARNING = "a warning"
    MACHINE_CHECK = "a machine check"
    STACK_OVERFLOW = "a stack's guard page"
    DOUBLE_FAULT = "a double fault"
    NMI = "an NMI"
    OOPS = "an oops"
    INIT_KILLED = "the end of init"
    CALL = "a call of panic()"


# Functions that only such a panic has on its stack; the first that is there counts. Names of 5.10 to 7.2.
_ROUTES: Sequence[tuple[Route, frozenset[str]]] = (
    (Route.SYSRQ, frozenset(("sysrq_handle_crash",))),
    (Route.STACK_PROTECTOR, frozenset(("__stack_chk_fail",))),
    (Route.SOFT_LOCKUP, frozenset(("watchdog_timer_fn",))),
    (Route.HARD_LOCKUP, frozenset(("watchdog_overflow_callback", "watchdog_hardlockup_check"))),
    (
        Route.RCU_STALL,
        frozenset(("panic_on_rcu_stall", "rcu_sched_clock_irq", "check_cpu_stall", "print_other_cpu_stall")),
    ),
    (Route.HUNG_TASK, frozenset(("watchdog", "check_hung_uninterruptible_tasks", "check_hung_task"))),
    (Route.OUT_OF_MEMORY, frozenset(("out_of_memory", "pagefault_out_of_memory"))),
    (Route.MACHINE_CHECK, frozenset(("mce_panic", "do_machine_check"))),
    (Route.STACK_OVERFLOW, frozenset(("handle_stack_overflow",))),
    (Route.WARNING, frozenset(("__warn", "check_panic_on_warn"))),
    (Route.DOUBLE_FAULT, frozenset(("exc_double_fault",))),
    (Route.OOPS, frozenset(("oops_end", "die", "die_addr", "make_task_dead", "rewind_stack_and_make_dead"))),
    (Route.NMI, frozenset(("unknown_nmi_error", "pci_serr_error", "io_check_error", "default_do_nmi"))),
    (Route.INIT_KILLED, frozenset(("do_exit", "do_group_exit"))),
)

# The kernel's own handling of what is wrong: not what the machine was about. Beside those above.
HANDLING = frozenset(
    (
        *(
            "delay_tsc",
            "__delay",
            "__const_udelay",
            "panic_smp_self_stop",
            "warn_slowpath_fmt",
            "__warn_printk",
            "report_bug",
        ),
        *(
            "__report_bug",
            "handle_bug",
            "refcount_warn_saturate",
            "rcu_check_callbacks",
            "sysrq_handle_crash",
            "__handle_sysrq",
        ),
        *(
            "write_sysrq_trigger",
            "dump_header",
            "__list_add_valid",
            "__list_add_valid_or_report",
            "__list_del_entry_valid",
        ),
        *("__list_del_entry_valid_or_report", "__list_del_entry", "__stack_chk_fail", "kthread", "ret_from_fork"),
        *(
            "ret_from_fork_asm",
            "refcount_dec_and_test",
            "fortify_panic",
            "__fortify_panic",
            "__ubsan_handle_out_of_bounds",
        ),
        *(
            "usercopy_abort",
            "__check_object_size",
            "kasan_report",
            "die",
            "bust_spinlocks",
            "crash_kexec",
            "__crash_kexec",
        ),
        *(name for _, names in _ROUTES for name in names),
        *PANIC,
    )
)


class Vector(enum.Enum):
    """An exception or interrupt of x86, by its entry's name in arch/x86/include/asm/idtentry.h; the values are the names."""

    DIVIDE_ERROR = "asm_exc_divide_error"
    INVALID_OPCODE = "asm_exc_invalid_op"
    GENERAL_PROTECTION = "asm_exc_general_protection"
    PAGE_FAULT = "asm_exc_page_fault"
    DOUBLE_FAULT = "asm_exc_double_fault"
    STACK_SEGMENT = "asm_exc_stack_segment"
    ALIGNMENT_CHECK = "asm_exc_alignment_check"
    MACHINE_CHECK = "asm_exc_machine_check"
    BREAKPOINT = "asm_exc_int3"
    DEBUG = "asm_exc_debug"
    NMI = "asm_exc_nmi"
    TIMER = "asm_sysvec_apic_timer_interrupt"
    CONTROL_PROTECTION = "asm_exc_control_protection"


_ENTRIES: Mapping[str, Vector] = {one.value: one for one in Vector}
_ENTRIES_OF_LONGER_NAMES: Mapping[str, Vector] = {
    "asm_exc_invalid_op": Vector.INVALID_OPCODE,
    "asm_common_interrupt": Vector.TIMER,
    "exc_nmi": Vector.NMI,
    "end_repeat_nmi": Vector.NMI,
}


def plain_name(symbol: str) -> str:
    """A function's name without what a compiler puts behind it for a part or a copy of the function."""
    return _PARTS.sub("", symbol)


@dataclass(frozen=True, slots=True)
class CrashException:
    """What an exception interrupted.

    Attributes:
        exception: which; None where the entry is no exception's that is known here.
        entry: the symbol of its entry.
        frame: the interrupted frame, whose registers the exception saved.
        registers: those, by name.
        error_code: what the CPU pushed; None where this exception has none.
        place: the frame's number in the trace.
    """

    exception: Vector | None
    entry: str
    frame: Frame
    registers: Mapping[str, int]
    error_code: int | None
    place: int

    @property
    def ip(self) -> int:
        """The instruction that faulted, or was interrupted."""
        return self.frame.ip


# Those for which the CPU pushes one; orig_ax holds it (arch/x86/entry/entry_64.S).
_WITH_CODE = (
    *(Vector.PAGE_FAULT, Vector.GENERAL_PROTECTION, Vector.DOUBLE_FAULT),
    *(Vector.STACK_SEGMENT, Vector.ALIGNMENT_CHECK, Vector.CONTROL_PROTECTION),
)


@dataclass(frozen=True, slots=True)
class CrashSite:
    """The crashing stack, taken apart.

    Attributes:
        trace: the stack.
        route: what made the kernel panic.
        route_names: plain names of the functions between panic() and the way, innermost first.
        fault: what an exception or interrupt interrupted on the way to panic(); None where panic() was simply called.
        way: what the machine was about, innermost first: from the fault's frame on, or from the first frame that is none of
            the kernel's handling. May hold doubtful frames.
        first: number in the trace of the first frame of the way.
    """

    trace: StackTrace
    route: Route
    route_names: Sequence[str]
    fault: CrashException | None
    way: Sequence[Frame]
    first: int


def name_of(frame: Frame) -> str | None:
    """A frame's function, as `plain_name`."""
    return None if frame.location is None else plain_name(frame.location.symbol)


def take_apart(trace: StackTrace) -> CrashSite | None:
    """The crashing stack's parts; None where panic() is not on it."""
    frames = [frame for frame in trace.frames if frame.kind is not FrameKind.USER]
    names = [name_of(frame) for frame in frames]
    begin = _outermost_of_panic(names)
    if begin is None:
        return None

    place = begin + 1
    while place < len(frames) and frames[place].kind is FrameKind.CALL and names[place] in HANDLING:
        place += 1
    interrupted = next(
        (number for number in range(begin + 1, len(frames)) if frames[number].kind is FrameKind.INTERRUPT), None
    )

    if interrupted is not None and _led_to_panic(names, begin, place, interrupted):
        fault, first = _fault(frames, names, interrupted), interrupted
    else:
        fault, first = None, place
    inner = _known(names[begin + 1 : first])
    return CrashSite(trace, _route_of(inner), inner, fault, frames[first:], first)


def _outermost_of_panic(names: Sequence[str | None]) -> int | None:
    """The number of the outermost of panic()'s own frames that stand together; None without any."""
    begin = next((number for number, name in enumerate(names) if name in PANIC), None)
    # An interrupt may have come while panic() waited: that lies inside.
    while begin is not None and begin + 1 < len(names) and names[begin + 1] in PANIC:
        begin += 1
    return begin


# Whoever called panic() so in a softirq or an interrupt: what that interrupted has nothing to do with it.
_CALLED_ANYWHERE = (Route.CALL, Route.SYSRQ, Route.OUT_OF_MEMORY, Route.INIT_KILLED, Route.STACK_PROTECTOR)


def _led_to_panic(names: Sequence[str | None], begin: int, place: int, interrupted: int) -> bool:
    """Whether it is the handling of an exception or interrupt that called panic().

    Args:
        names: of all frames.
        begin: the number of panic()'s outermost frame.
        place: of the first frame behind it that is none of the kernel's handling.
        interrupted: of the first interrupted frame behind it.
    """
    if place < interrupted and not _is_entry_near(names[place:interrupted]):
        return False
    return _route_of(_known(names[begin + 1 : interrupted])) not in _CALLED_ANYWHERE


def _known(names: Sequence[str | None]) -> list[str]:
    return [name for name in names if name]


def _is_entry_near(names: Sequence[str | None]) -> bool:
    """Whether the frames up to an interrupted one are those of an exception's handling, however it is named."""
    return bool(names) and names[-1] is not None


def _route_of(names: Sequence[str]) -> Route:
    known = set(names)
    return next((route for route, wanted in _ROUTES if known & wanted), Route.CALL)


def _fault(frames: Sequence[Frame], names: Sequence[str | None], place: int) -> CrashException:
    entry = names[place - 1] or ""
    exception = _ENTRIES.get(entry) or _ENTRIES_OF_LONGER_NAMES.get(entry)
    frame = frames[place]
    registers = {name: value.value for name, value in frame.registers.items()}
    code = registers.get("orig_rax") if exception in _WITH_CODE else None
    return CrashException(exception, entry, frame, registers, code, place)

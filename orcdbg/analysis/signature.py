"""Which deaths are the same? The signature's rules are in docs/signature.md."""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.analysis.crash_site import HANDLING, CrashSite, plain_name
from orcdbg.analysis.findings import FindingKind
from orcdbg.subsystems.waits.model import Cycle
from orcdbg.unwind.frame import Frame, FrameKind

MOST_FRAMES = 5

# Functions in which, or through which, the kernel comes to an end without being what ended: helpers that check, copy and list.
_CORE = frozenset(
    (
        *(
            "__list_add_valid",
            "__list_add_valid_or_report",
            "__list_del_entry_valid",
            "__list_del_entry_valid_or_report",
        ),
        *("refcount_warn_saturate", "__stack_chk_fail", "kfree", "kmem_cache_free", "__slab_free", "set_freepointer"),
        *("memcpy", "memset", "memmove", "__memcpy", "__memset", "__memmove", "strlen", "strcmp", "strcpy", "strscpy"),
        *("_raw_spin_lock", "_raw_spin_lock_irqsave", "_raw_spin_lock_irq", "native_queued_spin_lock_slowpath"),
        *("__warn_printk", "warn_slowpath_fmt", "schedule", "__schedule", "schedule_timeout", "wait_for_completion"),
        *(
            "cpu_startup_entry",
            "do_idle",
            "default_idle_call",
            "default_idle",
            "cpuidle_idle_call",
            "pv_native_safe_halt",
        ),
    )
)

# Where every system call, interrupt, thread and softirq comes through: nothing tells there from another death.
_COMMON = frozenset(
    (
        *(
            "entry_SYSCALL_64_after_hwframe",
            "do_syscall_64",
            "x64_sys_call",
            "ret_from_fork",
            "ret_from_fork_asm",
            "kthread",
        ),
        *("do_softirq", "__do_softirq", "handle_softirqs", "irq_exit_rcu", "__irq_exit_rcu", "run_ksoftirqd"),
        *("entry_SYSCALL_compat_after_hwframe", "do_int80_syscall_32", "common_startup_64", "start_secondary"),
        *("secondary_startup_64_no_verify", "cpu_startup_entry", "do_idle", "start_kernel", "x86_64_start_kernel"),
    )
)
_ENTRY_PREFIXES = (
    "asm_",
    "sysvec_",
    "__sysvec_",
    "exc_",
    "ftrace_",
    "return_to_handler",
    "arch_rethook",
    "__kretprobe",
    "optprobe",
)


def frames_outside(way: Sequence[Frame]) -> list[Frame]:
    """The frames that tell one death from another, innermost first, up to the first doubtful one."""
    found: list[Frame] = []
    for frame in way:
        if not frame.reliable or frame.kind is FrameKind.USER:
            break
        if frame.location is None or not frame.location.is_text or _is_common(frame):
            continue
        found.append(frame)
        if frame.doubt is not None:
            break
    return found


def _is_common(frame: Frame) -> bool:
    assert frame.location is not None
    name = plain_name(frame.location.symbol)
    if frame.location.module is not None:
        return False
    return name in _COMMON or name in HANDLING or name.startswith(_ENTRY_PREFIXES)


def first_frame_outside(site: CrashSite) -> Frame | None:
    """The first frame outside of the kernel's core and exception code; None without."""
    for frame in frames_outside(site.way):
        assert frame.location is not None
        if frame.location.module is not None or plain_name(frame.location.symbol) not in _CORE:
            return frame
    return None


_SCHEDULING = frozenset(("__schedule", "schedule", "context_switch", "io_schedule", "schedule_timeout"))


def waiting(frames: Sequence[Frame]) -> list[Frame]:
    """The frames of a task that sleeps, without those that put it to sleep."""
    names = [None if frame.location is None else plain_name(frame.location.symbol) for frame in frames]
    return [frame for frame, name in zip(frames, names, strict=True) if name not in _SCHEDULING]


def first_waiting(frames: Sequence[Frame]) -> Frame | None:
    """Where a task that sleeps waits; None without a sure frame."""
    return next((frame for frame in waiting(frames) if frame.reliable and frame.location is not None), None)


def signature_of(kind: FindingKind, way: Sequence[Frame]) -> str:
    """The signature: the kind of death, and up to five functions."""
    names = _names(frames_outside(way))
    return " ".join([kind.value, " < ".join(names)]).strip()


def _names(frames: Sequence[Frame]) -> list[str]:
    names: list[str] = []
    for frame in frames:
        assert frame.location is not None
        name = plain_name(frame.location.symbol)
        shown = f"{name} [{frame.location.module}]" if frame.location.module else name
        # A recursion counts once, however deep it was.
        if shown not in names[-1:]:
            names.append(shown)
    return names[:MOST_FRAMES]


def deadlock_signature(cycle: Cycle) -> str:
    """The signature of a deadlock: what each of its tasks waits for and in which function, from the one that sorts first on."""
    steps = [f"{plain_name(edge.function or '?')} ({edge.kind.value})" for edge in cycle.edges]
    turned = min(steps[first:] + steps[:first] for first in range(len(steps)))
    return f"{FindingKind.DEADLOCK.value} {' < '.join(turned[:MOST_FRAMES])}"

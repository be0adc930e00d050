"""What did a kernel die of by its printed report alone, without its memory: which kind, where, and the signature?

The rules are those of an analysis of a dump, run over frames that are made of the printed lines; a line after a `?` is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.analysis.crash_site import CrashSite, Route, name_of, plain_name, take_apart
from orcdbg.analysis.detectors.lists import LIST_CHECKS
from orcdbg.analysis.detectors.panics import KINDS
from orcdbg.analysis.detectors.refcounts import REFCOUNT_CHECK
from orcdbg.analysis.findings import CAUSES, FindingKind
from orcdbg.analysis.signature import signature_of, waiting
from orcdbg.kernel.headlines import Announced, Headline
from orcdbg.kernel.names import Location
from orcdbg.kernel.oops import PrintedFrame, PrintedTrace
from orcdbg.kernel.oops_details import PrintedRegisters
from orcdbg.kernel.stacks import StackKind
from orcdbg.unwind.frame import End, Frame, FrameKind, StackTrace

_KIND_OF: Mapping[Announced, FindingKind] = {
    Announced.NULL_POINTER: FindingKind.NULL_POINTER,
    Announced.PAGE_FAULT: FindingKind.WILD_POINTER,
    Announced.GENERAL_PROTECTION: FindingKind.GENERAL_PROTECTION,
    Announced.INVALID_OPCODE: FindingKind.INVALID_OPCODE,
    Announced.DIVIDE_ERROR: FindingKind.DIVIDE_ERROR,
    Announced.STACK_GUARD: FindingKind.STACK_OVERFLOW,
    Announced.DOUBLE_FAULT: FindingKind.DOUBLE_FAULT,
    Announced.BUG: FindingKind.BUG,
    Announced.WARNING: FindingKind.WARNING,
    Announced.SOFT_LOCKUP: FindingKind.SOFT_LOCKUP,
    Announced.HARD_LOCKUP: FindingKind.HARD_LOCKUP,
    Announced.HUNG_TASK: FindingKind.HUNG_TASK,
    Announced.RCU_STALL: FindingKind.RCU_STALL,
    Announced.OOM: FindingKind.OUT_OF_MEMORY,
    Announced.MACHINE_CHECK: FindingKind.MACHINE_CHECK,
}
# What an oops announces; a panic says no more than that there was one.
_OOPSES = frozenset(
    (
        *(Announced.NULL_POINTER, Announced.PAGE_FAULT, Announced.GENERAL_PROTECTION, Announced.INVALID_OPCODE),
        *(Announced.DIVIDE_ERROR, Announced.STACK_GUARD, Announced.DOUBLE_FAULT, Announced.BUG),
    )
)
# Faults whose ip may itself be what could not be fetched.
_OF_POINTERS = (FindingKind.NULL_POINTER, FindingKind.WILD_POINTER, FindingKind.GENERAL_PROTECTION)
_PRINTING = frozenset(("dump_stack", "dump_stack_lvl", "show_stack", "show_regs", "__show_regs", "sched_show_task"))


@dataclass(frozen=True, slots=True)
class PrintedDeath:
    """What a report says.

    Attributes:
        kind: None where nothing that ends a kernel is announced.
        said: the line that announces it.
        trace: the trace that it is about.
        registers: what the exception interrupted.
        signature: by the rules of docs/signature.md; None without a kind.
    """

    kind: FindingKind | None
    said: Headline | None
    trace: PrintedTrace | None
    registers: PrintedRegisters | None
    signature: str | None


@dataclass(frozen=True, slots=True)
class _Event:
    """A trace, and the lines in front of it that announce something."""

    said: Sequence[Headline]
    trace: PrintedTrace | None


def printed_death(
    said: Sequence[Headline], traces: Sequence[PrintedTrace], registers: Sequence[PrintedRegisters]
) -> PrintedDeath:
    """The death in a report: of the panic if there is one, else the first thing that is announced.

    Args:
        said: what the lines announce, in order; `seq` numbers the lines.
        traces: in order; `time` is the number of the line that they begin at.
        registers: likewise, by `line`.
    """
    events = _events(said, traces)
    panic = next((line for line in reversed(said) if line.announced is Announced.PANIC), None)
    for event in reversed(events):
        site = None if event.trace is None else take_apart(stack_of(event.trace))
        if site is not None and site.route is not Route.OOPS:
            return _of_panic(event, site, panic, said, traces, registers)

    found = _announced(events, panic)
    if found is None:
        # A panic of which nothing else is there: its words do not tell its kind.
        return PrintedDeath(None, panic, None, None, None)
    place = _registers_of(found, registers)
    kind = _kind_of(found, place)
    return PrintedDeath(kind, _line_of(found, kind), found.trace, place, _signature(kind, found, traces))


def _events(said: Sequence[Headline], traces: Sequence[PrintedTrace]) -> list[_Event]:
    events = []
    begin = 0
    for trace in traces:
        events.append(_Event([line for line in said if begin < line.seq <= trace.time], trace))
        begin = trace.time
    rest = [line for line in said if line.seq > begin]
    return [*events, _Event(rest, None)] if rest else events


def _announced(events: Sequence[_Event], panic: Headline | None) -> _Event | None:
    """The oops before the panic; without a panic the first event that says anything."""
    if panic is not None:
        before = [event for event in events if any(line.announced in _OOPSES for line in event.said)]
        earlier = [event for event in before if event.said[0].seq < panic.seq]
        return earlier[-1] if earlier else None
    return next((event for event in events if any(line.announced in _KIND_OF for line in event.said)), None)


def _of_panic(
    event: _Event,
    site: CrashSite,
    panic: Headline | None,
    said: Sequence[Headline],
    traces: Sequence[PrintedTrace],
    registers: Sequence[PrintedRegisters],
) -> PrintedDeath:
    """The panic whose trace has panic() on it."""
    kind, announced = KINDS[site.route]
    if kind is FindingKind.INIT_KILLED and site.trace.pid != 1:
        kind = FindingKind.PANIC_CALLED
    line = next((one for one in reversed(said) if one.announced is announced), None)
    if site.route is Route.WARNING:
        kind = _checked(kind, None if site.fault is None else name_of(site.fault.frame))
    way = site.way
    if kind is FindingKind.HUNG_TASK:
        way = _hung(line, traces)
    place = next((one for one in registers if event.trace is not None and one.line >= event.trace.time), None)
    place = place if site.fault is not None and place is not None and not place.is_user else None
    return PrintedDeath(kind, line or panic, event.trace, place, signature_of(kind, way))


def _hung(line: Headline | None, traces: Sequence[PrintedTrace]) -> Sequence[Frame]:
    """The way of the task that the hung task detector named."""
    pid = -1 if line is None else int(line.fields["pid"])
    found = next((trace for trace in reversed(traces) if trace.pid == pid), None)
    return () if found is None else waiting(stack_of(found).frames)


def _registers_of(event: _Event, registers: Sequence[PrintedRegisters]) -> PrintedRegisters | None:
    """The kernel's registers that stand between what is announced and the end of the trace."""
    first = event.said[0].seq
    return next((one for one in registers if one.line >= first and not one.is_user), None)


def _kind_of(event: _Event, place: PrintedRegisters | None) -> FindingKind:
    kinds = []
    for line in event.said:
        kind = _KIND_OF.get(line.announced)
        if kind is None:
            continue
        if kind is FindingKind.GENERAL_PROTECTION and "address" in line.fields:
            kind = FindingKind.NON_CANONICAL
        if kind in (*_OF_POINTERS, FindingKind.NON_CANONICAL) and place is not None and place.is_nowhere:
            kind = FindingKind.BAD_CALL
        kinds.append(kind)
    kind = min(kinds, key=CAUSES.index)
    symbol = None if place is None or place.rip is None else plain_name(place.rip.symbol)
    return _checked(kind, symbol) if kind in (FindingKind.BUG, FindingKind.WARNING) else kind


def _checked(kind: FindingKind, symbol: str | None) -> FindingKind:
    """The kind where the function is one of the kernel's checks."""
    if symbol in LIST_CHECKS:
        return FindingKind.LIST_CORRUPTION
    return FindingKind.REFCOUNT if symbol == REFCOUNT_CHECK else kind


def _line_of(event: _Event, kind: FindingKind) -> Headline | None:
    """The line that says most: the first that announces the kind, else the first that announces anything."""
    return next((line for line in event.said if _KIND_OF.get(line.announced) is kind), event.said[0])


def _signature(kind: FindingKind, event: _Event, traces: Sequence[PrintedTrace]) -> str:
    if kind is FindingKind.HUNG_TASK:
        line = next(line for line in event.said if line.announced is Announced.HUNG_TASK)
        return signature_of(kind, _hung(line, traces))
    frames = () if event.trace is None else stack_of(event.trace).frames
    interrupted = next((number for number, frame in enumerate(frames) if frame.kind is FrameKind.INTERRUPT), None)
    if interrupted is not None:
        return signature_of(kind, frames[interrupted:])
    return signature_of(kind, [frame for frame in frames if name_of(frame) not in _PRINTING])


def stack_of(trace: PrintedTrace) -> StackTrace:
    """The sure lines of a trace as frames; what is not printed is nothing: no addresses, no registers."""
    frames = [_frame(number, printed) for number, printed in enumerate(one for one in trace.frames if one.sure)]
    return StackTrace(0, trace.pid, trace.comm, trace.cpu, False, "a printed trace", frames, End.STOPPED)


def _frame(number: int, printed: PrintedFrame) -> Frame:
    kind = FrameKind.INTERRUPT if printed.is_rip else FrameKind.CALL
    location = None
    if printed.address is None:
        location = Location(printed.symbol, 0, printed.size, printed.module, True)
    ip = printed.offset if printed.address is None else printed.address
    return Frame(number, kind, StackKind.TASK, ip, printed.is_rip, location, {})

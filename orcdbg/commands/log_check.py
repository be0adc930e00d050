"""Do our frames agree with the trace that the kernel itself printed? `bt --check` asks."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound
from orcdbg.base.exit_status import ExitStatus
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result
from orcdbg.kernel.log import read_log
from orcdbg.kernel.oops import PrintedFrame, PrintedTrace, printed_traces
from orcdbg.kernel.tasks import Task
from orcdbg.orc.reasons import CallerLeftOut, ReturnAddressInRegister
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace

# Notes of a frame whose rows, by which the kernel's unwinder goes, leave out its caller.
_LEAVES_OUT = (CallerLeftOut, ReturnAddressInRegister)
_SURE, _GUESS = 1000, 1  # what it is worth to find a line of the log among our frames


class RowStatus(enum.Enum):
    """How a frame of ours and a line of the log agree; the values are the JSON contract's words."""

    SAME = "same"
    GUESS = "guess"  # the log has a `?`, and we are sure
    DOUBT = "doubt"  # we are not sure
    RETURNED = "returned"  # inside of the first common frame: what had returned when the machine stopped
    SINCE = "since"  # there too: what was called since the trace was printed
    STALE = "stale"  # a `?` of the log that is no frame
    BEYOND = "beyond"  # ours past the last line of the log
    MISSING = "missing"  # a contradiction: only the log has it
    OMITTED = "omitted"  # ours alone, since the kernel's unwinder goes by rows that leave it out
    EXTRA = "extra"  # a contradiction: only we have it
    UNCOMPARED = "uncompared"  # a line of the log, where we have no frames at all


@dataclass(frozen=True, slots=True)
class ComparedLine:
    """A frame of ours beside a line of the log; one of them may be None."""

    status: RowStatus
    printed: PrintedFrame | None
    frame: Frame | None
    name: str | None

    @property
    def contradicts(self) -> bool:
        """True where both cannot be right."""
        return self.status in (RowStatus.MISSING, RowStatus.EXTRA)


@dataclass(frozen=True, slots=True)
class LogCheck:
    """One stack beside its trace in the log."""

    trace: StackTrace
    printed: PrintedTrace
    rows: Sequence[ComparedLine]

    @property
    def contradictions(self) -> int:
        """How many rows cannot be right on both sides."""
        return sum(row.contradicts for row in self.rows)

    @property
    def compared(self) -> int:
        """How many of our frames that are sure have a line of the log beside them."""
        return sum(row.status in (RowStatus.SAME, RowStatus.GUESS) for row in self.rows)

    @property
    def agrees(self) -> bool:
        """True where frames were compared, and none contradicts the log."""
        return self.compared > 0 and self.contradictions == 0


@dataclass(frozen=True, slots=True)
class LogChecks(Result):
    """Stacks beside their traces; `without` are the tasks that the log has no trace of."""

    checks: Sequence[LogCheck]
    without: Sequence[Task]
    problems: Sequence[str]

    @property
    def exit_status(self) -> ExitStatus:
        """5 where a frame and the log contradict each other, or no frame of a stack has a line to be compared with."""
        return ExitStatus.DONE if all(check.agrees for check in self.checks) else ExitStatus.FOUND_SOMETHING


def compare(
    names: Sequence[str],
    frames: Sequence[Frame],
    printed: Sequence[PrintedFrame],
    rename: Callable[[PrintedFrame], str] = lambda one: one.name,
    also_called: Sequence[Collection[str]] = (),
) -> list[ComparedLine]:
    """Frames, whose names as the kernel prints them are `names`, beside the lines of a trace; both innermost first.

    `rename` tells what a line would be called among `names`. `also_called` are other names that the log may have for each
    frame, see `log_names`.
    """
    if not frames:
        return [_row(RowStatus.UNCOMPARED, one, None, None) for one in printed]
    known = [{name, *others} for name, others in zip(names, also_called or [()] * len(names), strict=True)]
    pairs = _align(known, printed, [rename(one) for one in printed])
    if not pairs:
        left = [_row(RowStatus.RETURNED if one.sure else RowStatus.STALE, one, None, None) for one in printed]
        return left + [_row(RowStatus.SINCE, None, frame, name) for frame, name in zip(frames, names, strict=True)]
    rows: list[ComparedLine] = []
    at, line = 0, 0
    for mine, theirs in [*pairs, (len(names), len(printed))]:
        is_inner, is_last = at == 0 and line == 0, mine == len(names)
        rows += [_only_printed(one, is_inner) for one in printed[line:theirs]]
        rows += [_only_ours(frames, i, names[i], is_inner, is_last) for i in range(at, mine)]
        if not is_last:
            frame, one = frames[mine], printed[theirs]
            status = RowStatus.DOUBT if not frame.mark.is_sure else RowStatus.SAME if one.sure else RowStatus.GUESS
            rows.append(_row(status, one, frame, names[mine]))
        at, line = mine + 1, theirs + 1
    return rows


def _row(status: RowStatus, printed: PrintedFrame | None, frame: Frame | None, name: str | None) -> ComparedLine:
    return ComparedLine(status, printed, frame, name)


def _only_printed(one: PrintedFrame, is_inner: bool) -> ComparedLine:
    status = RowStatus.STALE if not one.sure else RowStatus.RETURNED if is_inner else RowStatus.MISSING
    return _row(status, one, None, None)


def _only_ours(frames: Sequence[Frame], index: int, name: str, is_inner: bool, is_last: bool) -> ComparedLine:
    place = RowStatus.SINCE if is_inner else RowStatus.BEYOND if is_last else RowStatus.EXTRA
    if place is RowStatus.EXTRA and any(isinstance(note, _LEAVES_OUT) for note in frames[index - 1].notes):
        place = RowStatus.OMITTED
    frame = frames[index]
    return _row(RowStatus.DOUBT if not frame.mark.is_sure else place, None, frame, name)


def _align(
    names: Sequence[Collection[str]], printed: Sequence[PrintedFrame], called: Sequence[str]
) -> list[tuple[int, int]]:
    """Pairs of equal entries, in order on both sides, that are worth most together."""
    best = [[0] * (len(printed) + 1) for _ in range(len(names) + 1)]
    for i in reversed(range(len(names))):
        for j in reversed(range(len(printed))):
            found = max(best[i + 1][j], best[i][j + 1])
            if called[j] in names[i]:
                found = max(found, best[i + 1][j + 1] + (_SURE if printed[j].sure else _GUESS))
            best[i][j] = found
    pairs, i, j = [], 0, 0
    while i < len(names) and j < len(printed):
        worth = _SURE if printed[j].sure else _GUESS
        if called[j] in names[i] and best[i][j] == best[i + 1][j + 1] + worth:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def renamer(session: Session) -> Callable[[PrintedFrame], str]:
    """How we call the places that the kernel printed: of several symbols at one address it may have taken another."""

    def rename(one: PrintedFrame) -> str:
        for symbol in session.symbols.find_all(one.symbol) if one.module is None else ():
            place = session.names.at(session.linux.run_time(symbol))
            if place is not None and (place.start, place.size) == (session.linux.run_time(symbol), one.size):
                return f"{place.symbol}+{one.offset:#x}/{one.size:#x}"
        return one.name

    return rename


def log_names(session: Session, frame: Frame) -> set[str]:
    """How the kernel may print a frame besides the name that we have for it.

    Its own unwinder does not see through every trampoline: it goes on, but prints the trampoline where the return address
    should be (that of kretprobes on 5.10 and, as rethook, on later kernels). It takes an interrupted first instruction for a
    return address after a `?`, and so always names what it prints of a trampoline: by the function before it. And of code
    that it made itself it knows no names.
    """
    describe = session.names.describe
    names = {describe(frame.ip, False), f"{frame.ip:#x}"}
    if frame.recovered is not None:
        trampoline = frame.recovered.trampoline
        names |= {describe(trampoline, False), describe(trampoline, True)}
    return {name for name in names if name is not None}


def trace_of(traces: Sequence[PrintedTrace], task: Task, cpu: int | None) -> PrintedTrace | None:
    """The last trace that the log has of a task; a swapper's is told by its CPU."""
    for trace in reversed(traces):
        on_its_cpu = trace.cpu is None or cpu is None or trace.cpu == cpu
        if trace.pid == task.pid and task.comm.startswith(trace.comm[:15]) and (on_its_cpu or task.pid):
            return trace
    return None


def check(debugger: Debugger, tasks: Sequence[Task]) -> LogChecks:
    """Each task's stack beside its trace.

    Raises:
        NotFound: the log has no trace of any of them.
    """
    records, problems = read_log(debugger.session.linux)
    traces = printed_traces(records)
    checks, without = [], []
    for task in tasks:
        trace = debugger.trace(task)
        printed = trace_of(traces, task, trace.cpu)
        if printed is None:
            without.append(task)
            continue
        frames = [frame for frame in trace.frames if frame.kind is not FrameKind.USER]
        names = [debugger.session.names.describe(f.ip, f.exact) or f"{f.ip:#x}" for f in frames]
        also_called = [log_names(debugger.session, frame) for frame in frames]
        rows = compare(names, frames, printed.frames, renamer(debugger.session), also_called)
        checks.append(LogCheck(trace, printed, rows))
    if not checks:
        known = ", ".join(f"{one.pid} {one.comm}" for one in traces[-5:])
        hint = f"the last traces are of {known}" if known else "the log has no traces at all"
        raise NotFound("trace in the log of task", ", ".join(str(task.pid) for task in tasks), hint)
    return LogChecks(checks, without, problems)

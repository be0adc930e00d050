"""Which call traces did the kernel print into its log, and of which task?

Mirrors show_trace_log_lvl() of arch/x86/kernel/dumpstack.c and what stands in front of its traces: `CPU: 0 PID: 94 Comm:
init` of an oops, a panic or sysrq-l, `task:init state:S ... pid:1` of sysrq-t.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orcdbg.kernel.log import LogRecord

MAX_LINES = 1024  # of one trace
MAX_TEXT = 512  # of a line that are looked at
_HEADER_DISTANCE = 60  # records between the line that names the task and the trace: registers and code stand there
_OWNER = re.compile(r"^CPU: (\d+)(?: UID: \d+)? PID: (\d+) Comm: (.*?) (?:Not tainted|Tainted)")
_TASK = re.compile(r"^task:(.{1,15}?)\s+state:\S.*?\bpid:\s*(\d+)")
_OLD_TASK = re.compile(r"^(\S.{0,14}?)\s+[RSDTtXZPI]\s.*?\s(\d+)\s+\d+\s+0x[0-9a-f]+$")
_BEGIN = re.compile(r"^\s*Call Trace:")
_BEFORE = r"^\s*(?:<[A-Z#0-9]+>\s*)?(?:\[<[0-9a-f]+>\] )?(\? )?"
_FRAME = re.compile(_BEFORE + r"([A-Za-z_$][\w.$]*)\+0x([0-9a-f]+)/0x([0-9a-f]+)(?: \[(\w+)(?: \w+)?\])?\s*$")
# What kallsyms has no name for: copies of ftrace's trampoline, slots of kprobes, and where no code is.
_BARE = re.compile(_BEFORE + r"0x([0-9a-f]{1,16})\s*$")
_MARK = re.compile(r"^\s*</?([A-Z#][A-Z0-9]*)>\s*$")
# Until 4.9 the address stood there twice, with two blanks between.
_RIP = re.compile(r"^RIP: ([0-9a-f]{4}):(?:\[<[0-9a-f]+>\] {1,2})?(?:\[<[0-9a-f]+>\] )?(\S.*)$")
_REGISTERS = re.compile(r"^(?:Code|RSP|RAX|RDX|RBP|R10|R13|ORIG_RAX|FS|CS|CR2|PKRU|DR\d|Modules linked in|CPU):?[: ]")
_USER_SELECTOR = 3


@dataclass(frozen=True, slots=True)
class PrintedFrame:
    """A line of a trace: `sure` is False after `?`; `is_rip` marks the ip of saved registers, which is exact.

    Where the kernel has no name for a place it prints the `address`, which is None elsewhere; the symbol is empty then.
    """

    symbol: str
    offset: int
    size: int
    module: str | None
    sure: bool
    is_rip: bool = False
    address: int | None = None

    @property
    def name(self) -> str:
        """As the kernel printed it."""
        if self.address is not None:
            return f"{self.address:#x}"
        module = f" [{self.module}]" if self.module else ""
        return f"{self.symbol}+{self.offset:#x}/{self.size:#x}{module}"


@dataclass(slots=True)
class PrintedTrace:
    """One call trace: whose, on which CPU (None where the log does not say), when, and its lines, innermost first.

    The registers that an oops prints in front of its trace are the trace's too: it begins with who called that RIP, behind
    lines after a `?` of what the kernel itself had called by then.
    """

    pid: int
    comm: str
    cpu: int | None
    time: int
    frames: list[PrintedFrame] = field(default_factory=list)
    reached_user: bool = False


def parse_frame(text: str) -> PrintedFrame | None:
    """A line of a trace, or None."""
    bare = _BARE.match(text)
    if bare is not None:
        return PrintedFrame("", 0, 0, None, bare[1] is None, address=int(bare[2], 16))
    found = _FRAME.match(text)
    if found is None:
        return None
    guess, symbol, offset, size, module = found.groups()
    return PrintedFrame(symbol, int(offset, 16), int(size, 16), module, guess is None)


def parse_owner(text: str) -> tuple[int, str, int | None] | None:
    """Pid, name and CPU of the task that a line names, or None."""
    if found := _OWNER.match(text):
        return int(found[2]), found[3], int(found[1])
    if found := _TASK.match(text) or _OLD_TASK.match(text):
        return int(found[2]), found[1].strip(), None
    return None


class _Reader:
    """Traces of one printer: lines of several CPUs may stand between each other's."""

    def __init__(self) -> None:
        self.traces: list[PrintedTrace] = []
        self._owner: tuple[int, str, int | None] | None = None
        self._since_owner = 0
        self._open: PrintedTrace | None = None
        # The RIP between the line that names the task and the trace, and whether its place in the trace is found.
        self._rip: PrintedFrame | None = None
        self._is_rip_placed = True

    def read(self, text: str, time: int) -> None:
        """The next line of this printer."""
        self._since_owner += 1
        owner = parse_owner(text)
        if owner is not None:
            self._owner, self._since_owner, self._open = owner, 0, None
            self._rip = None
        elif _BEGIN.match(text):
            self._open = None
            if self._owner is not None and self._since_owner <= _HEADER_DISTANCE:
                self._begin(PrintedTrace(*self._owner, time))
                self._owner = None
        elif self._open is not None and not self._goes_on(self._open, text):
            self._open = None
        elif self._open is None and self._owner is not None:
            rip = _RIP.match(text)
            self._rip = self._rip if rip is None else _rip_of(rip)

    def _begin(self, trace: PrintedTrace) -> None:
        """Opens a trace, with the RIP that stood before it: innermost, until a line shows what is inside of it."""
        self._open = trace
        self.traces.append(trace)
        self._is_rip_placed = self._rip is None
        if self._rip is not None:
            trace.frames.append(self._rip)

    def _place_rip(self, trace: PrintedTrace) -> None:
        """Behind the lines after a `?`, which are of the handling of the fault.

        The first sure line called that RIP, or is another RIP that was interrupted where that one begins.
        """
        self._is_rip_placed = True
        trace.frames.append(trace.frames.pop(0))

    def _goes_on(self, trace: PrintedTrace, text: str) -> bool:
        """Adds a line to a trace; False where it is none of it."""
        frame = parse_frame(text)
        if frame is not None and len(trace.frames) < MAX_LINES:
            if frame.sure and not self._is_rip_placed:
                self._place_rip(trace)
            trace.frames.append(frame)
            return True
        rip = _RIP.match(text)
        if rip is not None:
            interrupted = _rip_of(rip)
            if interrupted is not None:
                if not self._is_rip_placed:
                    self._place_rip(trace)
                trace.frames.append(interrupted)
            trace.reached_user = trace.reached_user or _is_users(rip)
            return True
        return _MARK.match(text) is not None or _REGISTERS.match(text) is not None


def _is_users(rip: re.Match[str]) -> bool:
    return int(rip[1], 16) & _USER_SELECTOR == _USER_SELECTOR


def _rip_of(rip: re.Match[str]) -> PrintedFrame | None:
    """The kernel's ip in a line that begins with RIP; None for the user's."""
    frame = None if _is_users(rip) else parse_frame(rip[2])
    return None if frame is None else replace(frame, sure=True, is_rip=True)


def printed_traces(records: Sequence[LogRecord]) -> list[PrintedTrace]:
    """The traces in a log, in the order in which they began.

    A program may write lines that look like a trace's by /dev/kmsg. They are passed over as if they were not there: neither do
    they make a trace, nor do they end one of the kernel's.
    """
    readers: dict[str | None, _Reader] = {}
    for record in records:
        if record.is_from_user_space:
            continue
        reader = readers.setdefault(record.caller, _Reader())
        for text in record.text.split("\n"):
            reader.read(text[:MAX_TEXT], record.time)
    found = [trace for reader in readers.values() for trace in reader.traces if trace.frames]
    return sorted(found, key=lambda trace: trace.time)

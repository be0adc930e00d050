"""What is selected now: which task, which of its frames, and with which settings?"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.reasons import WhyNoValue
from orcdbg.kernel.tasks import Task, panic_cpu
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame, StackTrace

if TYPE_CHECKING:
    from orcdbg.commands.display import Display
    from orcdbg.commands.emulation import Emulation
    from orcdbg.expressions.history import ValueHistory
    from orcdbg.gdb.guest import Guest
    from orcdbg.image.source_files import SourceFolders
    from orcdbg.typed.objects import Object
    from orcdbg.variables.local_variables import StackVariables

DEFAULTS = {
    "print_max": "200",
    "radix": "10",
    "scroll": "on",
    "step-instructions": "10000000",
    "step-pages": "16384",
    "step-seconds": "20",
}
_CHOICES = {"radix": ("10", "16"), "scroll": ("on", "off")}


class Debugger:
    """A session with a selection; what commands work on. `guest` is the machine behind it while that is a live one."""

    def __init__(self, session: Session, guest: Guest | None = None) -> None:
        self.session = session
        self.guest = guest
        self.frame_index = 0
        self.settings = dict(DEFAULTS)
        self.displays: dict[int, Display] = {}
        self.next_display = 1
        self.emulation: Emulation | None = None
        # Where emulated runs stop: addresses, and (address, size) of memory. They need no registers, and outlive an emulation.
        self.breakpoints: set[int] = set()
        self.watches: list[tuple[int, int]] = []
        self.source_folders: SourceFolders | None = None
        self._task: Task | None = None
        self._traces: dict[int, StackTrace] = {}
        self._variables: tuple[StackTrace, StackVariables] | None = None

    @functools.cached_property
    def values(self) -> ValueHistory:
        """The values that were shown; each reads memory as it is now, also after a live guest has moved."""
        from orcdbg.expressions.history import ValueHistory

        return ValueHistory()

    @functools.cached_property
    def python_names(self) -> dict[str, object]:
        """The names of Python at the prompt; what code assigns stays."""
        from orcdbg.commands.py import new_names

        return new_names(self)

    def move(self, cpu: int) -> None:
        """Looks at the live guest anew, which has stopped again, and selects what the CPU runs that made it stop."""
        if self.guest is None:
            raise UsageError("this is a snapshot, not a live guest", "orcdbg VMLINUX --remote HOST:PORT opens one")
        self._task, self.frame_index, self._traces, self.emulation = None, 0, {}, None
        self.session.move(self.guest.snapshot())
        by_cpu = {number: task for task, (number, _) in self.session.unwinder.running.items()}
        if cpu in by_cpu:
            self._task = self.find_task(by_cpu[cpu])

    def set(self, name: str, value: str) -> None:
        """Changes a setting; UsageError for an unknown one or a bad value."""
        if name not in self.settings:
            from orcdbg.commands.known_words import CRASH_SETTINGS  # only where something went wrong

            known = CRASH_SETTINGS.get(name)
            raise UsageError(f"no such setting: {name}", known or "settings: " + ", ".join(sorted(self.settings)))
        allowed = _CHOICES.get(name)
        if (allowed and value not in allowed) or (not allowed and not value.isdigit()):
            raise UsageError(f"{name}: not a value for it: {value}", "one of " + ", ".join(allowed or ("a number",)))
        self.settings[name] = value

    @property
    def in_hexadecimal(self) -> bool:
        """Whether numbers are hexadecimal where a line does not say, as with `set radix 16`."""
        return self.settings["radix"] == "16"

    @property
    def print_max(self) -> int:
        """How many elements of an array `p` shows."""
        return int(self.settings["print_max"])

    @property
    def panic_cpu(self) -> int | None:
        """The CPU that panicked, or None."""
        return panic_cpu(self.session.linux)

    @property
    def task(self) -> Task:
        """The selected task; at first the one that panicked, else the one on the lowest CPU, else the first."""
        if self._task is None:
            self._task = self._first_task()
        return self._task

    def _first_task(self) -> Task:
        by_cpu = {cpu: task for task, (cpu, _) in self.session.unwinder.running.items()}
        for cpu in (self.panic_cpu, *sorted(by_cpu)):
            if cpu in by_cpu:
                return self.find_task(by_cpu[cpu])
        if not self.session.tasks:
            raise NotFound("task", "none can be read from this snapshot", "`regs -a` shows the registers of its CPUs")
        return self.session.tasks[0]

    def find_task(self, which: int) -> Task:
        """The task with that pid or address."""
        return self.session.task(which)

    def forget(self) -> None:
        """Drops all that was found out: the guest is about to move, and may not come to a stop."""
        self._task, self.frame_index, self._traces, self.emulation = None, 0, {}, None
        self.session.move(self.session.snapshot)

    def look_anew(self) -> None:
        """Forgets what was read of a kernel that runs on by itself, so that each command tells of its own time.

        Raises:
            NotFound: the selected task has exited; from now on none is selected.
        """
        if not self.session.snapshot.is_live:
            return
        selected, index = self._task, self.frame_index
        self.forget()
        if selected is None:
            return
        same = [task for task in self.session.tasks if (task.address, task.pid) == (selected.address, selected.pid)]
        if not same:
            raise NotFound("task", str(selected.pid), "it was selected, and has exited: `set PID` selects another")
        self._task, self.frame_index = same[0], index

    def select(self, task: Task) -> None:
        """Makes a task the selected one, at its innermost frame."""
        self._task = task
        self.frame_index = 0

    @property
    def selected_emulation(self) -> Emulation | None:
        """The emulation that was begun at what is selected now; one of another task or frame is not gone on with."""
        emulation = self.emulation
        if emulation is None or emulation.begun_at != (self.task.address, self.frame_index):
            return None
        return emulation

    def trace(self, task: Task | None = None) -> StackTrace:
        """The stack of a task, the selected one unless another is given; walked once."""
        wanted = task or self.task
        if wanted.address not in self._traces:
            self._traces[wanted.address] = self.session.unwinder.trace(wanted)
        return self._traces[wanted.address]

    def frame(self, index: int | None = None) -> Frame:
        """A frame of the selected task; the selected one unless another is given."""
        trace = self.trace()
        number = self.frame_index if index is None else index
        whose = f"task {trace.pid} {trace.comm}"
        if not trace.frames:
            raise OrcdbgError(f"no frame {number}: {whose} has no frames", reason=trace.end_reason)
        if not 0 <= number < len(trace.frames):
            last = len(trace.frames) - 1
            raise NotFound(
                "frame", f"{number} of {whose}", f"it has frames 0 to {last}" if last else "it has frame 0 alone"
            )
        return trace.frames[number]

    def find_local(self, name: str) -> Object | None:
        """The variable or argument that a name means in the selected frame, None where it means none there.

        A value of a doubtful frame is not handed on: an expression's result has no mark that could say so.

        Raises:
            UnsupportedFormat: the debugging information is damaged.
        """
        if not self.session.has_debug or not self.trace().frames:
            return None
        frame = self.frame()
        found = self._stack_variables().find(frame.index, name)
        if found is None or found.is_sure:
            return None if found is None else found.object

        from orcdbg.typed.objects import Absent, Object

        why = f"frame #{frame.index} is in doubt, or a caller that {name} was taken from; `info locals` shows it with that mark"
        return Object(self.session.program, found.object.type_, Absent(why, WhyNoValue.DOUBT))

    def forget_variables(self) -> None:
        """Drops variables of frames: more debugging information was named."""
        self._variables = None

    def _stack_variables(self) -> StackVariables:
        """The variables of the selected stack: of one expression each name asks for them."""
        trace = self.trace()
        if self._variables is None or self._variables[0] is not trace:
            self._variables = trace, self.session.local_variables.of(trace)
        return self._variables[1]

    def address(self, text: str) -> int:
        """The run-time address that a word means: `symbol`, `symbol+8`, `module:symbol`, or hexadecimal.

        Raises:
            NotFound: no such symbol, and not a number.
        """
        name, plus, offset = text.partition("+")
        base = self._symbol_address(name)
        try:
            if base is None:
                base = int(name, 16)
            return base + (int(offset, 0) if plus else 0)
        except ValueError as error:
            raise NotFound("symbol or address", text, lambda: self._did_you_mean(name)) from error

    def _did_you_mean(self, name: str) -> str | None:
        from orcdbg.base.near_names import did_you_mean  # only where something went wrong

        return did_you_mean(self.session.names.near(name))

    def _symbol_address(self, name: str) -> int | None:
        found = self.session.linux.find_address(name)
        if found is not None or not name or name[0] in "0123456789":
            return found
        module_name, colon, rest = name.partition(":")
        for module in self.session.names.modules:
            if not colon or module.name == module_name:
                symbols = self.session.names.module_symbols[module.address]
                symbol = symbols.table.find(rest if colon else name)
                if symbol is not None:
                    return symbol.address
        return None

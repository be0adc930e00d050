"""What may another debugger ask of orcdbg, which has a stopped kernel of its own and wants to know who called whom?

For gdb's extension (`plugins/gdb/orcdbg_gdb.py`) and its like: memory is read through a function of the other debugger, at
kernel virtual addresses, or from the core file that it has open. What is handed out are numbers and lines of text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import BadAddress, OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.frame import detail
from orcdbg.commands.registry import Registry
from orcdbg.commands.result import Result
from orcdbg.commands.standard import standard_commands
from orcdbg.image.vmlinux import open_image
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.kernel.tasks import MAX_TASKS, Task, all_task_addresses, read_task
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import PlacedBy, Placement, PlacementSource, find_slide
from orcdbg.symbols.table import image_symbols
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame, FrameKind, RegisterValue, StackTrace
from orcdbg.unwind.registers.finder import KnownRegisters
from orcdbg.unwind.starts import stacks_of
from orcdbg.unwind.unwinder import Unwinder
from orcdbg.unwind.walker import State
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from orcdbg.views.reasons import words_or_none

API_VERSION = (1, 0)
ReadMemory = Callable[[int, int], bytes | None]


class _ForeignMemory(KernelMemory):
    """Kernel virtual memory as the other debugger reads it, and caches it or not."""

    def __init__(self, read: ReadMemory) -> None:
        super().__init__(self, 0, 4)
        self._read_there = read

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes, or BadAddress where the other debugger has none."""
        data = self._read_there(address, size)
        if data is None or len(data) != size:
            raise BadAddress("virtual", address, size)
        return data


@dataclass(frozen=True, slots=True)
class CallerFrame:
    """One frame's answer.

    `place` and `function` (the run-time address where its code begins) name the frame while it lasts. `place` is the CFA,
    moved for the stacks of CPUs so that a caller's is never lower, as gdb wants it. `caller` holds the caller's
    registers as far as they are known, by gdb's names; it is empty where the stack ends, and where its next frame would
    be a guess, with the reason in `why_ends`. `symbol` is the function's name, None for a user's; `exact` is whether that
    is of the ip itself, and not of the call before it.
    """

    place: int
    function: int
    caller: Mapping[str, int]
    why_ends: str | None
    symbol: str | None
    exact: bool


# Which stack is used while another was in use: the lower, the later.
_RANKS = {
    StackKind.DF: 1,
    StackKind.MCE: 2,
    StackKind.NMI: 3,
    StackKind.VC: 4,
    StackKind.DB: 5,
    StackKind.ENTRY: 6,
    StackKind.IRQ: 7,
    StackKind.SOFTIRQ: 7,
}


def place_of(frame: Frame, stacks: Sequence[Stack]) -> int:
    """A frame's CFA, with the rank of its stack in place of the highest four bits; those of task stacks are 15.

    The stack is the one that holds the CFA: 5.10's asm_call_irq_on_stack runs on one and has its CFA on the other.
    """
    cfa = frame.sp if frame.cfa is None else frame.cfa
    kind = next((stack.kind for stack in stacks if stack.holds(cfa - 8)), frame.stack)
    rank = _RANKS.get(kind)
    return cfa if rank is None else cfa & (1 << 60) - 1 | rank << 60


class EmbeddedKernel:
    """A kernel that another debugger has stopped.

    Args:
        session: the kernel.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._trace: StackTrace | None = None
        self._index: dict[tuple[int, int], int] = {}
        self._known: list[KnownRegisters] = []
        self._stacks: Sequence[Stack] = ()

    @classmethod
    def of_memory(cls, vmlinux: str, read: ReadMemory, slide: int | None = None) -> EmbeddedKernel:
        """The kernel in memory that `read` gives by virtual address, None where nothing is mapped.

        Raises:
            Mismatch: the kernel in memory is not the vmlinux's.
            OrcdbgError: it is not found, or the vmlinux cannot be used.
        """
        image = open_image(vmlinux)
        memory = _ForeignMemory(read)
        symbols = image_symbols(image)

        def link(name: str) -> int | None:
            found = symbols.find(name)
            return None if found is None else found.address

        found = find_slide(memory, link) if slide is None else slide
        if found is None:
            hint = "stop in kernel code, late enough in the boot; or say `orc slide NUMBER`"
            raise OrcdbgError("cannot tell where the kernel lies", hint)
        place = Placement(found, 0, 0, 4, 0, PlacementSource(PlacedBy.INTERRUPT_TABLE))
        return cls(Session(image, Snapshot("", "another debugger", memory, (), {}), mapped=(place, memory)))

    @classmethod
    def of_core(cls, vmlinux: str, core: str) -> EmbeddedKernel:
        """The kernel in a core file; raises what `orcdbg.open` does."""
        return cls(open_session(vmlinux, core))

    @property
    def slide(self) -> int:
        """Run-time minus link address."""
        return self._session.slide

    def run_time(self, name: str) -> int | None:
        """Run-time address of one of the kernel's symbols."""
        return self._session.linux.find_address(name)

    def is_text(self, address: int) -> bool:
        """True for an address in the code of the kernel or of a module."""
        return self._session.is_text(address)

    def forget(self) -> None:
        """Drops what was read: the machine moved, or its memory was written."""
        self._session.move(self._session.snapshot)
        self._trace, self._index, self._known = None, {}, []

    def frame(self, registers: Mapping[str, int], is_innermost: bool) -> CallerFrame | None:
        """A frame of the stack that its innermost frame began, None for one that is none of the kernel's.

        Args:
            registers: the frame's registers by gdb's names, `rip` and `rsp` at least.
            is_innermost: whether they are those of the CPU, so that rip is exact and all are known.
        """
        key = registers["rip"], registers["rsp"]
        if is_innermost or not self._index.get(key):
            if not self.is_text(registers["rip"]):
                return None  # of no stack of the kernel's; what was walked stays, others will ask for it
            self._walk(registers)
        at = self._index.get(key)
        return None if at is None or self._trace is None else self._answer(self._trace, at)

    def _walk(self, registers: Mapping[str, int]) -> None:
        self._trace, self._index, self._known = None, {}, []
        if not self.is_text(registers["rip"]):
            return
        values = {{"eflags": "rflags"}.get(name, name): value for name, value in registers.items()}
        known = {name: RegisterValue(value, "the debugger") for name, value in values.items()}
        state = State(registers["rip"], True, known, FrameKind.INTERRUPT, None)
        session = self._session
        unwinder = Unwinder(session.kernel.terrain, ())
        task, self._stacks = self._owner(unwinder, registers["rsp"])
        self._trace = unwinder.from_state(task, state, "the debugger")
        for frame in self._sure_frames(self._trace):
            self._index.setdefault((frame.ip, frame.sp), frame.index)

    def _owner(self, unwinder: Unwinder, sp: int) -> tuple[Task, Sequence[Stack]]:
        """The task whose stack, or on whose CPU's, a stack pointer is, and those stacks; the boot's where it is on none."""
        linux = self._session.linux
        for address, (cpu, _) in unwinder.running.items():
            stacks = stacks_of(linux, address, cpu)
            if any(stack.holds(sp) or stack.holds(sp - 8) for stack in stacks):
                return read_task(linux, address), stacks
        for address in all_task_addresses(linux, Budget(MAX_TASKS)):
            stacks = stacks_of(linux, address, None)
            if any(stack.holds(sp) for stack in stacks):
                return read_task(linux, address), stacks
        return read_task(linux, linux.address("init_task")), ()

    @staticmethod
    def _sure_frames(trace: StackTrace) -> Sequence[Frame]:
        """The frames that another debugger may show: it has no mark for a guess."""
        for index, frame in enumerate(trace.frames):
            if not frame.is_trusted:
                return trace.frames[: max(index, 1)]
        return trace.frames

    def _answer(self, trace: StackTrace, index: int) -> CallerFrame:
        frames = self._sure_frames(trace)
        frame = frames[index]
        place = frame.location
        caller: dict[str, int] = {}
        why = None
        if index + 1 < len(frames):
            self._known = self._known or self._session.register_finder.all(trace)
            known = self._known[index + 1].values
            caller = {{"rflags": "eflags"}.get(name, name): value.value for name, value in known.items()}
            caller.pop("orig_rax", None)
        elif len(frames) < len(trace.frames):
            doubt = trace.frames[len(frames)].doubt or frame.doubt
            why = f"the next frame is in doubt: {words_or_none(doubt) or 'a guess'}"
        else:
            why = words_or_none(trace.end_reason)
        start = place.start if place is not None else frame.ip
        return CallerFrame(
            place_of(frame, self._stacks), start, caller, why, place.symbol if place is not None else None, frame.exact
        )

    # For people

    def frame_text(self, registers: Mapping[str, int], rip: int, rsp: int) -> str:
        """Everything behind one frame of the stack that `registers` are the innermost of.

        Raises:
            OrcdbgError: the stack has no such frame, or is none of the kernel's.
        """
        self._walk(registers)
        trace = self._trace
        if trace is None:
            raise OrcdbgError(f"{registers['rip']:#x} is not in the kernel's code")
        for frame in trace.frames:
            if (frame.ip, frame.sp) == (rip, rsp):
                return self._text(detail(_Chosen(self._session, trace), frame.index))
        raise OrcdbgError(f"the stack has no frame at {rip:#x} with the stack pointer {rsp:#x}")

    def patches_text(self, address: int) -> str:
        """The patch sites that cover an address."""
        return self.command_text(f"patch at {address:x}")

    def command_text(self, line: str) -> str:
        """The answer to one of orcdbg's own commands, such as `patch check`.

        Raises:
            OrcdbgError: no such command, or it failed.
        """
        registry: Registry = standard_commands()
        return self._text(registry.run(Debugger(self._session), line))

    @staticmethod
    def _text(result: Result) -> str:
        return plain(lines_of(result, None))


class _Chosen(Debugger):
    """A selection that is a stack already walked."""

    def __init__(self, session: Session, trace: StackTrace) -> None:
        super().__init__(session)
        self._chosen = trace

    def trace(self, task: Task | None = None) -> StackTrace:
        """The stack."""
        return self._chosen


__all__ = ["API_VERSION", "CallerFrame", "EmbeddedKernel", "OrcdbgError"]

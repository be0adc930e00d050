"""What stood in a return slot before a tracer put the address of a trampoline there?

Mirrors ftrace_graph_ret_addr() and kretprobe_find_ret_addr(), and refuses where they guess: an entry counts only when it
names the very slot. The kernel's unwinder knows neither the kretprobes of 5.10 nor a CPU inside a trampoline.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reasons import Reason
from orcdbg.kernel.kretprobes import kretprobe_returns
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.ret_stack import ReplacedReturn, Tracer, graph_returns
from orcdbg.orc.reasons import Holder
from orcdbg.orc.rules.return_trampolines import ReturnTrampoline, ReturnTrampolines
from orcdbg.orc.rules.thunks import is_return_thunk
from orcdbg.patches.code import Code
from orcdbg.unwind.frame import Frame, Recovered
from orcdbg.unwind.reasons import (
    EntryHalfWritten,
    NoRecordOfSlot,
    RecordsUnreadable,
    RecordsWithoutSlots,
    ReplacedTooOften,
    ReturnRegisterUnknown,
    TrueReturnLost,
)

# ftrace_caller and ftrace_regs_caller, their labels, and the copies of them that the kernel makes (ftrace_64.S).
_FTRACE = re.compile(r"ftrace_(regs_)?call(er)?(_\w+)?|ftrace_epilogue|ftrace_stub|ftrace_trampoline")
MAX_LAYERS = 64  # tracers and probes on one slot
# While these run, the newest entry may be half written.
_ENTERING = ("prepare_ftrace_return", "function_graph_enter", "function_graph_enter_regs", "ftrace_graph_func")
_STRUCTURE = {
    Tracer.FGRAPH: "ftrace_ret_stack",
    Tracer.KRETPROBE: "kretprobe_instance",
    Tracer.RETHOOK: "rethook_node",
}


def enters_function(code: Code, frame: Frame, word: int) -> bool:
    """Whether the CPU, which is in `frame`, goes on to a function by returning to `word`.

    Three things do so: a retpoline whose own `ret` is a jump to a return thunk; ftrace, where a livepatch has put another
    function in the place of the traced one; and ftrace with a trampoline to be called directly. The word is then exactly
    where the function begins, and no call stands before it.

    Args:
        code: the kernel.
        frame: where the CPU is: a return address of a call means that it is not at a `ret`.
        word: what is in the frame's return slot.
    """
    place = frame.location
    if not frame.exact or place is None:
        return False
    if not is_return_thunk(place) and not _FTRACE.fullmatch(place.symbol):
        return False
    entered = code.locate(word)
    return entered is not None and entered.is_text and entered.start == word and code.follows_call(word) is False


class TrueReturn(NamedTuple):
    """A caller's ip and where it was found; `doubt` says why it may be wrong."""

    ip: int
    source: str
    recovered: Recovered
    doubt: Reason | None = None


class TrueReturns:
    """True return addresses of one task. Its structures are read when the walk first meets a trampoline.

    Args:
        linux: the kernel.
        trampolines: whose addresses stand in for others.
        task: address of the task_struct.
    """

    def __init__(self, linux: Linux, trampolines: ReturnTrampolines, task: int) -> None:
        self._linux = linux
        self._trampolines = trampolines
        self._task = task
        self._used: set[int] = set()

    @functools.cached_property
    def _graph(self) -> tuple[Sequence[ReplacedReturn], RecordsUnreadable | None]:
        return _read(lambda: graph_returns(self._linux, self._task), "task_struct.ret_stack")

    @functools.cached_property
    def _probes(self) -> tuple[Sequence[ReplacedReturn], RecordsUnreadable | None]:
        return _read(lambda: kretprobe_returns(self._linux, self._task), "the task's kretprobe instances")

    def of(self, frames: Sequence[Frame], slot: int, word: int) -> TrueReturn | Reason | None:
        """The return address of the last of `frames`, whose return slot `slot` holds `word`.

        None where that is `word`, and a reason where it is lost.
        """
        frame = frames[-1]
        boundary = self._trampolines.boundary(frame.ip, frame.exact)
        inside = self._trampolines.at(frame.ip if frame.exact else frame.ip - 1)
        if boundary is None or inside is None or boundary.holder is Holder.SLOT:
            hidden_by = self._trampolines.by_start.get(word)
            return None if hidden_by is None else self._recover(frames, slot, hidden_by, False)
        if boundary.holder is Holder.RECORD:
            return self._recover(frames, slot, inside, True)
        value = frame.registers.get(boundary.holder.value)
        if value is None:
            return ReturnRegisterUnknown(boundary.holder.value)
        recovered = Recovered(inside.by, inside.start, has_returned=True)
        found = TrueReturn(value.value, f"{boundary.holder.value} of frame #{frame.index}, in {inside.name}", recovered)
        outer = self._trampolines.by_start.get(value.value)
        return found if outer is None else self._recover(frames, slot, outer, True)

    def _recover(
        self, frames: Sequence[Frame], slot: int, first: ReturnTrampoline, inside: bool
    ) -> TrueReturn | Reason:
        """Follows the entries that name the slot until one holds no trampoline's address."""
        trampoline, sources, by, callee = first, list[str](), first.by, None
        for _ in range(MAX_LAYERS):
            entry = self._next(trampoline, slot, inside)
            if isinstance(entry, Reason):
                return TrueReturnLost(slot, first.name, entry)
            self._used.add(entry.record)
            by = by if sources else entry.owner or by
            callee = entry.callee if entry.callee is not None else callee
            sources.append(f"{_STRUCTURE[trampoline.by]} {entry.record:#x}")
            outer = self._trampolines.by_start.get(entry.address)
            if outer is None:
                source = f"{', '.join(sources)} (return slot {slot:#x} holds {first.name})"
                recovered = Recovered(by, first.start, callee, has_returned=inside)
                return TrueReturn(entry.address, source, recovered, self._doubt(frames, slot))
            trampoline = outer
        return ReplacedTooOften(slot, MAX_LAYERS)

    def _next(self, trampoline: ReturnTrampoline, slot: int, inside: bool) -> ReplacedReturn | Reason:
        """The newest entry for a slot that was not used yet, or why there is none."""
        entries, problem = self._graph if trampoline.by is Tracer.FGRAPH else self._probes
        if problem is not None:
            return problem
        mine = [e for e in entries if e.slot in (slot, None) and e.record not in self._used]
        if any(e.slot is None for e in mine):
            return RecordsWithoutSlots()
        listed = [e for e in mine if not e.is_taken_back]
        # The handler inside a trampoline takes the entry off the list before it is back with the address.
        usable = listed or (mine if inside else [])
        if not usable:
            return NoRecordOfSlot(_STRUCTURE[trampoline.by])
        return usable[0]

    def _doubt(self, frames: Sequence[Frame], slot: int) -> EntryHalfWritten | None:
        """Whether function_graph may be about to write the entry that was found."""
        recent = frames[-6:]
        if not any(f.location is not None and f.location.symbol in _ENTERING for f in recent):
            return None
        entries = [e for e in self._graph[0] if e.slot == slot and not e.is_taken_back]
        # Before 5.17 the slot was replaced first, and the entry written then. Kernels that write it first have this function.
        writes_first = self._linux.find_address("ftrace_graph_func") is not None
        return None if writes_first and len(entries) == 1 else EntryHalfWritten()


def _read(
    read: Callable[[], list[ReplacedReturn]], what: str
) -> tuple[Sequence[ReplacedReturn], RecordsUnreadable | None]:
    try:
        return read(), None
    except OrcdbgError as error:
        return [], RecordsUnreadable(f"{what}: {error}")

"""Which rule holds inside the code that a replaced return address leads to, and where is the true address meanwhile?

Such a trampoline begins right behind a `ret`: the slot that held its address lies just below the stack pointer, and the
caller's stack pointer is the one it begins with. ORC has no rows there in most versions, or rows for the kernel's own needs;
the instructions tell (arch/x86/kernel/ftrace_64.S, kprobes/core.c, rethook.c).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.ret_stack import Tracer
from orcdbg.orc.cfa import CfaRule, sp_rule
from orcdbg.orc.effective import Derived, Source
from orcdbg.orc.reasons import Holder, StandsForReturnAddress
from orcdbg.orc.rows import FUNCTION_ENTRY
from orcdbg.orc.rules.source import Lookup
from orcdbg.x86.follow import straight
from orcdbg.x86.instructions import Instruction, decode
from orcdbg.x86.operands import BasedMemory, memory_in
from orcdbg.x86.stack_effects import Boundary, stack_boundaries

MAX_SIZE = 256
# Name, and what puts it into return slots.
_NAMES = (
    ("return_to_handler", Tracer.FGRAPH),
    ("kretprobe_trampoline", Tracer.KRETPROBE),
    ("__kretprobe_trampoline", Tracer.KRETPROBE),
    ("arch_rethook_trampoline", Tracer.RETHOOK),
)


class TrampolineBoundary(NamedTuple):
    """A boundary inside a trampoline: the rule there, and where the true return address is."""

    rule: CfaRule
    holder: Holder
    instructions: tuple[str, ...]


class ReturnTrampoline:
    """One trampoline: `name`, what puts its address into return slots, and its code at [start, end)."""

    def __init__(self, name: str, by: Tracer, start: int, end: int, text: AddressSpace) -> None:
        self.name = name
        self.by = by
        self.start = start
        self.end = end
        self._text = text

    @functools.cached_property
    def _code(self) -> tuple[dict[int, Boundary], bytes]:
        try:
            body = self._text.read(self.start, self.end - self.start)
        except MemoryFault:
            return {}, b""
        return stack_boundaries(body, self.start), body

    @functools.cached_property
    def _call(self) -> Instruction | None:
        """The call of the tracer's handler: the first of other code."""
        calls = (insn for insn in decode(self._code[1], self.start) if insn.is_call)
        return next((call for call in calls if not self.start <= (call.target or 0) < self.end), None)

    def boundary(self, ip: int, exact: bool) -> TrampolineBoundary | None:
        """What holds at `ip`, an interrupted address or a return address; None where that cannot be told."""
        boundaries, body = self._code
        call = self._call
        here = boundaries.get(ip)
        if here is None or here.pushed is None or call is None:
            return None
        names = tuple(insn.mnemonic for insn in here.path)
        rule = sp_rule(here.pushed)
        if ip < call.end or not exact:
            return TrampolineBoundary(rule, self._before_call(ip), names) if ip <= call.end else None
        return TrampolineBoundary(rule, self._after_call(boundaries, body, call, ip), names)

    def _before_call(self, ip: int) -> Holder:
        # A rethook's trampoline puts its own address back first, which its handler replaces by the true one.
        return Holder.SLOT if self.by is Tracer.RETHOOK and ip > self.start else Holder.RECORD

    def _after_call(self, boundaries: dict[int, Boundary], body: bytes, call: Instruction, ip: int) -> Holder:
        """Follows the handler's result to the slot."""

        def after(holder: Holder, insn: Instruction) -> Holder:
            before = boundaries.get(insn.address)
            slot = None if before is None or before.pushed is None else BasedMemory("rsp", before.pushed - 8)
            return _moved_to(insn, holder, slot)

        begin = Holder.SLOT if self.by is Tracer.RETHOOK else Holder.RESULT
        code = body[call.end - self.start : ip - self.start]
        *_, (_, holder) = straight(code, call.end, begin, after)
        return holder


def _moved_to(insn: Instruction, holder: Holder, slot: BasedMemory | None) -> Holder:
    """Who holds the true return address behind an instruction, if `holder` did; `slot` is where it belongs, if known."""
    if holder is Holder.SLOT or slot is None or not insn.mnemonic.startswith("mov"):
        return holder

    read_from, _, target = insn.operands.partition(", ")
    if read_from != f"%{holder.value}":
        return holder
    if target == f"%{Holder.ARGUMENT.value}":
        return Holder.ARGUMENT
    return Holder.SLOT if memory_in(target) == slot else holder


class ReturnTrampolines:
    """The trampolines of one kernel.

    Args:
        linux: the kernel; its memory holds the trampolines' code.
    """

    def __init__(self, linux: Linux) -> None:
        trampolines = []
        for name, by in _NAMES:
            symbol = linux.symbols.find(name)
            extent = linux.symbols.at(symbol.address) if symbol is not None else None
            if symbol is not None and extent is not None:
                start, size = linux.run_time(symbol), min(extent[1], MAX_SIZE)
                trampolines.append(ReturnTrampoline(name, by, start, start + size, linux.memory))

        self._all = trampolines
        self.by_start = {trampoline.start: trampoline for trampoline in trampolines}

    def at(self, address: int) -> ReturnTrampoline | None:
        """The trampoline whose code is at an address."""
        return next((trampoline for trampoline in self._all if trampoline.start <= address < trampoline.end), None)

    def boundary(self, ip: int, exact: bool) -> TrampolineBoundary | None:
        """What holds at a frame's ip; None outside of trampolines, and where that cannot be told."""
        trampoline = self.at(ip if exact else ip - 1)
        return None if trampoline is None else trampoline.boundary(ip, exact)


class InsideReturnTrampolines:
    """The instructions of the trampolines.

    Args:
        trampolines: those of this kernel.
    """

    def __init__(self, trampolines: ReturnTrampolines) -> None:
        self._trampolines = trampolines

    def at(self, lookup: Lookup) -> Derived | None:
        """The rule inside a trampoline, where the row states none or another.

        At its first byte the caller's stack pointer is this one's, and a row that says sp+0 is about the address that the
        kernel's own unwinder makes up.
        """
        boundary = self._trampolines.boundary(lookup.ip, lookup.exact)
        if boundary is None or (lookup.rule == boundary.rule and boundary.rule.offset):
            return None
        why = StandsForReturnAddress(boundary.holder)
        return Derived(lookup.entry, boundary.rule, FUNCTION_ENTRY, why, Source.TRAMPOLINE, boundary.instructions)

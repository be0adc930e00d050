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
from orcdbg.orc.effective import Derived
from orcdbg.orc.reasons import Holder, StandsForReturnAddress
from orcdbg.orc.rows import FUNCTION_ENTRY
from orcdbg.orc.rules.source import Lookup
from orcdbg.x86.decode import Instruction, decode
from orcdbg.x86.stack_effects import Boundary, stack_boundaries

MAX_SIZE = 256
# Name, and what puts it into return slots.
_NAMES = (
    ("return_to_handler", Tracer.FGRAPH),
    ("kretprobe_trampoline", Tracer.KRETPROBE),
    ("__kretprobe_trampoline", Tracer.KRETPROBE),
    ("arch_rethook_trampoline", Tracer.RETHOOK),
)


class Place(NamedTuple):
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
    def _code(self) -> tuple[dict[int, Boundary], list[Instruction]]:
        try:
            body = self._text.read(self.start, self.end - self.start)
        except MemoryFault:
            return {}, []
        return stack_boundaries(body, self.start), list(decode(body, self.start))

    def place(self, ip: int, exact: bool) -> Place | None:
        """What holds at `ip`, an interrupted address or a return address; None where that cannot be told."""
        boundaries, instructions = self._code
        call = next((i for i in instructions if i.is_call and not self.start <= (i.target or 0) < self.end), None)
        found = boundaries.get(ip)
        if found is None or found.pushed is None or call is None:
            return None
        names = tuple(insn.mnemonic for insn in found.path)
        rule = sp_rule(found.pushed)
        if ip < call.end or not exact:
            return Place(rule, self._before_call(ip), names) if ip <= call.end else None
        return Place(rule, self._after_call(boundaries, instructions, call, ip), names)

    def _before_call(self, ip: int) -> Holder:
        # A rethook's trampoline puts its own address back first, which its handler replaces by the true one.
        return Holder.SLOT if self.by is Tracer.RETHOOK and ip > self.start else Holder.RECORD

    def _after_call(
        self, boundaries: dict[int, Boundary], instructions: list[Instruction], call: Instruction, ip: int
    ) -> Holder:
        """Follows the handler's result to the slot."""
        holder = Holder.SLOT if self.by is Tracer.RETHOOK else Holder.RESULT
        for insn in instructions:
            if not call.end <= insn.address < ip or holder is Holder.SLOT or not insn.mnemonic.startswith("mov"):
                continue
            read_from, _, target = insn.operands.partition(", ")
            before = boundaries.get(insn.address)
            if read_from != f"%{holder.value}" or before is None or before.pushed is None:
                continue
            if target == f"%{Holder.ARGUMENT.value}":
                holder = Holder.ARGUMENT
            elif _displacement(target) == before.pushed - 8:
                holder = Holder.SLOT
        return holder


def _displacement(operand: str) -> int | None:
    """N of `N(%rsp)`, or None."""
    number, _, register = operand.partition("(")
    return int(number or "0", 0) if register == "%rsp)" else None


class ReturnTrampolines:
    """The trampolines of one kernel.

    Args:
        linux: the kernel; its memory holds the trampolines' code.
    """

    def __init__(self, linux: Linux) -> None:
        found = []
        for name, by in _NAMES:
            symbol = linux.symbols.find(name)
            at = linux.symbols.at(symbol.address) if symbol is not None else None
            if symbol is not None and at is not None:
                start = linux.run_time(symbol)
                found.append(ReturnTrampoline(name, by, start, start + min(at[1], MAX_SIZE), linux.memory))
        self._all = found
        self.by_start = {one.start: one for one in found}

    def at(self, address: int) -> ReturnTrampoline | None:
        """The trampoline whose code is at an address."""
        return next((one for one in self._all if one.start <= address < one.end), None)

    def place(self, ip: int, exact: bool) -> Place | None:
        """What holds at a frame's ip; None outside of trampolines, and where that cannot be told."""
        found = self.at(ip if exact else ip - 1)
        return None if found is None else found.place(ip, exact)


class ReturnTrampolineCode:
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
        place = self._trampolines.place(lookup.ip, lookup.exact)
        if place is None or (lookup.rule == place.rule and place.rule.offset):
            return None
        why = StandsForReturnAddress(place.holder)
        return Derived(lookup.entry, place.rule, FUNCTION_ENTRY, why, instructions=place.instructions)

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
from orcdbg.orc.cfa import CfaRule
from orcdbg.x86.decode import Instruction, decode
from orcdbg.x86.stack_effects import Boundary, stack_boundaries

WHY = "this code stands in for a return address; its rule follows from its instructions, the caller from {where}"
MAX_SIZE = 256
# Name, and the word of the JSON contract for what put it into return slots.
_NAMES = (
    ("return_to_handler", "fgraph"),
    ("kretprobe_trampoline", "kretprobe"),
    ("__kretprobe_trampoline", "kretprobe"),
    ("arch_rethook_trampoline", "rethook"),
)
_ARGUMENT, _RESULT = "rdi", "rax"


class Place(NamedTuple):
    """A boundary inside a trampoline: the rule there, and where the true return address is.

    `holder` is `record` while the tracer's structures have it, the name of a register, or `slot` once it is back on the stack.
    """

    rule: CfaRule
    holder: str
    instructions: tuple[str, ...]


class ReturnTrampoline:
    """One trampoline: `name`, `by` as in the JSON contract, and its code at [start, end)."""

    def __init__(self, name: str, by: str, start: int, end: int, text: AddressSpace) -> None:
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
        rule = CfaRule("sp", found.pushed)
        if ip < call.end or not exact:
            return Place(rule, self._before_call(ip), names) if ip <= call.end else None
        return Place(rule, self._after_call(boundaries, instructions, call, ip), names)

    def _before_call(self, ip: int) -> str:
        # A rethook's trampoline puts its own address back first, which its handler replaces by the true one.
        return "slot" if self.by == "rethook" and ip > self.start else "record"

    def _after_call(
        self, boundaries: dict[int, Boundary], instructions: list[Instruction], call: Instruction, ip: int
    ) -> str:
        """Follows the handler's result to the slot."""
        holder = "slot" if self.by == "rethook" else _RESULT
        for insn in instructions:
            if not call.end <= insn.address < ip or holder == "slot" or not insn.mnemonic.startswith("mov"):
                continue
            source, _, target = insn.operands.partition(", ")
            before = boundaries.get(insn.address)
            if source != f"%{holder}" or before is None or before.pushed is None:
                continue
            if target == f"%{_ARGUMENT}":
                holder = _ARGUMENT
            elif _displacement(target) == before.pushed - 8:
                holder = "slot"
        return holder


def _displacement(operand: str) -> int | None:
    """N of `N(%rsp)`, or None."""
    number, _, base = operand.partition("(")
    return int(number or "0", 0) if base == "%rsp)" else None


class ReturnTrampolines:
    """The trampolines of one kernel.

    Args:
        linux: the kernel.
        text: code as it ran.
    """

    def __init__(self, linux: Linux, text: AddressSpace) -> None:
        found = []
        for name, by in _NAMES:
            symbol = linux.symbols.find(name)
            at = linux.symbols.at(symbol.address) if symbol is not None else None
            if symbol is not None and at is not None:
                start = linux.run_time(symbol)
                found.append(ReturnTrampoline(name, by, start, start + min(at[1], MAX_SIZE), text))
        self._all = found
        self.by_start = {one.start: one for one in found}

    def at(self, address: int) -> ReturnTrampoline | None:
        """The trampoline whose code is at an address."""
        return next((one for one in self._all if one.start <= address < one.end), None)

    def place(self, ip: int, exact: bool) -> Place | None:
        """What holds at a frame's ip; None outside of trampolines, and where that cannot be told."""
        found = self.at(ip if exact else ip - 1)
        return None if found is None else found.place(ip, exact)

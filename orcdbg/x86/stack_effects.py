"""How far has the stack pointer moved at each instruction boundary of a short piece of code?

The piece is a patch site, a thunk, a return trampoline or a detour. Instructions are followed from its first byte along
every branch that stays inside. A boundary that two paths reach with different depths, or that lies behind an instruction
which sets rsp outright, has no depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.x86.follow import DecodedText, follow
from orcdbg.x86.instructions import Instruction

_WORD = 8


@dataclass(frozen=True, slots=True)
class Boundary:
    """A boundary that execution can reach.

    `pushed` is by how many bytes the stack pointer is lower than at the piece's start, None where that is not known. `before`
    is the instruction that leads here, and `path` are those that moved the stack pointer since the start.
    `after_call` is True behind a call of other code, which in entry code need not come back with the stack as it was
    (error_entry leaves a pt_regs there).
    """

    address: int
    pushed: int | None
    before: Instruction | None
    path: tuple[Instruction, ...]
    after_call: bool = False


class _Depth(NamedTuple):
    """See `Boundary`."""

    pushed: int | None
    after_call: bool


class _DepthFlow:
    """Follows the stack's depth through a site."""

    def __init__(self, text: DecodedText) -> None:
        self._text = text

    def is_call_inside(self, insn: Instruction) -> bool:
        """Whether an instruction calls the site itself, as the loops do that fill the return stack buffer."""
        return insn.is_call and insn.target is not None and self._text.holds(insn.target)

    def change(self, insn: Instruction) -> int | None:
        """Bytes that an instruction pushes. A call into the site returns nowhere: it only pushes."""
        return _WORD if self.is_call_inside(insn) else insn.sp_change

    def steps(self, address: int, state: _Depth) -> Iterator[tuple[int, _Depth]]:
        """See `Flow`."""
        insn = self._text.instruction(address)
        if insn is None:
            return
        change = self.change(insn)
        pushed = None if state.pushed is None or change is None else state.pushed + change

        targets = [insn.target] if self.is_call_inside(insn) else self._text.successors(insn)
        for target in targets:
            if target is not None:
                is_behind = insn.is_call and target == insn.end
                yield target, _Depth(pushed, state.after_call or is_behind)

    def arrive(self, address: int, state: _Depth) -> _Depth:
        """See `Flow`."""
        return state

    def meet(self, known: _Depth, arrived: _Depth) -> _Depth:
        """See `Flow`."""
        if known.pushed in (arrived.pushed, None):
            # The loop's own back edge arrives with the loop's depth; anything else is a contradiction.
            return known
        return _Depth(None, arrived.after_call)


def stack_boundaries(text: bytes, address: int) -> dict[int, Boundary]:
    """The boundaries inside `text`, which lies at `address`, by address; its end counts, its start is depth 0."""
    site = DecodedText(text, address)
    flow = _DepthFlow(site)
    # A boundary can learn one thing: that its depth is in dispute.
    budget = 2 * (len(text) + 1)
    found = follow({address: _Depth(0, False)}, flow, budget)

    boundaries: dict[int, Boundary] = {}
    for place, state in found.states.items():
        before: Instruction | None = None
        path: tuple[Instruction, ...] = ()
        came_from = found.came_from.get(place)
        if came_from is not None:
            # States stand in the order in which they were first reached: what this one was reached from has its path.
            path = boundaries[came_from].path
            before = site.instruction(came_from)
            if before is not None and flow.change(before) != 0:
                path = (*path, before)
        boundaries[place] = Boundary(place, state.pushed, before, path, state.after_call)
    return boundaries


def call_before(text: bytes, address: int, return_address: int) -> Boundary | None:
    """The boundary at the call in `text` that returns to `return_address`; None where no reachable call does."""
    site = DecodedText(text, address)
    for boundary in stack_boundaries(text, address).values():
        insn = site.instruction(boundary.address)
        if insn is not None and insn.is_call and insn.end == return_address:
            return boundary
    return None

"""How far has the stack pointer moved at each instruction boundary inside a patch site?

Instructions are followed from the site's first byte along every branch that stays inside. A boundary that two paths reach
with different depths, or that lies behind an instruction which sets rsp outright, has no depth.
"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.x86.decode import Instruction, decode_one


@dataclass(frozen=True, slots=True)
class Boundary:
    """A boundary that execution can reach: `pushed` bytes below the stack pointer at the site's start, None if unknown.

    `before` is the instruction that leads here and `path` the stack-moving instructions from the site's start on.
    `after_call` is True behind a call of other code, which in entry code need not come back with the stack as it was
    (error_entry leaves a pt_regs there).
    """

    address: int
    pushed: int | None
    before: Instruction | None
    path: tuple[Instruction, ...]
    after_call: bool = False


def _steps(insn: Instruction, start: int, end: int) -> list[tuple[int, int | None]]:
    """Where execution goes from an instruction, inside [start, end), and how many bytes that pushed."""
    steps: list[tuple[int, int | None]] = []
    inside = insn.target is not None and start <= insn.target < end
    if insn.is_call and inside and insn.target is not None:
        # A call into the site itself (the loops that fill the return stack buffer) returns nowhere: it only pushes.
        return [(insn.target, 8)]
    if inside and insn.target is not None:
        steps.append((insn.target, insn.sp_change))
    if not insn.ends_flow:
        steps.append((insn.end, insn.sp_change))
    return steps


def stack_boundaries(text: bytes, address: int) -> dict[int, Boundary]:
    """The boundaries inside `text`, which lies at `address`, by address; its end counts, its start is depth 0."""
    end = address + len(text)
    found = {address: Boundary(address, 0, None, ())}
    pending = [address]
    while pending:
        here = found[pending.pop()]
        if here.address >= end:
            continue
        insn = decode_one(text[here.address - address :], here.address)
        if insn is None:
            continue
        for target, change in _steps(insn, address, end):
            pushed = None if here.pushed is None or change is None else here.pushed + change
            path = (*here.path, insn) if change != 0 and insn not in here.path else here.path
            after_call = here.after_call or (insn.is_call and target == insn.end)
            known = found.get(target)
            if known is None:
                found[target] = Boundary(target, pushed, insn, path, after_call)
                pending.append(target)
            elif known.pushed not in (pushed, None):
                # The loop's own back edge arrives with the loop's depth; anything else is a contradiction.
                found[target] = Boundary(target, None, known.before, known.path, after_call)
                pending.append(target)
    return found


def call_before(text: bytes, address: int, return_address: int) -> Boundary | None:
    """The boundary at the call in `text` that returns to `return_address`; None where no reachable call does."""
    for boundary in stack_boundaries(text, address).values():
        if boundary.address >= address + len(text):
            continue
        insn = decode_one(text[boundary.address - address :], boundary.address)
        if insn is not None and insn.is_call and insn.end == return_address:
            return boundary
    return None

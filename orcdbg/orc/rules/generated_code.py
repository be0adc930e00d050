"""Which rule holds in code that the kernel made at run time, which no ORC table covers?

A copy of code that has rows is described by them, at the same offset (orc_ftrace_find() does so for ftrace's trampolines). A
slot of a kprobe goes on with the stack of the probed instruction, plus what the detour pushed. BPF code keeps a frame
pointer from its prologue to its `leave`; before and behind, its instructions tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.kernel.generated_code import MadeCode
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRow
from orcdbg.x86.decode import Instruction, decode
from orcdbg.x86.stack_effects import stack_boundaries

FRAME_ROW = OrcRow("bp", 16, "prev_sp", -16, "call", False)
_PUSHED_ROW = OrcRow("sp", 16, "undefined", 0, "call", False)
_MAX_PROLOGUE = 48
# Reasons, for people.
BPF_WHY = "BPF code has no ORC rows: the rule follows from its frame pointer"
COPY_WHY = "a copy of {what}, whose row holds here"
RETURN_WHY = "the return behind a copy of ftrace's trampoline"
DETOUR_WHY = "the detour of an optimised kprobe: the probed instruction's row, and what the detour pushed"


class MadeRule(NamedTuple):
    """What holds at an ip in made code, and why.

    Either the ip in other text that stands for this one, `alike`, looked up as `exact` says, whose stack pointer was `pushed`
    bytes higher; or a `row` and `rule` of its own; `by` is the contract's word for it.
    """

    why: str
    alike: int | None = None
    exact: bool = True
    pushed: int = 0
    row: OrcRow | None = None
    rule: CfaRule | None = None
    by: str = "trampoline"
    instructions: tuple[str, ...] = ()


def made_rule(code: MadeCode, ip: int, exact: bool, text: AddressSpace) -> MadeRule | None:
    """The rule at `ip`, an interrupted address or a return address; None where nothing tells."""
    return _RULES[code.kind](code, ip, exact, text)


def _trampoline(code: MadeCode, ip: int, exact: bool, text: AddressSpace) -> MadeRule | None:
    offset = ip - code.start
    if offset < code.head:
        return MadeRule(COPY_WHY.format(what="ftrace's own trampoline"), code.origin + offset, exact)
    if offset == code.head and exact:
        # The return that stands behind the copy (RET_SIZE), with the traced function's address on top of the stack.
        return MadeRule(RETURN_WHY, row=FUNCTION_ENTRY, rule=CfaRule("sp", 8))
    return None


def _slot(code: MadeCode, ip: int, exact: bool, text: AddressSpace) -> MadeRule:
    offset = ip - code.start
    if offset > code.copied:
        # Behind the copied instruction stands a breakpoint or a jump back: there it has been executed. The ip that a
        # breakpoint saves is one past it, and not exact.
        return MadeRule(COPY_WHY.format(what="what follows the probed instruction"), code.origin + code.copied)
    return MadeRule(COPY_WHY.format(what="the probed instruction"), code.origin + offset, exact)


def _detour(code: MadeCode, ip: int, exact: bool, text: AddressSpace) -> MadeRule | None:
    offset = ip - code.start
    if offset >= code.head:
        behind = min(offset - code.head, code.copied)
        return MadeRule(COPY_WHY.format(what="the probed instructions"), code.origin + behind, exact)
    try:
        boundary = stack_boundaries(text.read(code.start, code.head), code.start).get(ip)
    except MemoryFault:
        return None
    if boundary is None or boundary.pushed is None:
        return None
    path = tuple(insn.mnemonic for insn in boundary.path)
    return MadeRule(DETOUR_WHY, code.origin, pushed=boundary.pushed, instructions=path)


def _bpf(code: MadeCode, ip: int, exact: bool, text: AddressSpace) -> MadeRule | None:
    try:
        body = text.read(code.start, min(ip - code.start + 16, code.end - code.start))
    except MemoryFault:
        return None
    before: Instruction | None = None
    pushed_at = moved_at = None
    for insn in decode(body, code.start):
        if insn.address >= ip:
            break
        if pushed_at is None and insn.raw == b"\x55" and insn.address - code.start <= _MAX_PROLOGUE:
            pushed_at = insn.end
        elif moved_at is None and insn.raw in (b"\x48\x89\xe5", b"\x48\x8b\xec") and pushed_at == insn.address:
            moved_at = insn.end
        before = insn
    if before is not None and before.end != ip:
        return None
    return _bpf_rule(before, pushed_at, moved_at)


def _bpf_rule(before: Instruction | None, pushed_at: int | None, moved_at: int | None) -> MadeRule:
    if moved_at is not None and before is not None and not _is_epilogue(before):
        return MadeRule(BPF_WHY, row=FRAME_ROW, rule=CfaRule("bp", 16), by="frame-pointer")
    if pushed_at is not None and moved_at is None:
        return MadeRule(BPF_WHY, row=_PUSHED_ROW, rule=CfaRule("sp", 16))
    return MadeRule(BPF_WHY, row=FUNCTION_ENTRY, rule=CfaRule("sp", 8))


def _is_epilogue(insn: Instruction) -> bool:
    """`leave`, or behind it the drop of the return address that the call at the traced function's entry pushed."""
    return insn.mnemonic.startswith("leave") or insn.raw == b"\x48\x83\xc4\x08"


_RULES: dict[str, Callable[[MadeCode, int, bool, AddressSpace], MadeRule | None]] = {
    "ftrace": _trampoline,
    "kprobe": _slot,
    "optprobe": _detour,
    "bpf": _bpf,
}

"""Which rule holds in code that the kernel made at run time, which no ORC table covers?

A copy of code that has rows is described by them, at the same offset (orc_ftrace_find() does so for ftrace's trampolines). A
slot of a kprobe goes on with the stack of the probed instruction, plus what the detour pushed. BPF code keeps a frame
pointer from its prologue to its `leave`; before and behind, its instructions tell.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.base.reasons import Reason
from orcdbg.kernel.generated_code import CodeKind, GeneratedCode
from orcdbg.orc.cfa import CfaRule, sp_rule
from orcdbg.orc.effective import AsBuilt, Derived, Effective, Source, Unknown
from orcdbg.orc.reasons import BehindFtraceCopy, BpfFrame, CopiedCode, KprobeDetour, Original
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.source import Lookup, Rules, StatedRows
from orcdbg.patches.code import Code
from orcdbg.x86.follow import straight
from orcdbg.x86.instructions import Instruction
from orcdbg.x86.stack_effects import stack_boundaries

FRAME_ROW = OrcRow(OrcRegister.BP, 16, OrcRegister.PREV_SP, -16, RowType.CALL, False)
FRAME_RULE = CfaRule(OrcRegister.BP, 16)
_PUSHED_ROW = OrcRow(OrcRegister.SP, 16, OrcRegister.UNDEFINED, 0, RowType.CALL, False)
_MAX_PROLOGUE = 48
_PUSH_RBP = b"\x55"
_RSP_TO_RBP = (b"\x48\x89\xe5", b"\x48\x8b\xec")  # either encoding of mov %rsp,%rbp


class StandsFor(NamedTuple):
    """The `ip` in other text that stands for one in generated code, looked up as `exact` says.

    The stack pointer there was `pushed` bytes higher, which `instructions` pushed.
    """

    reason: Reason
    ip: int
    exact: bool = True
    pushed: int = 0
    instructions: tuple[str, ...] = ()


class OwnRule(NamedTuple):
    """What holds at an ip in generated code by that code alone."""

    reason: Reason
    row: OrcRow
    rule: CfaRule
    source: Source = Source.TRAMPOLINE


def generated_rule(code: GeneratedCode, ip: int, exact: bool, text: AddressSpace) -> StandsFor | OwnRule | None:
    """The rule at `ip`, an interrupted address or a return address; None where nothing tells."""
    return _RULES[code.kind](code, ip, exact, text)


def _trampoline(code: GeneratedCode, ip: int, exact: bool, text: AddressSpace) -> StandsFor | OwnRule | None:
    offset = ip - code.start
    if offset < code.head:
        return StandsFor(CopiedCode(Original.FTRACE_TRAMPOLINE), code.origin + offset, exact)
    if offset == code.head and exact:
        # The return that stands behind the copy (RET_SIZE), with the traced function's address on top of the stack.
        return OwnRule(BehindFtraceCopy(), FUNCTION_ENTRY, sp_rule(8))
    return None


def _slot(code: GeneratedCode, ip: int, exact: bool, text: AddressSpace) -> StandsFor:
    offset = ip - code.start
    if offset > code.copied:
        # Behind the copied instruction stands a breakpoint or a jump back: there it has been executed. The ip that a
        # breakpoint saves is one past it, and not exact.
        return StandsFor(CopiedCode(Original.BEHIND_PROBED), code.origin + code.copied)
    return StandsFor(CopiedCode(Original.PROBED_INSTRUCTION), code.origin + offset, exact)


def _detour(code: GeneratedCode, ip: int, exact: bool, text: AddressSpace) -> StandsFor | None:
    offset = ip - code.start
    if offset >= code.head:
        behind = min(offset - code.head, code.copied)
        return StandsFor(CopiedCode(Original.PROBED_INSTRUCTIONS), code.origin + behind, exact)
    try:
        boundary = stack_boundaries(text.read(code.start, code.head), code.start).get(ip)
    except MemoryFault:
        return None
    if boundary is None or boundary.pushed is None:
        return None
    path = tuple(insn.mnemonic for insn in boundary.path)
    return StandsFor(KprobeDetour(), code.origin, pushed=boundary.pushed, instructions=path)


def _bpf(code: GeneratedCode, ip: int, exact: bool, text: AddressSpace) -> OwnRule | None:
    try:
        body = text.read(code.start, min(ip - code.start + 16, code.end - code.start))
    except MemoryFault:
        return None
    for address, state in straight(
        body, code.start, _Prologue(None, None, None), functools.partial(_after, code.start)
    ):
        if address == ip:
            return _bpf_rule(state)
        if address > ip:
            break
    return None


class _Prologue(NamedTuple):
    """How far a program's prologue has come: `before` is the last instruction, the others the ends of its two.

    Those are `push %rbp` and, right behind it, `mov %rsp,%rbp`; None while they have not been seen.
    """

    before: Instruction | None
    pushed_at: int | None
    moved_at: int | None


def _after(start: int, state: _Prologue, insn: Instruction) -> _Prologue:
    is_push = insn.raw == _PUSH_RBP and insn.address - start <= _MAX_PROLOGUE
    if state.pushed_at is None and is_push:
        return _Prologue(insn, insn.end, state.moved_at)
    is_move = insn.raw in _RSP_TO_RBP and state.pushed_at == insn.address
    if state.moved_at is None and is_move:
        return _Prologue(insn, state.pushed_at, insn.end)
    return state._replace(before=insn)


def _bpf_rule(state: _Prologue) -> OwnRule:
    before = state.before
    if state.moved_at is not None and before is not None and not _is_epilogue(before):
        return OwnRule(BpfFrame(), FRAME_ROW, FRAME_RULE, Source.FRAME_POINTER)
    if state.pushed_at is not None and state.moved_at is None:
        return OwnRule(BpfFrame(), _PUSHED_ROW, sp_rule(16))
    return OwnRule(BpfFrame(), FUNCTION_ENTRY, sp_rule(8))


def _is_epilogue(insn: Instruction) -> bool:
    """`leave`, or behind it the drop of the return address that the call at the traced function's entry pushed."""
    return insn.mnemonic.startswith("leave") or insn.raw == b"\x48\x83\xc4\x08"


_RULES: dict[CodeKind, Callable[[GeneratedCode, int, bool, AddressSpace], StandsFor | OwnRule | None]] = {
    CodeKind.FTRACE: _trampoline,
    CodeKind.KPROBE: _slot,
    CodeKind.OPTPROBE: _detour,
    CodeKind.BPF: _bpf,
}


class InsideGeneratedCode:
    """Code that the kernel made, by what it was made from.

    Args:
        code: the kernel.
        stated: the rows as built.
        rules: what holds at the place that a copy was made from: the whole answer, patches there counted.
    """

    def __init__(self, code: Code, stated: StatedRows, rules: Rules) -> None:
        self._code = code
        self._stated = stated
        self._rules = rules

    def at(self, lookup: Lookup) -> Effective | None:
        """The rule in generated code, which no table covers; unknown where nothing tells."""
        code = self._code.generated_at(lookup.address) if lookup.entry is None else None
        if code is None:
            return None

        found = generated_rule(code, lookup.ip, lookup.exact, self._code.memory)
        if found is None:
            return Unknown()
        if isinstance(found, OwnRule):
            return Derived(None, found.rule, found.row, found.reason, found.source)
        return self._as_original(found)

    def _as_original(self, found: StandsFor) -> Effective:
        """The rule of the text that generated code stands for, moved by what was pushed since."""
        entry, _ = self._stated.at(found.ip if found.exact else found.ip - 1)
        if entry is None:
            return Unknown()  # no generated code was copied from other generated code

        base = self._rules.at(found.ip, found.exact)
        if isinstance(base, Unknown):
            return base
        if base.entry is None or base.rule is None or (found.pushed and not base.rule.is_direct):
            return replace(base, rule=None) if isinstance(base, AsBuilt) else Unknown(base.entry, base.source)

        rule = base.rule.moved(found.pushed)
        if isinstance(base, Derived):
            instructions = (*base.instructions, *found.instructions)
            return replace(base, rule=rule, reason=found.reason, instructions=instructions)
        return Derived(
            entry=base.entry,
            rule=rule,
            row=base.entry.row,
            reason=found.reason,
            source=Source.TRAMPOLINE,
            instructions=found.instructions,
            doubt=base.doubt,
        )

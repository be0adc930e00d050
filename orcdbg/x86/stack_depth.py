"""How many bytes below the CFA is the stack pointer at the instructions of a function?

The function's text is gone through along its branches, by what instructions are called and name: that is many times quicker
than to decode them in full, as `caller_registers` must, and enough for a number that few of them change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from orcdbg.x86.branches import target_of
from orcdbg.x86.instructions import Outlined, outline
from orcdbg.x86.operands import memory_in, split_operands
from orcdbg.x86.registers import CALLEE_SAVED

AT_ENTRY = range(8, 9)
"""At a function's first instruction: the return address is on top of the stack."""

_WORD = 8
_WRAP, _MOST_ALIGNED = 1 << 64, 1 << 12
_PUSHES, _POPS = ("push", "pushq", "pushfq"), ("pop", "popq", "popfq")
_ALIASES = {
    f"%{alias}": register
    for register in CALLEE_SAVED
    for alias in (
        (register, f"{register}d", f"{register}w", f"{register}b")
        if register[1:].isdigit()
        else (register, f"e{register[1:]}", register[1:], f"{register[1:-1]}l", f"{register[1:]}l")
    )
}
_OTHERS_ON_STACK = ("pushw", "pushfw", "popw", "popfw", "enter")
_ONLY_READ = ("cmp", "test", "bt", "push", "call", "jmp", "mul", "div", "imul", "idiv", "nop")
_SUM = {"addq": -1, "subq": 1, "add": -1, "sub": 1}
_ENDS = ("ret", "jmp", "iret", "sysret", "ud", "hlt", "int3", "lret", "eret")
_MAY_BE_WARNING = "ud2"


class _State(NamedTuple):
    """The CFA less rsp, and less rbp, as ranges of bytes; None where that is not known."""

    depth: range | None
    frame: range | None

    def meet(self, other: _State) -> _State:
        """What both know."""
        return _State(
            self.depth if self.depth == other.depth else None, self.frame if self.frame == other.frame else None
        )


class StackDepths(NamedTuple):
    """Depths before the instructions of one function, by their addresses, those alone that are known; and its calls.

    A depth is a range of bytes, with one number in it but where the function has aligned its stack. `calls` has the address of
    each call by where it returns to. `pushed` has, for each callee-saved register that the function pushes, how far below the
    CFA the first of its slots is: compilers push one to keep it before they write it. `written` are those that it writes.
    """

    by_address: dict[int, range]
    calls: dict[int, int]
    pushed: dict[str, int]
    written: frozenset[str]

    def at(self, ip: int, exact: bool) -> range | None:
        """The depth before the instruction at `ip`; or if that is a return address, in the caller, as before its call."""
        address = ip if exact else self.calls.get(ip)
        return None if address is None else self.by_address.get(address)


def stack_depths(code: bytes, start: int) -> StackDepths:
    """The depths in a function that begins at `start` and has this text.

    What jumps through a table bring is not seen. Behind a `ud2`, where a warning comes back to, stands what the way through it
    says, unless another way leads there.
    """
    insns = {insn[0]: Outlined(*insn) for insn in outline(code, start)}
    known: dict[int, _State] = {}
    todo, behind_warnings = [(start, _State(AT_ENTRY, None))], list[tuple[int, _State]]()
    while todo or behind_warnings:
        if not todo:
            address, state = behind_warnings.pop()
            todo += [] if address in known else [(address, state)]
            continue
        address, state = todo.pop()
        while (insn := insns.get(address)) is not None:
            before = known.get(address)
            state = state if before is None else before.meet(state)
            if state == before:
                break
            known[address] = state
            state = _after(state, insn)
            name = insn.mnemonic.rpartition(" ")[2]
            target = target_of(insn.operands) if name.startswith(("j", "loop")) else None
            if target is not None:
                todo.append((target, state))
            if name == _MAY_BE_WARNING:
                behind_warnings.append((insn.end, state))
            if name.startswith(_ENDS):
                break
            address = insn.end
    calls = {insn.end: insn.address for insn in insns.values() if insn.mnemonic.startswith("call")}
    depths = {address: state.depth for address, state in known.items() if state.depth is not None}
    return StackDepths(depths, calls, *_saves(insns.values(), depths))


def _saves(insns: Iterable[Outlined], depths: Mapping[int, range]) -> tuple[dict[str, int], frozenset[str]]:
    """`pushed` and `written` of a function.

    A register that is moved to a slot counts as written: gcc may do that late, behind calls in which it was the caller's still.
    """
    pushed, written, moved = dict[str, int](), set[str](), set[str]()
    for insn in insns:
        first, _, last = insn.operands.partition(", ")
        stored, register = _ALIASES.get(first), _ALIASES.get(insn.operands.rpartition(" ")[2])
        if insn.mnemonic in _PUSHES and register is not None:
            depth = depths.get(insn.address)
            if depth is None or len(depth) > 1 or register in moved:
                moved.add(register)
            else:
                pushed.setdefault(register, depth.start + _WORD)
        elif stored is not None and last.endswith(("(%rsp)", "(%rbp)")) and insn.mnemonic.startswith("mov"):
            moved |= {stored} - pushed.keys()
        elif register is not None and not insn.mnemonic.startswith((*_POPS, *_ONLY_READ)):
            written.add(register)
    return {name: slot for name, slot in pushed.items() if name not in moved}, frozenset(written | moved)


def _after(state: _State, insn: Outlined) -> _State:
    """The state behind an instruction. A call comes back with the stack as it was."""
    name, operands = insn.mnemonic, insn.operands
    if name in _PUSHES:
        return state._replace(depth=_plus(state.depth, _WORD))
    if name in _POPS:
        depth = _plus(state.depth, -_WORD)
        return _State(None if operands == "%rsp" else depth, None if operands == "%rbp" else state.frame)
    if name.startswith("leave"):
        return _State(_plus(state.frame, -_WORD), None)
    if name.startswith(_OTHERS_ON_STACK):
        return _State(None, None)
    if name.startswith("xchg") and operands.startswith(("%rsp", "%rbp")):
        return _State(None, None)
    if not operands.endswith(("%rsp", "%esp", "%sp", "%rbp", "%ebp", "%bp")) or name.startswith(_ONLY_READ):
        return state

    first, last = split_operands(operands)[0], split_operands(operands)[-1]
    if last.endswith("bp"):
        is_frame = name in ("movq", "mov") and (first, last) == ("%rsp", "%rbp")
        return state._replace(frame=state.depth if is_frame else None)
    return state._replace(depth=_moved(state, name, first))


def _plus(depth: range | None, more: int) -> range | None:
    return None if depth is None else range(depth.start + more, depth.stop + more)


def _moved(state: _State, name: str, first: str) -> range | None:
    """The depth behind an instruction that writes rsp, by its first operand."""
    if name in _SUM and first.startswith("$"):
        return _plus(state.depth, _SUM[name] * int(first[1:], 0))
    if name in ("andq", "and") and first.startswith("$"):
        alignment = _WRAP - (int(first[1:], 0) % _WRAP)
        is_known = state.depth is not None and alignment.bit_count() == 1 and alignment <= _MOST_ALIGNED
        return range(state.depth.start, state.depth.stop + alignment - 1) if is_known and state.depth else None
    if name in ("movq", "mov") and first == "%rbp":
        return state.frame
    memory = memory_in(first) if name in ("leaq", "lea") else None
    base = None if memory is None else {"rsp": state.depth, "rbp": state.frame}.get(memory.base)
    return None if memory is None else _plus(base, -memory.offset)

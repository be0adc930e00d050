"""What do instructions do to the stack pointer, to what counts from it, and to the words that lie on the stack?

Values are not numbers but distances from something that has a name: the CFA, the words that an exception pushed, what a
register held at the beginning, a stack pointer that came from elsewhere. An instruction that does something else to a
register makes it unknown. Instructions are taken by their words alone (`outline`), which is many times quicker than to
decode them, and each distinct pair of words is understood once.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from orcdbg.x86.branches import target_of
from orcdbg.x86.instructions import Outlined
from orcdbg.x86.operands import BasedMemory, memory_in, register_in, split_operands
from orcdbg.x86.registers import CALLEE_SAVED

WORD = 8
_SP = "rsp"
_WRAP = 1 << 64

# A register by any of its names.
_WHOLE = {
    name: whole
    for whole, names in {
        **{f"r{n}": (f"r{n}", f"e{n}", n, f"{n}l") for n in ("si", "di", "bp", "sp")},
        **{f"r{n}x": (f"r{n}x", f"e{n}x", f"{n}x", f"{n}l", f"{n}h") for n in "abcd"},
        **{f"r{n}": (f"r{n}", f"r{n}d", f"r{n}w", f"r{n}b") for n in range(8, 16)},
    }.items()
    for name in names
}
REGISTERS = tuple(dict.fromkeys(_WHOLE.values()))
NOT_KEPT = tuple(name for name in REGISTERS if name not in CALLEE_SAVED and name != "rsp")
# Instructions whose last operand is only read, and those that write registers which they do not name.
_ONLY_READ = (
    "cmp",
    "test",
    "bt",
    "nop",
    "prefetch",
    "verw",
    "lgdt",
    "lidt",
    "lldt",
    "ltr",
    "invlpg",
    "clflush",
    "ptwrite",
)
_WRITES_UNNAMED = ("mul", "imul", "div", "idiv", "cpuid", "rdtsc", "rdmsr", "rdpmc", "xgetbv", "cmpxchg", "syscall")
_UNNAMED = ("rax", "rbx", "rcx", "rdx")
_STRINGS = ("rep", "movs", "stos", "lods", "scas", "cmps")
_STRING_REGISTERS = ("rax", "rcx", "rsi", "rdi")
_RETURNS = ("ret", "iret", "sysret", "sysexit", "lret", "eret")
_STOPS = ("ud", "int3")


SET = "rsp at "
"""How the names begin of stack pointers that an instruction took from elsewhere."""


class Distance(NamedTuple):
    """What a word is: `offset` bytes from what `name` stands for."""

    name: str
    offset: int

    def plus(self, more: int) -> Distance:
        """A value that many bytes further."""
        return Distance(self.name, self.offset + more)


class KnownWords(NamedTuple):
    """What is known before an instruction: registers by name, and stack words by where they lie; the rest is not known.

    `is_disputed` tells that paths brought different stack pointers: then `rsp` is that of the first. `is_first` is True
    while a stack begins here, whatever is pushed on it.
    """

    registers: Mapping[str, Distance]
    stack: Mapping[Distance, Distance]
    is_disputed: bool = False
    is_first: bool = False

    @property
    def sp(self) -> Distance | None:
        """The stack pointer."""
        return self.registers.get("rsp")

    def with_register(self, name: str, value: Distance | None) -> KnownWords:
        """The same with another register."""
        if self.registers.get(name) == value:
            return self
        registers = dict(self.registers)
        if value is None:
            del registers[name]
        else:
            registers[name] = value
        return self._replace(registers=registers)

    def with_sp(self, value: Distance) -> KnownWords:
        """The same with a stack pointer that was set outright: what paths brought before is no matter any more."""
        return self.with_register("rsp", value)._replace(is_disputed=False)

    def without(self, names: tuple[str, ...]) -> KnownWords:
        """The same with registers that are not known any more."""
        if not any(name in self.registers for name in names):
            return self
        return self._replace(registers={name: value for name, value in self.registers.items() if name not in names})

    def stored(self, place: Distance | None, value: Distance | None) -> KnownWords:
        """The same with another word on the stack; a store to a place that is not known changes none that is."""
        if place is None or self.stack.get(place) == value:
            return self
        stack = dict(self.stack)
        if value is None:
            del stack[place]
        else:
            stack[place] = value
        return self._replace(stack=stack)

    def meet(self, other: KnownWords) -> KnownWords:
        """What both know. Where the stack pointers differ the first one stays, and is in dispute."""
        if self == other:
            return self
        mine, theirs = self.sp, other.sp
        is_disputed = self.is_disputed or other.is_disputed or mine != theirs
        registers = {n: value for n, value in self.registers.items() if n == "rsp" or other.registers.get(n) == value}
        stack = {place: value for place, value in self.stack.items() if other.stack.get(place) == value}
        return KnownWords(registers, stack, is_disputed, self.is_first and other.is_first)

    def address(self, memory: BasedMemory | None) -> Distance | None:
        """Where an operand in memory is; None where that is not known."""
        base = None if memory is None else self.registers.get(memory.base)
        return None if base is None or memory is None else base.plus(memory.offset)

    def below_gone(self) -> KnownWords:
        """The same behind a call, which has overwritten what is below the stack pointer."""
        sp = self.sp
        if sp is None:
            return self
        gone = [place for place in self.stack if place.name == sp.name and place.offset < sp.offset]
        return self if not gone else self._replace(stack={p: v for p, v in self.stack.items() if p not in gone})


class Goes(enum.Enum):
    """Where execution goes from an instruction."""

    ON = enum.auto()
    JUMP = enum.auto()  # away, to `target`, or by a table where there is none
    BRANCH = enum.auto()  # to `target`, or on
    CALL = enum.auto()
    RETURN = enum.auto()
    STOP = enum.auto()  # nowhere, unless what is trapped comes back


After = Callable[[KnownWords, int], KnownWords]


class Understood(NamedTuple):
    """An instruction: where it goes, and what it does to what is known, None for nothing; `after` takes its address."""

    goes: Goes
    target: int | None
    after: After | None


@functools.lru_cache(maxsize=1 << 15)
def understand(mnemonic: str, operands: str) -> Understood:
    """An instruction by its words, as `outline` has them."""
    name = mnemonic.rpartition(" ")[2]
    if name.startswith("call"):
        return Understood(Goes.CALL, target_of(operands), _after_call)
    if name.startswith(("j", "loop")):
        goes = Goes.JUMP if name.startswith("jmp") else Goes.BRANCH
        return Understood(goes, target_of(operands), None)
    if name.startswith(_RETURNS):
        return Understood(Goes.RETURN, None, None)
    if name.startswith(_STOPS):
        return Understood(Goes.STOP, None, None)
    return Understood(Goes.ON, None, _effect(name, mnemonic, operands))


def words_after(insn: Outlined, words: KnownWords) -> KnownWords:
    """What is known behind an instruction that goes on. A call comes back with the stack as it was."""
    after = understand(insn.mnemonic, insn.operands).after
    return words if after is None else after(words, insn.address)


def _after_call(words: KnownWords, address: int) -> KnownWords:
    return words.without(NOT_KEPT).below_gone()


def _effect(name: str, mnemonic: str, operands: str) -> After | None:
    """What an instruction does that neither jumps nor calls."""
    parts = split_operands(operands)
    for start, effect in _BY_NAME:
        if name in start:
            return effect(parts)
    if name.startswith(_ONLY_READ):
        return None
    if mnemonic.startswith(_STRINGS) and not name.startswith(("movsl", "movsx", "movsw", "movsb")):
        return _clobber(_STRING_REGISTERS)
    if name.startswith(_WRITES_UNNAMED) and (len(parts) < 2 or name.startswith("cmpxchg")):
        return _clobber((*_UNNAMED, *_written(parts[-1:])))
    if name.startswith(("xchg", "xadd")):
        return _clobber(_written(parts), _memory(parts))
    return _clobber(_written(parts[-1:]), _memory(parts[-1:])) if parts else None


def _written(parts: list[str]) -> tuple[str, ...]:
    return tuple(_WHOLE[part[1:]] for part in parts if part[1:] in _WHOLE and part.startswith("%"))


def _memory(parts: list[str]) -> BasedMemory | None:
    return next((memory for part in parts if (memory := memory_in(part)) is not None), None)


def _clobber(names: tuple[str, ...], memory: BasedMemory | None = None) -> After | None:
    """Registers and a word that are something else from now on. A stack pointer that is set outright gets a name."""
    if "rsp" in names:
        rest = tuple(name for name in names if name != "rsp")
        return lambda words, address: words.without(rest).with_sp(_elsewhere(address))
    if not names and memory is None:
        return None

    def after(words: KnownWords, address: int) -> KnownWords:
        words = words.without(names)
        return words if memory is None else words.stored(words.address(memory), None)

    return after


def _elsewhere(address: int) -> Distance:
    """A stack pointer that the instruction at `address` has set."""
    return Distance(f"{SET}{address:x}", 0)


def _push(parts: list[str]) -> After:
    operand = parts[0] if parts else ""
    register, memory = register_in(operand), memory_in(operand)
    constant = None if operand else Distance("flags", 0)

    def after(words: KnownWords, address: int) -> KnownWords:
        place = words.address(memory)
        value = words.registers.get(register) if register is not None else words.stack.get(place) if place else constant
        sp = words.sp
        if sp is None:
            return words
        sp = sp.plus(-WORD)
        return words.stored(sp, value).with_register("rsp", sp)

    return after


def _pop(parts: list[str]) -> After:
    operand = parts[0] if parts else ""
    register, memory = register_in(operand), memory_in(operand)

    def after(words: KnownWords, address: int) -> KnownWords:
        sp = words.sp
        value = None if sp is None else words.stack.get(sp)
        if register == "rsp":
            return words.with_sp(value or _elsewhere(address))
        if sp is not None:
            words = words.with_register("rsp", sp.plus(WORD))
        if register is not None:
            return words.with_register(register, value)
        return words if memory is None else words.stored(words.address(memory), value)

    return after


def _moves(parts: list[str]) -> After | None:
    """A move of 64 bits between registers and memory."""
    first, last = parts[0], parts[-1]
    target, moved = register_in(last), register_in(first)
    from_memory, to_memory = memory_in(first), memory_in(last)

    if target is None and to_memory is not None:
        memory = to_memory  # narrowed, for the function below

        def store(words: KnownWords, address: int) -> KnownWords:
            if moved == _SP and memory.base not in words.registers:
                # The top of another stack, which is gone over to next: its address gets a name.
                words = words.with_register(memory.base, Distance(f"{memory.base} at {address:x}", 0))
            return words.stored(words.address(memory), None if moved is None else words.registers.get(moved))

        return store
    if target is None:
        return None

    if target not in REGISTERS:
        return _clobber(_written([last]))

    def after(words: KnownWords, address: int) -> KnownWords:
        if moved is not None:
            value = words.registers.get(moved)
        else:
            place = words.address(from_memory)
            value = None if place is None else words.stack.get(place)
        if target == "rsp":
            return words.with_sp(value or _elsewhere(address))
        return words.with_register(target, value)

    return after


def _lea(parts: list[str]) -> After | None:
    memory, target = memory_in(parts[0]), register_in(parts[-1])
    is_by_sp = parts[0].endswith(f"(%{_SP})")
    if target is None or target not in REGISTERS:
        return _clobber(_written(parts[-1:]))

    def after(words: KnownWords, address: int) -> KnownWords:
        value = words.address(memory)
        if target == _SP and not is_by_sp:
            return words.with_sp(value or _elsewhere(address))
        return words.with_register(target, value)

    return after


def _sum(sign: int) -> Callable[[list[str]], After | None]:
    """add (sign 1) or sub (-1)."""

    def effect(parts: list[str]) -> After | None:
        register, first = register_in(parts[-1]), parts[0]
        if register not in REGISTERS or not first.startswith("$"):
            return _clobber(_written(parts[-1:]), _memory(parts[-1:]))
        more = sign * int(first[1:], 0)
        more = more - _WRAP if more >= _WRAP >> 1 else more

        def after(words: KnownWords, address: int) -> KnownWords:
            value = words.registers.get(register)
            return words if value is None else words.with_register(register, value.plus(more))

        return after

    return effect


def _and(parts: list[str]) -> After | None:
    """A stack pointer that is aligned counts from a name of its own."""
    return _clobber(_written(parts[-1:]), _memory(parts[-1:]))


def _leave(parts: list[str]) -> After:
    pop = _pop(["%rbp"])

    def after(words: KnownWords, address: int) -> KnownWords:
        frame = words.registers.get("rbp")
        return pop(words.with_sp(frame or _elsewhere(address)), address)

    return after


_BY_NAME: tuple[tuple[tuple[str, ...], Callable[[list[str]], After | None]], ...] = (
    (("push", "pushq", "pushf", "pushfq"), _push),
    (("pop", "popq", "popf", "popfq"), _pop),
    (("mov", "movq", "movabsq"), _moves),
    (("lea", "leaq"), _lea),
    (("add", "addq"), _sum(1)),
    (("sub", "subq"), _sum(-1)),
    (("and", "andq"), _and),
    (("leave", "leaveq"), _leave),
)

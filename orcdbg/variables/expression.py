"""Where is a variable, by the expression that the build has for it?

DWARF 5, section 2.5 and 2.6: a stack machine of one-byte operations. An expression ends with a place in memory, in registers,
in pieces of both, or with a value that is nowhere. What it needs of the frame it asks a `FrameState`; what that cannot prove
ends the evaluation with the reason.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import signed
from orcdbg.base.reasons import WhyNoValue
from orcdbg.base.sizes import U64
from orcdbg.formats.dwarf_cursor import Cursor
from orcdbg.typed.objects import ValueUnavailable

# Branches go backwards too; what compilers emit has some tens of operations.
MAX_STEPS = 1 << 12
MAX_STACK = 256
MAX_PIECES = 256
MAX_PIECE = 1 << 20

REG0, REG31, BREG0, BREG31, LIT0, LIT31 = 0x50, 0x6F, 0x70, 0x8F, 0x30, 0x4F
ADDR, DEREF, DUP, DROP, OVER, PICK, SWAP, ROT = 0x03, 0x06, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17
ABS, NEG, NOT, PLUS_UCONST, BRA, SKIP, NOP = 0x19, 0x1F, 0x20, 0x23, 0x28, 0x2F, 0x96
CONSTU, CONSTS, REGX, FBREG, BREGX, PIECE, DEREF_SIZE = 0x10, 0x11, 0x90, 0x91, 0x92, 0x93, 0x94
CALL_FRAME_CFA, BIT_PIECE, IMPLICIT_VALUE, STACK_VALUE, IMPLICIT_POINTER = 0x9C, 0x9D, 0x9E, 0x9F, 0xA0
ADDRX, CONSTX, ENTRY_VALUE, CONST_TYPE, REGVAL_TYPE, DEREF_TYPE, CONVERT, REINTERPRET = (
    0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA8, 0xA9,
)  # fmt: skip
GNU_UNINIT, GNU_IMPLICIT_POINTER = 0xF0, 0xF2
# Those of GNU before DWARF 5 had them.
_GNU = {
    0xF3: ENTRY_VALUE, 0xF4: CONST_TYPE, 0xF5: REGVAL_TYPE, 0xF6: DEREF_TYPE, 0xF7: CONVERT, 0xF9: REINTERPRET,
    0xFB: ADDRX, 0xFC: CONSTX,
}  # fmt: skip
# DW_OP_const1u to const8s: bytes, and whether there is a sign.
_CONSTANTS = {0x08 + number: (1 << number // 2, bool(number % 2)) for number in range(8)}


class Number(NamedTuple):
    """A value on the stack: of the generic type, an address's, where it has no sign of its own."""

    value: int
    size: int = 8
    is_signed: bool | None = None

    @property
    def as_signed(self) -> int:
        """With its upper bit as the sign."""
        return signed(self.value, 8 * self.size)

    @property
    def meant(self) -> int:
        """As its type has it, the generic type without a sign."""
        return self.as_signed if self.is_signed else self.value

    def like(self, value: int) -> Number:
        """Another of its type."""
        return Number(value & (1 << 8 * self.size) - 1, self.size, self.is_signed)


@dataclass(frozen=True, slots=True)
class InRegister:
    """A register holds it."""

    number: int


@dataclass(frozen=True, slots=True)
class AtAddress:
    """Memory holds it."""

    address: int


@dataclass(frozen=True, slots=True)
class Computed:
    """It is nowhere, and has this value."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Nowhere:
    """It was optimised away."""

    why: str


VariableLocation = InRegister | AtAddress | Computed | Nowhere


class LocationPart(NamedTuple):
    """A part of a variable, lowest bits first; `bits` is None of all of it. It begins `first_bit` bits into its location."""

    location: VariableLocation
    bits: int | None = None
    first_bit: int = 0


class FrameState(Protocol):
    """What expressions ask of a frame; ValueUnavailable says why it cannot tell, MemoryFault that memory is not there."""

    def register(self, number: int) -> int:
        """A register's value, by DWARF's number for it."""

    def cfa(self) -> int:
        """The canonical frame address."""

    def frame_base(self) -> int:
        """What DW_OP_fbreg counts from."""

    def read(self, address: int, size: int) -> bytes:
        """Memory."""

    def run_time(self, address: int) -> int:
        """The run-time address of an address that the file states."""

    def numbered_address(self, number: int) -> int:
        """The address of a number in `.debug_addr`, as the file states it."""

    def entry_value(self, expression: bytes) -> int:
        """What an expression was when the function was entered."""

    def base_type(self, offset: int) -> tuple[int, bool | None]:
        """Size, and whether it has a sign, of the basic type whose entry is there in the unit; the generic one is at 0."""


def evaluated(expression: bytes, frame: FrameState, name: str, offset_size: int = 4) -> list[LocationPart]:
    """Where a variable is; one part without a number of bits is all of it.

    Args:
        expression: the operations.
        frame: what they ask.
        name: of the file, for messages.
        offset_size: of offsets into other sections, in bytes.

    Raises:
        ValueUnavailable: the frame does not tell what it needs, or an operation is not known.
        MemoryFault: it reads memory that is not there.
        UnsupportedFormat: it is damaged.
    """
    return _Evaluation(expression, frame, name, offset_size).parts()


def value_of(expression: bytes, frame: FrameState, name: str, initial: int | None = None) -> int:
    """The number that an expression leaves, such as a call's argument; errors as of `evaluated`."""
    parts = _Evaluation(expression, frame, name, 4, initial).parts()
    location = parts[0].location if len(parts) == 1 and parts[0].bits is None else None
    if isinstance(location, AtAddress):
        return location.address
    if isinstance(location, InRegister):
        return frame.register(location.number)
    if isinstance(location, Computed):
        return int.from_bytes(location.data[:8], "little")
    if isinstance(location, Nowhere):
        raise ValueUnavailable(location.why, WhyNoValue.OPTIMISED_OUT)
    raise ValueUnavailable("it is in pieces", WhyNoValue.NOT_UNDERSTOOD)


class _Evaluation:
    """One expression as it is worked off."""

    def __init__(
        self, expression: bytes, frame: FrameState, name: str, offset_size: int, initial: int | None = None
    ) -> None:
        self._cursor = Cursor(expression, 0, len(expression), name)
        self._frame = frame
        self._offset_size = offset_size
        self._stack: list[Number] = [] if initial is None else [Number(initial)]
        self._location: VariableLocation | None = None
        self._parts: list[LocationPart] = []

    def parts(self) -> list[LocationPart]:
        """Runs it."""
        cursor = self._cursor
        if not cursor.data:
            return [LocationPart(Nowhere("optimised out"))]

        for _ in range(MAX_STEPS):
            if cursor.at >= cursor.end:
                break
            operation = cursor.fixed(1)
            self._step(_GNU.get(operation, operation))
            if len(self._stack) > MAX_STACK or len(self._parts) > MAX_PIECES:
                raise UnsupportedFormat(cursor.name, "an expression that leaves too much")
        else:
            raise UnsupportedFormat(cursor.name, f"an expression of more than {MAX_STEPS} steps")

        return self._parts or [LocationPart(self._ended())]

    def _ended(self) -> VariableLocation:
        """The location that the operations so far describe."""
        location, self._location = self._location, None
        if location is not None:
            return location
        if self._stack:
            return AtAddress(self._stack[-1].value & U64)
        return Nowhere("optimised out")

    def _step(self, operation: int) -> None:
        if LIT0 <= operation <= LIT31:
            self._push(operation - LIT0)
        elif BREG0 <= operation <= BREG31:
            self._push(self._frame.register(operation - BREG0) + self._cursor.sleb())
        elif REG0 <= operation <= REG31:
            self._location = InRegister(operation - REG0)
        elif operation in _CONSTANTS:
            size, has_sign = _CONSTANTS[operation]
            number = self._cursor.fixed(size)
            self._push(signed(number, 8 * size) if has_sign else number)
        elif operation in _BINARY:
            self._binary(_BINARY[operation])
        elif operation in _OPERATIONS:
            _OPERATIONS[operation](self)
        else:
            why = f"its location needs the operation {operation:#x}, which orcdbg does not know"
            raise ValueUnavailable(why, WhyNoValue.NOT_UNDERSTOOD)

    # The stack

    def _push(self, value: int) -> None:
        self._stack.append(Number(value & U64))

    def _pop(self) -> Number:
        if not self._stack:
            raise UnsupportedFormat(self._cursor.name, "an expression takes from an empty stack")
        return self._stack.pop()

    def _peek(self, depth: int) -> Number:
        if depth >= len(self._stack):
            raise UnsupportedFormat(self._cursor.name, "an expression takes from an empty stack")
        return self._stack[-1 - depth]

    def _binary(self, compute: Callable[[Number, Number], int]) -> None:
        right, left = self._pop(), self._pop()
        if (left.size, left.is_signed) != (right.size, right.is_signed) and compute not in _SHIFTS:
            raise ValueUnavailable("its location mixes types", WhyNoValue.NOT_UNDERSTOOD)
        result = compute(left, right)
        self._stack.append(Number(result) if compute in _COMPARISONS else left.like(result))

    # Operations

    def _addr(self) -> None:
        self._push(self._frame.run_time(self._cursor.fixed(8)))

    def _addrx(self) -> None:
        self._push(self._frame.run_time(self._frame.numbered_address(self._cursor.uleb())))

    def _constx(self) -> None:
        self._push(self._frame.numbered_address(self._cursor.uleb()))

    def _constu(self) -> None:
        self._push(self._cursor.uleb())

    def _consts(self) -> None:
        self._push(self._cursor.sleb())

    def _deref(self) -> None:
        self._push(int.from_bytes(self._frame.read(self._pop().value, 8), "little"))

    def _deref_size(self) -> None:
        size = self._cursor.fixed(1)
        if not 0 < size <= 8:
            raise UnsupportedFormat(self._cursor.name, f"an expression reads {size} bytes")
        self._push(int.from_bytes(self._frame.read(self._pop().value, size), "little"))

    def _dup(self) -> None:
        self._stack.append(self._peek(0))

    def _over(self) -> None:
        self._stack.append(self._peek(1))

    def _pick(self) -> None:
        self._stack.append(self._peek(self._cursor.fixed(1)))

    def _swap(self) -> None:
        first, second = self._pop(), self._pop()
        self._stack += [first, second]

    def _rot(self) -> None:
        first, second, third = self._pop(), self._pop(), self._pop()
        self._stack += [first, third, second]

    def _absolute(self) -> None:
        number = self._pop()
        self._stack.append(number.like(number.value if number.is_signed is False else abs(number.as_signed)))

    def _negated(self) -> None:
        number = self._pop()
        self._stack.append(number.like(-number.value))

    def _inverted(self) -> None:
        number = self._pop()
        self._stack.append(number.like(~number.value))

    def _plus_uconst(self) -> None:
        number = self._pop()
        self._stack.append(number.like(number.value + self._cursor.uleb()))

    def _bra(self) -> None:
        distance = signed(self._cursor.fixed(2), 16)
        if self._pop().value:
            self._go(distance)

    def _skip(self) -> None:
        self._go(signed(self._cursor.fixed(2), 16))

    def _go(self, distance: int) -> None:
        target = self._cursor.at + distance
        if not 0 <= target <= self._cursor.end:
            raise UnsupportedFormat(self._cursor.name, "an expression jumps out of itself")
        self._cursor.at = target

    def _nop(self) -> None:
        pass

    def _regx(self) -> None:
        self._location = InRegister(self._cursor.uleb())

    def _bregx(self) -> None:
        number = self._cursor.uleb()
        self._push(self._frame.register(number) + self._cursor.sleb())

    def _fbreg(self) -> None:
        self._push(self._frame.frame_base() + self._cursor.sleb())

    def _call_frame_cfa(self) -> None:
        self._push(self._frame.cfa())

    def _implicit_value(self) -> None:
        self._location = Computed(self._cursor.take(self._cursor.uleb()))

    def _stack_value(self) -> None:
        number = self._pop()
        # A variable may be wider than the number, which then goes on with its sign.
        size = number.size if number.is_signed is None else max(number.size, 8)
        self._location = Computed((number.meant & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def _implicit_pointer(self) -> None:
        self._cursor.take(self._offset_size)
        self._cursor.sleb()
        self._location = Nowhere("the pointer was optimised out; what it pointed to may be a variable of its own")

    def _piece(self) -> None:
        size = self._cursor.uleb()
        if size > MAX_PIECE:
            raise UnsupportedFormat(self._cursor.name, f"a piece of {size} bytes")
        self._end_part(8 * size, 0)

    def _bit_piece(self) -> None:
        size, first = self._cursor.uleb(), self._cursor.uleb()
        if max(size, first) > 8 * MAX_PIECE:
            raise UnsupportedFormat(self._cursor.name, f"a piece of {size} bits")
        self._end_part(size, first)

    def _end_part(self, bits: int, first_bit: int) -> None:
        location = self._location
        self._location = None
        if location is None and self._stack:
            location = AtAddress(self._pop().value & U64)
        self._parts.append(LocationPart(location or Nowhere("a part of it was optimised out"), bits, first_bit))

    def _entry_value(self) -> None:
        self._push(self._frame.entry_value(self._cursor.take(self._cursor.uleb())))

    # Values with a type

    def _typed(self, number: int, offset: int) -> None:
        size, has_sign = self._frame.base_type(offset)
        self._stack.append(Number(number & (1 << 8 * size) - 1, size, has_sign))

    def _const_type(self) -> None:
        offset = self._cursor.uleb()
        data = self._cursor.take(self._cursor.fixed(1))
        self._typed(int.from_bytes(data, "little"), offset)

    def _regval_type(self) -> None:
        number = self._cursor.uleb()
        self._typed(self._frame.register(number), self._cursor.uleb())

    def _deref_type(self) -> None:
        size = self._cursor.fixed(1)
        data = self._frame.read(self._pop().value, size)
        self._typed(int.from_bytes(data, "little"), self._cursor.uleb())

    def _convert(self) -> None:
        self._typed(self._pop().meant, self._cursor.uleb())

    def _reinterpret(self) -> None:
        self._typed(self._pop().value, self._cursor.uleb())


def _div(left: Number, right: Number) -> int:
    """Of the generic type with a sign, section 2.5.1.4."""
    if not right.value:
        raise ValueUnavailable("its location divides by 0", WhyNoValue.NOT_UNDERSTOOD)
    if left.is_signed is False:
        return left.value // right.value
    quotient = abs(left.as_signed) // abs(right.as_signed)
    return quotient if (left.as_signed < 0) == (right.as_signed < 0) else -quotient


def _mod(left: Number, right: Number) -> int:
    """Of the generic type without a sign, as gdb has it."""
    if not right.value:
        raise ValueUnavailable("its location divides by 0", WhyNoValue.NOT_UNDERSTOOD)
    if not left.is_signed:
        return left.value % right.value
    remainder = abs(left.as_signed) % abs(right.as_signed)
    return -remainder if left.as_signed < 0 else remainder


def _shl(left: Number, right: Number) -> int:
    return left.value << right.value if right.value < 8 * left.size else 0


def _shr(left: Number, right: Number) -> int:
    return left.value >> right.value if right.value < 8 * left.size else 0


def _shra(left: Number, right: Number) -> int:
    return left.as_signed >> min(right.value, 8 * left.size - 1)


def _of_values(compute: Callable[[int, int], int]) -> Callable[[Number, Number], int]:
    return lambda left, right: compute(left.value, right.value)


def _comparison(compute: Callable[[int, int], bool]) -> Callable[[Number, Number], int]:
    """Of the generic type with a sign."""

    def compared(left: Number, right: Number) -> int:
        if left.is_signed is False:
            return int(compute(left.value, right.value))
        return int(compute(left.as_signed, right.as_signed))

    return compared


_SHIFTS = {_shl, _shr, _shra}
_BINARY: Mapping[int, Callable[[Number, Number], int]] = {
    0x1A: _of_values(operator.and_),
    0x1B: _div,
    0x1C: _of_values(operator.sub),
    0x1D: _mod,
    0x1E: _of_values(operator.mul),
    0x21: _of_values(operator.or_),
    0x22: _of_values(operator.add),
    0x24: _shl,
    0x25: _shr,
    0x26: _shra,
    0x27: _of_values(operator.xor),
    0x29: _comparison(operator.eq),
    0x2A: _comparison(operator.ge),
    0x2B: _comparison(operator.gt),
    0x2C: _comparison(operator.le),
    0x2D: _comparison(operator.lt),
    0x2E: _comparison(operator.ne),
}
_COMPARISONS = {_BINARY[code] for code in range(0x29, 0x2F)}

_OPERATIONS: Mapping[int, Callable[[_Evaluation], object]] = {
    ADDR: _Evaluation._addr,
    ADDRX: _Evaluation._addrx,
    CONSTX: _Evaluation._constx,
    CONSTU: _Evaluation._constu,
    CONSTS: _Evaluation._consts,
    DEREF: _Evaluation._deref,
    DEREF_SIZE: _Evaluation._deref_size,
    DUP: _Evaluation._dup,
    DROP: _Evaluation._pop,
    OVER: _Evaluation._over,
    PICK: _Evaluation._pick,
    SWAP: _Evaluation._swap,
    ROT: _Evaluation._rot,
    ABS: _Evaluation._absolute,
    NEG: _Evaluation._negated,
    NOT: _Evaluation._inverted,
    PLUS_UCONST: _Evaluation._plus_uconst,
    BRA: _Evaluation._bra,
    SKIP: _Evaluation._skip,
    NOP: _Evaluation._nop,
    GNU_UNINIT: _Evaluation._nop,
    REGX: _Evaluation._regx,
    BREGX: _Evaluation._bregx,
    FBREG: _Evaluation._fbreg,
    CALL_FRAME_CFA: _Evaluation._call_frame_cfa,
    PIECE: _Evaluation._piece,
    BIT_PIECE: _Evaluation._bit_piece,
    IMPLICIT_VALUE: _Evaluation._implicit_value,
    STACK_VALUE: _Evaluation._stack_value,
    IMPLICIT_POINTER: _Evaluation._implicit_pointer,
    GNU_IMPLICIT_POINTER: _Evaluation._implicit_pointer,
    ENTRY_VALUE: _Evaluation._entry_value,
    CONST_TYPE: _Evaluation._const_type,
    REGVAL_TYPE: _Evaluation._regval_type,
    DEREF_TYPE: _Evaluation._deref_type,
    CONVERT: _Evaluation._convert,
    REINTERPRET: _Evaluation._reinterpret,
}

"""What does C make of two numbers of types?

The integers are those of x86-64, where int has 32 bits and long has 64. What the standard leaves undefined is refused, but
for the overflow of signed numbers, which wraps: the kernel is built with -fno-strict-overflow.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from orcdbg.base.errors import UsageError
from orcdbg.base.reading import signed
from orcdbg.typed.types import EnumType, IntKind, IntType

_INT_SIZE = 4

# What C's arithmetic gives, by size and sign.
_INTEGERS = {
    (size, is_signed): IntType(name if is_signed else f"unsigned {name}", size, is_signed)
    for size, name in ((4, "int"), (8, "long"), (16, "__int128"))
    for is_signed in (True, False)
}
INT, UNSIGNED_INT, LONG, UNSIGNED_LONG = (
    _INTEGERS[4, True],
    _INTEGERS[4, False],
    _INTEGERS[8, True],
    _INTEGERS[8, False],
)
CHAR = IntType("char", 1, True, IntKind.CHAR)

Integer = IntType | EnumType


def promoted(type_: Integer, bit_size: int = 0) -> IntType:
    """The type that an integer is computed in by itself; C's integer promotions.

    Args:
        type_: its type.
        bit_size: its bits, of a bit-field: one that an int holds is an int.
    """
    if type_.size < _INT_SIZE or 0 < bit_size < 8 * _INT_SIZE:
        return INT
    found = _INTEGERS.get((type_.size, type_.is_signed))
    if found is None:
        raise UsageError(f"numbers of {type_.size} bytes are not computed with")
    return found


def common(left: IntType, right: IntType) -> IntType:
    """The type that two promoted integers are computed in; C's usual arithmetic conversions."""
    if left.size != right.size:
        return max(left, right, key=lambda type_: type_.size)
    return right if left.is_signed else left


def wrapped(number: int, type_: IntType) -> int:
    """A number as that type holds it."""
    bits = 8 * type_.size
    low = number & (1 << bits) - 1
    return signed(low, bits) if type_.is_signed else low


COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}


def computed(symbol: str, left: int, right: int, type_: IntType) -> int:
    """`left symbol right` for numbers of one type, as that type holds it.

    Raises:
        UsageError: the standard leaves it undefined, or C has no such operation of integers.
    """
    if symbol in _OPERATIONS:
        return wrapped(_OPERATIONS[symbol](left, right), type_)
    if symbol not in ("/", "%"):
        raise UsageError(f"no operation of numbers: {symbol}")
    if not right:
        raise UsageError("a division by zero")

    quotient = abs(left) // abs(right)
    if (left < 0) != (right < 0):
        quotient = -quotient
    if wrapped(quotient, type_) != quotient:
        raise UsageError(f"{left} / {right} is no {type_.name}")
    return quotient if symbol == "/" else left - quotient * right


def shifted(symbol: str, number: int, count: int, type_: IntType) -> int:
    """`number << count` or `number >> count` of a number of that type.

    Raises:
        UsageError: the standard leaves it undefined: so many bits the type has not.
    """
    if not 0 <= count < 8 * type_.size:
        raise UsageError(f"a shift by {count}: {type_.name} has {8 * type_.size} bits", "cast to a wider type first")
    return wrapped(number << count if symbol == "<<" else number >> count, type_)


def constant(text: str) -> tuple[int, IntType]:
    """The number of an integer constant, and its type.

    A decimal one that no long holds is unsigned, as in gdb.

    Raises:
        UsageError: it is none, or larger than 64 bits.
    """
    digits = text.lower().rstrip("ul")
    suffix = text.lower()[len(digits) :]
    base = {"0x": 16, "0b": 2}.get(digits[:2], 8 if digits.startswith("0") and len(digits) > 1 else 10)
    try:
        number = int(digits[2:] if base in (16, 2) else digits, base)
    except ValueError as error:
        raise UsageError(
            f"not a number: {text[:40]}", "floating point is not computed with" if "." in text else None
        ) from error
    fitting = (type_ for type_ in _types_of_constants(suffix, base) if wrapped(number, type_) == number)
    type_ = next(fitting, None)
    if type_ is None:
        raise UsageError(f"a number of more than 64 bits: {text[:40]}")
    return number, type_


def _types_of_constants(suffix: str, base: int) -> list[IntType]:
    """The types of which a constant has the first that holds it; a decimal one becomes unsigned last of all."""
    types = [INT, LONG, UNSIGNED_LONG] if base == 10 and "u" not in suffix else [INT, UNSIGNED_INT, LONG, UNSIGNED_LONG]
    if "u" in suffix:
        types = [type_ for type_ in types if not type_.is_signed]
    return [type_ for type_ in types if "l" not in suffix or type_.size != _INT_SIZE]


_ESCAPES = {"a": 7, "b": 8, "e": 27, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34, "?": 63}


def character(text: str) -> int:
    """The number of a character constant, its quotes around it.

    Raises:
        UsageError: it is none.
    """
    body = text[1:-1]
    if len(body) == 1 and ord(body) < 256 and body != "\\":
        return signed(ord(body), 8)
    escape = body[1:]
    if body.startswith("\\") and escape in _ESCAPES:
        return _ESCAPES[escape]
    try:
        number = int(escape[1:], 16) if escape.startswith("x") else int(escape, 8)
    except ValueError:
        number = -1
    if not body.startswith("\\") or not 0 <= number < 256:
        raise UsageError(f"not a character: {text[:40]}")
    return signed(number, 8)

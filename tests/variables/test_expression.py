"""Expressions of locations: each operation, what a frame does not tell, and bytes that are none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import NotInSnapshot, OrcdbgError, UnsupportedFormat
from orcdbg.base.reasons import WhyNoValue
from orcdbg.base.sizes import U64
from orcdbg.typed.objects import ValueUnavailable
from orcdbg.variables.expression import (
    AtAddress,
    Computed,
    InRegister,
    LocationPart,
    Nowhere,
    evaluated,
    value_of,
)

CFA = 0xFFFF_C900_0000_1000
RBX = 0x1234
_VALUE = b"\x9f"  # DW_OP_stack_value


class MadeFrame:
    """A frame of which rbx and the CFA are known."""

    def register(self, number: int) -> int:
        """RBX alone."""
        if number == 3:
            return RBX
        raise ValueUnavailable(f"register {number}", WhyNoValue.NOT_SAVED)

    def cfa(self) -> int:
        """The CFA."""
        return CFA

    def frame_base(self) -> int:
        """The CFA, as gcc has it."""
        return CFA

    def read(self, address: int, size: int) -> bytes:
        """Each byte is the low one of its address; below the CFA nothing is there."""
        if address < CFA:
            raise NotInSnapshot("kernel", address, size)
        return bytes((address + number) & 255 for number in range(size))

    def run_time(self, address: int) -> int:
        """Slid by a page."""
        return address + 0x1000

    def numbered_address(self, number: int) -> int:
        """Some."""
        return 0x100 * number

    def entry_value(self, expression: bytes) -> int:
        """Of rdi."""
        if expression == b"\x55":
            return 77
        raise ValueUnavailable("the caller does not say", WhyNoValue.NO_CALLER)

    def base_type(self, offset: int) -> tuple[int, bool | None]:
        """Four bytes with a sign at 4, without one at 5."""
        return {0: (8, None), 4: (4, True), 5: (4, False)}.get(offset, (8, False))


def run(expression: bytes) -> list[LocationPart]:
    """Where a variable is."""
    return evaluated(expression, MadeFrame(), "made")


def number(expression: bytes) -> int:
    """The value that an expression computes."""
    (part,) = run(expression + _VALUE)
    assert isinstance(part.location, Computed)
    return int.from_bytes(part.location.data, "little", signed=True)


@pytest.mark.parametrize(
    ("expression", "location"),
    [
        (b"\x53", InRegister(3)),
        (b"\x90\x10", InRegister(16)),
        (b"\x91\x70", AtAddress(CFA - 16)),
        (b"\x9c", AtAddress(CFA)),
        (b"\x73\x08", AtAddress(RBX + 8)),
        (b"\x92\x03\x7f", AtAddress(RBX - 1)),
        (b"\x03" + struct.pack("<Q", 0xFFFF_FFFF_8200_0000), AtAddress(0xFFFF_FFFF_8200_1000)),
        (b"\xa1\x02", AtAddress(0x1200)),
        (b"\x9e\x02\x01\x02", Computed(b"\x01\x02")),
        (b"", Nowhere("optimised out")),
    ],
)
def test_places(expression: bytes, location: object) -> None:
    """In a register, in memory, nowhere."""
    assert run(expression) == [LocationPart(location)]  # type: ignore[arg-type]


def _c(value: int) -> bytes:
    """DW_OP_const8s."""
    return b"\x0f" + struct.pack("<q", value)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (b"\x08\xff", 255),
        (b"\x09\xff", -1),
        (b"\x0a\xff\xff", 65535),
        (b"\x0b\xff\xff", -1),
        (b"\x10\x80\x01", 128),
        (b"\x11\x7f", -1),
        (b"\x31\x12\x22", 2),  # 1, dup, plus
        (b"\x31\x32\x14\x22\x22", 1 + 1 + 2),  # over
        (b"\x31\x32\x33\x15\x02", 1),  # pick
        (b"\x31\x32\x16\x1c", 1),  # swap, minus
        (b"\x31\x32\x33\x17\x1c", 1 - 2),  # rot: 3 1 2
        (b"\x31\x32\x13", 1),  # drop
        (_c(-5) + b"\x19", 5),
        (_c(5) + b"\x1f", -5),
        (_c(0) + b"\x20", -1),
        (_c(-7) + _c(2) + b"\x1b", -3),  # division with a sign, towards 0
        (_c(7) + _c(4) + b"\x1d", 3),
        (_c(6) + _c(7) + b"\x1e", 42),
        (_c(6) + _c(3) + b"\x1a", 2),
        (_c(6) + _c(3) + b"\x21", 7),
        (_c(6) + _c(3) + b"\x27", 5),
        (_c(1) + b"\x23\x05", 6),
        (_c(1) + _c(63) + b"\x24", -(1 << 63)),
        (_c(1) + _c(64) + b"\x24", 0),
        (_c(-1) + _c(60) + b"\x25", 15),
        (_c(-16) + _c(2) + b"\x26", -4),
        (_c(-16) + _c(200) + b"\x26", -1),
        (_c(-1) + _c(1) + b"\x2d", 1),  # less, with a sign
        (_c(1) + _c(1) + b"\x29", 1),
        (_c(1) + _c(1) + b"\x2e", 0),
        (_c(2) + _c(1) + b"\x2b", 1),
        (b"\x30\x28\x01\x00\x31\x32", 2),  # bra not taken
        (b"\x31\x28\x01\x00\x31\x33\x32\x13", 3),  # bra taken: 3 2 drop
        (b"\x2f\x01\x00\x31\x32", 2),  # skip
        (b"\xa3\x01\x55", 77),
        (b"\xf3\x01\x55", 77),
        (b"\x9c\x06", int.from_bytes(bytes(range(8)), "little")),
        (b"\x9c\x94\x02", 0x0100),
        (b"\xa8\x00", None),
    ],
)
def test_values(expression: bytes, value: int | None) -> None:
    """Each operation, as section 2.5 has it."""
    if value is None:
        with pytest.raises(UnsupportedFormat):
            number(expression)
    else:
        assert number(expression) == value


@pytest.mark.parametrize(("offset", "value"), [(4, -1), (5, 0xFFFF_FFFF)])
def test_a_value_of_four_bytes_goes_on_with_its_sign(offset: int, value: int) -> None:
    """DW_OP_convert; what is asked of it further is of that type."""
    assert number(_c(-1) + b"\xa8" + bytes([offset])) == value
    assert number(_c(-1) + b"\xa8" + bytes([offset]) + _c(1) + b"\xa8" + bytes([offset]) + b"\x2d") == (value < 1)


def test_pieces() -> None:
    """Lowest first; one without a place was optimised away."""
    assert run(b"\x53\x93\x04\x93\x04\x91\x00\x93\x08") == [
        LocationPart(InRegister(3), 32),
        LocationPart(Nowhere("a part of it was optimised out"), 32),
        LocationPart(AtAddress(CFA), 64),
    ]
    assert run(b"\x53\x9d\x05\x03") == [LocationPart(InRegister(3), 5, 3)]


@pytest.mark.parametrize(
    "expression", [b"\x55\x9f", b"\x75\x00", b"\xa3\x01\x54", b"\xe0", b"\xfa\x00\x00\x00\x00", b"\xff"]
)
def test_what_is_not_known_says_why(expression: bytes) -> None:
    """Registers that were not saved, values that no caller tells, operations that nobody knows."""
    with pytest.raises((ValueUnavailable, UnsupportedFormat)) as caught:
        value_of(expression, MadeFrame(), "made")
    assert caught.value.message


def test_a_division_by_zero_is_no_value() -> None:
    """Nor a traceback."""
    for operation in (b"\x1b", b"\x1d"):
        with pytest.raises(ValueUnavailable):
            number(_c(1) + _c(0) + operation)


def test_loops_end() -> None:
    """A branch may go backwards."""
    with pytest.raises(UnsupportedFormat):
        run(b"\x2f" + struct.pack("<h", -3))
    with pytest.raises(UnsupportedFormat):
        run(b"\x31\x12\x2f" + struct.pack("<h", -4))


@given(st.binary(max_size=64))
def test_any_bytes_give_a_place_or_an_error(data: bytes) -> None:
    """Nothing else, and no number that is not one of 64 bits."""
    try:
        parts = run(data)
    except OrcdbgError:
        return
    for part in parts:
        if isinstance(part.location, AtAddress):
            assert 0 <= part.location.address <= U64

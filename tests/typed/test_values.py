"""Values out of bytes: an array is what its elements are one by one."""

from __future__ import annotations

import random

import pytest

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.typed.types import VOID, IntKind, IntType, Type, array_of, pointer_to
from orcdbg.typed.values import MAX_VALUES, Elements, read_value

NUMBERS = [IntType(f"number of {8 * size} bits", size, signed) for size in (1, 2, 4, 8, 16) for signed in (True, False)]
TYPES = [*NUMBERS, IntType("bool", 1, False, IntKind.BOOL), pointer_to(VOID)]


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: f"{type_.name}{getattr(type_, 'is_signed', '')}")
@pytest.mark.parametrize("bit_offset", [0, 8, 5])
def test_an_array_is_read_as_its_elements_are(type_: Type, bit_offset: int) -> None:
    """Also where it begins within a byte, and where the bytes end before it does."""
    count = 9
    data = random.Random(8).randbytes(type_.size * count + 1)
    for bytes_ in (data, data[: type_.size * 4]):
        found = read_value(array_of(type_, count), bytes_, bit_offset)
        assert isinstance(found, Elements)
        one_by_one = [read_value(type_, bytes_, bit_offset + 8 * type_.size * index) for index in range(count)]
        assert list(found.elements) == one_by_one


def test_an_array_of_too_many_elements_is_refused() -> None:
    """However fast they are read."""
    word = IntType("unsigned short", 2, False)
    with pytest.raises(UnsupportedFormat):
        read_value(array_of(word, MAX_VALUES), bytes(2 * MAX_VALUES))

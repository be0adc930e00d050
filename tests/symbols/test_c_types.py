"""Structures as C writes them, and values, of types made by code; the lab compares those of real kernels with drgn."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import NotFound, OrcdbgError, UnsupportedFormat
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import Btf
from orcdbg.symbols.c_types import Compound, CTypes, Elements, Field, Scalar, ScalarKind
from tests.build.btf import VOID, BtfBuilder


def test_declarations_are_written_as_in_c() -> None:
    """Pointers to functions and arrays, qualifiers on either side of a star, anonymous types."""
    make = BtfBuilder()
    number, char = make.integer("int", 4, 1), make.integer("char", 1, 1)
    constant = make.add("", kinds.CONST, char)
    text = make.pointer(constant)
    fixed = make.add("", kinds.CONST, text)
    call = make.pointer(make.function(number, [("", text), ("", VOID)]))
    table = make.array(call, 3)
    row = make.pointer(make.array(number, 4))
    alias = make.add("loff_t", kinds.TYPEDEF, number)
    inner = make.structure("", 4, [("x", number, 0)])
    ahead = make.pointer(make.add("later", kinds.FWD, 0))
    types = CTypes(make.built())
    assert types.declaration(text, "name") == "const char *name"
    assert types.declaration(fixed, "name") == "const char *const name"
    assert types.declaration(call, "print") == "int (*print)(const char *, ...)"
    assert types.declaration(table, "calls") == "int (*calls[3])(const char *, ...)"
    assert types.declaration(row, "row") == "int (*row)[4]"
    assert types.declaration(alias, "at") == "loff_t at"
    assert types.declaration(inner, "anonymous") == "struct {...} anonymous"
    assert types.declaration(ahead, "p") == "struct later *p"
    assert types.declaration(VOID, "") == "void"


def test_values_are_read_by_their_types() -> None:
    """Signed and unsigned, truth values, enumerators, characters, arrays, bit-fields, anonymous unions."""
    make = BtfBuilder()
    number, small, char = make.integer("int", 4, 1), make.integer("u8", 1), make.integer("char", 1, 3)
    truth, word = make.integer("_Bool", 1, 4), make.integer("u32", 4)
    color = make.enumeration("color", [("RED", 0), ("BLUE", 7)])
    union = make.structure("", 4, [("whole", word, 0), ("low", small, 0)], kinds.UNION)
    members = [
        *(("number", number, 0), ("truth", truth, 32), ("color", color, 64), ("name", make.array(char, 8), 96)),
        *(("bytes", make.array(small, 2), 160), ("p", make.pointer(number), 192), ("", union, 256)),
        *(("bits", number, 3 << 24 | 288), ("more", number, 5 << 24 | 291)),
    ]
    made = make.structure("made", 40, members, flag=True)
    data = (-5).to_bytes(4, "little", signed=True) + b"\1\0\0\0" + b"\7\0\0\0" + b"init\0xyz" + b"\1\2\0\0"
    data += (0xFFFF_FFFF_8100_0000).to_bytes(8, "little") + b"\x34\x12\0\0" + bytes([0b01011_101]) + bytes(3)
    types = CTypes(make.built())
    found = types.read(Field("", made, 0, 0), data)
    assert found == Compound(
        (
            ("number", Scalar(ScalarKind.INT, -5)),
            ("truth", Scalar(ScalarKind.BOOL, 1)),
            ("color", Scalar(ScalarKind.ENUM, "BLUE")),
            ("name", Scalar(ScalarKind.TEXT, "init")),
            ("bytes", Elements((Scalar(ScalarKind.INT, 1), Scalar(ScalarKind.INT, 2)))),
            ("p", Scalar(ScalarKind.POINTER, 0xFFFF_FFFF_8100_0000)),
            ("whole", Scalar(ScalarKind.INT, 0x1234)),
            ("low", Scalar(ScalarKind.INT, 0x34)),
            ("bits", Scalar(ScalarKind.INT, -3)),
            ("more", Scalar(ScalarKind.INT, 11)),
        )
    )
    assert types.member(made, "low") == Field("low", small, 256, 0)
    with pytest.raises(NotFound):
        types.member(made, "absent")


def test_a_bit_field_of_the_old_form_is_an_integer_with_few_bits() -> None:
    """Written where no structure flag was known: the type itself says how many bits there are, and from which on."""
    make = BtfBuilder()
    bits = make.integer("unsigned int", 4, 0, bits=3, shift=2)
    made = make.structure("made", 4, [("field", bits, 8)])
    types = CTypes(make.built())
    assert types.fields(made) == [Field("field", bits, 10, 3)]
    assert types.read(types.fields(made)[0], bytes([0, 0b10100, 0, 0])) == Scalar(ScalarKind.INT, 0b101)


@pytest.mark.parametrize("how", ["itself", "array", "typedef", "pointer", "wide"])
def test_types_without_end_are_refused(how: str) -> None:
    """A structure in itself, a typedef of itself, a pointer to itself, more elements than anybody would read."""
    make = BtfBuilder()
    if how == "itself":
        made = make.structure("made", 8, [("", 1, 0), ("x", 1, 0)])
    elif how == "array":
        make.array(2, 1000)
        made = make.structure("made", 8, [("x", 1, 0)])
    elif how == "typedef":
        made = make.add("made", kinds.TYPEDEF, 1)
    elif how == "pointer":
        made = make.pointer(1)
    else:
        make.array(make.integer("int", 4), 0xFFFF_FFFF)
        made = make.structure("made", 8, [("x", 2, 0), ("y", 2, 0)])
    types = CTypes(make.built())
    with pytest.raises(UnsupportedFormat):
        if how == "pointer":
            types.declaration(made, "p")
        else:
            types.read(Field("x", made, 0, 0), bytes(8))


@pytest.mark.parametrize("kind", [0, 20, 31])
def test_a_type_of_a_kind_not_known_ends_the_reading(kind: int) -> None:
    """Nobody knows how long it is, so the types behind it would have wrong numbers."""
    make = BtfBuilder()
    make.structure("list_head", 16, [])
    make.add("later", kind, 0, [7, 7, 7])
    with pytest.raises(UnsupportedFormat, match="BTF type 2 is of a kind not known"):
        make.built().structs.exists("list_head")


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(0, 10_000))
def test_damaged_types_give_a_value_or_an_error_of_ours(noise: bytes, place: int) -> None:
    """Any words in the place of some: nothing else comes out, and nothing runs for ever."""
    make = BtfBuilder()
    number = make.integer("int", 4, 1)
    inner = make.structure("inner", 8, [("a", number, 0), ("b", make.array(number, 1), 32)])
    make.structure("made", 16, [("", inner, 0), ("p", make.pointer(inner), 64)])
    data = bytearray(make.encode())
    at = 24 + place % (len(data) - 24)
    data[at : at + len(noise)] = noise[: len(data) - at]
    try:
        types = CTypes(Btf(bytes(data), "test"))
        for type_id in range(1, 7):
            types.declaration(type_id, "x")
            types.read(Field("x", type_id, 0, 0), bytes(16))
            types.fields(type_id)
    except OrcdbgError:
        return

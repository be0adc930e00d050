"""Types as C writes them, and values, of BTF made by code; the lab compares those of real kernels with drgn."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import NotFound, OrcdbgError, UnsupportedFormat
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import Btf
from orcdbg.typed.btf_types import BtfTypes
from orcdbg.typed.declarations import declaration
from orcdbg.typed.types import ArrayType, CompoundType, EnumType, FunctionType, IncompleteType, PointerType, resolved
from orcdbg.typed.values import Compound, Elements, Scalar, ScalarKind, read_value
from tests.build.btf import VOID, BtfBuilder


def compound(types: BtfTypes, type_id: int) -> CompoundType:
    """A structure or union by its number."""
    found = types.type(type_id)
    assert isinstance(found, CompoundType)
    return found


def test_declarations_are_written_as_in_c() -> None:
    """Pointers to functions and arrays, qualifiers on either side of a star, anonymous types, annotations left out."""
    make = BtfBuilder()
    number, char = make.integer("int", 4, 1), make.integer("char", 1, 1)
    constant = make.add("", kinds.CONST, char)
    text = make.pointer(constant)
    fixed = make.add("", kinds.CONST, text)
    call = make.pointer(make.function(number, [("", text), ("", VOID)]))
    table = make.array(call, 3)
    row = make.pointer(make.array(number, 4))
    open_end = make.array(number, 0)
    alias = make.add("loff_t", kinds.TYPEDEF, number)
    inner = make.structure("", 4, [("x", number, 0)])
    ahead = make.pointer(make.add("later", kinds.FWD, 0))
    tagged = make.pointer(make.add("user", kinds.TYPE_TAG, make.array(number, 2)))
    types = BtfTypes(make.built())

    def written(type_id: int, name: str) -> str:
        return declaration(types.type(type_id), name)

    assert written(text, "name") == "const char *name"
    assert written(fixed, "name") == "const char *const name"
    assert written(call, "print") == "int (*print)(const char *, ...)"
    assert written(table, "calls") == "int (*calls[3])(const char *, ...)"
    assert written(row, "row") == "int (*row)[4]"
    assert written(open_end, "more") == "int more[]"
    assert written(alias, "at") == "loff_t at"
    assert written(inner, "anonymous") == "struct {...} anonymous"
    assert written(ahead, "p") == "struct later *p"
    assert written(tagged, "p") == "int (*p)[2]"
    assert written(VOID, "") == "void"


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
    type_ = compound(BtfTypes(make.built()), made)
    assert read_value(type_, data) == Compound(
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
    assert (type_.member("low").bit_offset, type_.member("low").type.name) == (256, "u8")
    assert type_.member_names[-3:] == ["low", "bits", "more"]
    with pytest.raises(NotFound):
        type_.member("absent")


def test_a_bit_field_of_the_old_form_is_an_integer_with_few_bits() -> None:
    """Written where no structure flag was known: the type itself says how many bits there are, and from which on."""
    make = BtfBuilder()
    bits = make.integer("unsigned int", 4, 0, bits=3, shift=2)
    made = make.structure("made", 4, [("field", bits, 8)])
    type_ = compound(BtfTypes(make.built()), made)
    assert [(member.name, member.bit_offset, member.bit_size) for member in type_.members] == [("field", 10, 3)]
    assert read_value(type_, bytes([0, 0b10100, 0, 0])) == Compound((("field", Scalar(ScalarKind.INT, 0b101)),))


@pytest.mark.parametrize(
    ("values", "tells", "is_signed"),
    [
        ([0, 0xFFFF_FFFF], False, True),
        ([0, 0xFFFF_FFFF], True, False),
        ([1, 1 << 31], False, False),
        ([1, 2], False, False),
    ],
)
def test_which_enumerations_have_negative_values(values: list[int], tells: bool, is_signed: bool) -> None:
    """Old encoders do not say: there a number just below 0 does, and a flag in the uppermost bit does not."""
    make = BtfBuilder()
    made = make.enumeration("state", [(f"VALUE_{number}", value) for number, value in enumerate(values)])
    if tells:
        make.enumeration("other", [("NEGATIVE", 0xFFFF_FFFF)], flag=True)
    found = BtfTypes(make.built()).type(made)
    assert isinstance(found, EnumType)
    assert found.is_signed is is_signed
    assert [value for _, value in found.enumerators][-1] == (values[-1] - (1 << 32) if is_signed else values[-1])


def test_names_are_found_by_what_they_name() -> None:
    """Structures by their keyword, typedefs and integers without one, enumerators, variables, functions."""
    make = BtfBuilder()
    number = make.integer("int", 4, 1)
    both = make.structure("both", 4, [("x", number, 0)])
    make.add("both", kinds.TYPEDEF, make.pointer(both))
    make.enumeration("color", [("RED", 3), ("BLUE", 7)])
    make.add("counter", kinds.VAR, number, [1])
    make.add("work", kinds.FUNC, make.function(number, [("how", number)]))
    types = BtfTypes(make.built())
    assert isinstance(types.find("struct", "both"), CompoundType)
    alias = types.find("", "both")
    assert alias is not None
    assert isinstance(resolved(alias), PointerType)
    assert types.find("union", "both") is None
    red = types.enumerator("BLUE")
    assert red is not None
    assert (red[0].name, red[1]) == ("color", 7)
    assert types.enumerator("color") is None
    variable, function = types.variable("counter"), types.function("work")
    assert variable is not None
    assert variable.name == "int"
    assert isinstance(function, FunctionType)
    assert [(name, type_.name) for name, type_ in function.parameters] == [("how", "int")]


def test_a_split_section_continues_its_base() -> None:
    """Its numbers and strings begin where the base's end; its types refer to the base's, which are the same objects."""
    make = BtfBuilder()
    number = make.integer("int", 4, 1)
    make.structure("list_head", 16, [("value", number, 0)])
    base = BtfTypes(make.built())

    split = BtfBuilder()
    first = base.btf.end_id
    shift = base.btf.strings_end
    head = base.btf.find(kinds.STRUCT, "list_head")
    assert head is not None
    split.structure("private", 24, [("list", head, 0), ("next", first + 1, 128)])
    split.pointer(first)
    data = bytearray(split.encode())
    # The builder counts its strings from its own first, which a split section does not have: every name is one less, and on.
    for at in _name_words(data):
        offset = int.from_bytes(data[at : at + 4], "little")
        if offset:
            data[at : at + 4] = (offset + shift).to_bytes(4, "little")
    types = BtfTypes(Btf(bytes(data), "module", base.btf), base)
    private = types.find("struct", "private")
    assert isinstance(private, CompoundType)
    assert private is types.type(first)
    assert private.member("list").type is base.find("struct", "list_head")
    assert private.member("list.value").bit_offset == 0
    assert declaration(private.member("next").type, "next") == "struct private *next"
    assert types.find("struct", "list_head") is None
    with pytest.raises(UnsupportedFormat):
        types.type(types.btf.end_id)


def _name_words(data: bytearray) -> list[int]:
    """Where the offsets of names are in the section that the test above makes: two types, one with two members."""
    types = int.from_bytes(data[4:8], "little")
    return [types, types + 12, types + 24, types + 36]


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
    type_ = BtfTypes(make.built()).type(made)
    with pytest.raises(UnsupportedFormat):
        if how == "pointer":
            declaration(type_, "p")
        else:
            read_value(type_, bytes(8))


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
    make.enumeration("color", [("RED", 3)])
    data = bytearray(make.encode())
    at = 24 + place % (len(data) - 24)
    data[at : at + len(noise)] = noise[: len(data) - at]
    try:
        types = BtfTypes(Btf(bytes(data), "test"))
        for type_id in range(1, 8):
            found = types.type(type_id)
            declaration(found, "x")
            read_value(found, bytes(16))
            if isinstance(found, CompoundType):
                found.find("a.b")
        types.enumerator("RED")
    except OrcdbgError:
        return


def test_what_is_only_declared_has_no_size() -> None:
    """Nor has an array without a length more than its elements would."""
    make = BtfBuilder()
    ahead = make.add("later", kinds.FWD, 0)
    made = make.array(make.integer("int", 4), 0)
    types = BtfTypes(make.built())
    found, array = types.type(ahead), types.type(made)
    assert isinstance(found, IncompleteType)
    assert isinstance(array, ArrayType)
    assert (found.size, array.size, array.length) == (0, 0, None)

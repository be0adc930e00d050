"""Types of debugging entries that a test spells out, in DWARF 4 and 5."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats.elf import ElfFile
from orcdbg.image.compile_units import CompileUnits
from orcdbg.typed.declarations import declaration, type_name
from orcdbg.typed.dwarf_types import DwarfTypes
from orcdbg.typed.types import CompoundType, EnumType, IncompleteType, IntKind, IntType, Type, VoidType, resolved
from tests.build import entries as made
from tests.build.dwarf import TEXT, image_with

ADDRESS = 0xFFFF_FFFF_8200_1000
VERSIONS = (4, 5)
_SIGNED, _UNSIGNED, _CHARACTER, _BOOLEAN = 5, 7, 6, 2


def unit_with(**attributes: object) -> made.Entry:
    """A unit."""
    return made.Entry(made.COMPILE_UNIT, name="made.c", low_pc=TEXT, **attributes)


def types_of(root: made.Entry, version: int = 5, first_code: int = 1) -> DwarfTypes:
    """The types of a file with one unit."""
    data = image_with(made.sections_of(root, version, first_code))
    return DwarfTypes(CompileUnits(ElfFile(BytesSource("made", data))))


def type_of(root: made.Entry, entry: made.Entry, version: int = 5) -> Type:
    """The type that an entry is."""
    root.add(made.VARIABLE, name="it", type=entry, location=made.address_expression(ADDRESS))
    found = types_of(root, version).variable_at("it", ADDRESS)
    assert found is not None
    return found


def integer(root: made.Entry, name: str = "int", size: int = 4, encoding: int = _SIGNED) -> made.Entry:
    """A basic type."""
    return root.add(made.BASE_TYPE, name=name, byte_size=size, encoding=encoding)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("encoding", "is_signed", "kind"),
    [
        (_SIGNED, True, IntKind.NUMBER),
        (_UNSIGNED, False, IntKind.NUMBER),
        (_CHARACTER, True, IntKind.CHAR),
        (_BOOLEAN, False, IntKind.BOOL),
    ],
)
def test_basic_types(version: int, encoding: int, is_signed: bool, kind: IntKind) -> None:
    """Size, sign and kind are the entry's."""
    root = unit_with()
    found = type_of(root, integer(root, "t", 2, encoding), version)
    assert isinstance(found, IntType)
    assert (found.name, found.size, found.is_signed, found.kind) == ("t", 2, is_signed, kind)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_structure_leads_to_itself(version: int) -> None:
    """Members are made when they are asked for, so that a list's node may point to its own type."""
    root = unit_with()
    node = root.add(made.STRUCTURE, name="node", byte_size=16)
    pointer = root.add(made.POINTER, byte_size=8, type=node)
    node.add(made.MEMBER, name="next", type=pointer, data_member_location=0)
    node.add(made.MEMBER, name="data", type=root.add(made.POINTER, byte_size=8), data_member_location=8)
    found = type_of(root, node, version)
    assert isinstance(found, CompoundType)
    assert [(each.name, each.bit_offset, type_name(each.type)) for each in found.members] == [
        ("next", 0, "struct node *"),
        ("data", 64, "void *"),
    ]
    assert resolved(found.member("next").type).target is found  # type: ignore[attr-defined]


def test_bit_fields_of_both_ways_to_write_them() -> None:
    """By DWARF 4 and later from the structure's start, before from the upper end of the storage."""
    root = unit_with()
    number = integer(root, "unsigned int", 4, _UNSIGNED)
    new = root.add(made.STRUCTURE, name="new", byte_size=8)
    new.add(made.MEMBER, name="low", type=number, bit_size=3, data_bit_offset=32)
    new.add(made.MEMBER, name="high", type=number, bit_size=5, data_bit_offset=35)
    old = root.add(made.STRUCTURE, name="old", byte_size=8)
    old.add(made.MEMBER, name="low", type=number, byte_size=4, bit_size=3, bit_offset=29, data_member_location=4)
    old.add(made.MEMBER, name="high", type=number, byte_size=4, bit_size=5, bit_offset=24, data_member_location=4)
    shapes = []
    for entry in (new, old):
        found = type_of(root, entry, 4)
        assert isinstance(found, CompoundType)
        shapes.append([(each.name, each.bit_offset, each.bit_size) for each in found.members])
        root.children.pop()
    assert shapes == [[("low", 32, 3), ("high", 35, 5)]] * 2


def test_places_of_members_as_dwarf_2_wrote_them() -> None:
    """DW_OP_plus_uconst; a place that needs more is refused, and not taken for 0."""
    root = unit_with()
    number = integer(root)
    structure = root.add(made.STRUCTURE, name="s", byte_size=400)
    structure.add(made.MEMBER, name="a", type=number, data_member_location=b"\x23\x80\x02")
    found = type_of(root, structure, 4)
    assert isinstance(found, CompoundType)
    assert found.member("a").bit_offset == 8 * 256
    structure.children[0].attributes["data_member_location"] = b"\x06"
    root.children.pop()
    other = type_of(root, structure, 4)
    assert isinstance(other, CompoundType)
    with pytest.raises(UnsupportedFormat):
        other.member("a")


def test_arrays() -> None:
    """Of several dimensions, the last innermost; open ones, which gcc writes in several ways, have no length."""
    root = unit_with()
    number = integer(root)
    matrix = root.add(made.ARRAY, type=number)
    matrix.add(made.SUBRANGE, upper_bound=1)
    matrix.add(made.SUBRANGE, count=3)
    assert declaration(type_of(root, matrix), "m") == "int m[2][3]"
    for attributes in ({}, {"count": 0}, {"upper_bound": -1}):
        root.children.pop()
        array = root.add(made.ARRAY, type=number)
        array.add(made.SUBRANGE, **attributes)
        assert declaration(type_of(root, array), "m") == "int m[]"


def test_a_qualifier_of_an_array_and_of_its_elements_is_written_once() -> None:
    """gcc describes both; another one of the array alone stays."""
    for qualifier, expected in ((made.CONST, "const char s[2]"), (made.VOLATILE, "volatile const char s[2]")):
        root = unit_with()
        element = root.add(made.CONST, type=integer(root, "char", 1, _CHARACTER))
        array = root.add(made.ARRAY, type=element)
        array.add(made.SUBRANGE, count=2)
        assert declaration(type_of(root, root.add(qualifier, type=array)), "s") == expected


def test_enumerations_have_the_sign_of_their_type() -> None:
    """The form that a number is written in does not tell."""
    root = unit_with()
    for encoding, expected in ((_UNSIGNED, 0xFFFF_FFFF), (_SIGNED, -1)):
        number = integer(root, "t", 4, encoding)
        entry = root.add(made.ENUMERATION, name="e", byte_size=4, type=number)
        entry.add(made.ENUMERATOR, name="LAST", const_value=-1)
        found = type_of(root, entry)
        assert isinstance(found, EnumType)
        assert (list(found.enumerators), found.is_signed) == ([("LAST", expected)], encoding == _SIGNED)
        root.children.pop()


def test_qualifiers_typedefs_and_functions() -> None:
    """As C writes them."""
    root = unit_with()
    number = integer(root)
    const = root.add(made.CONST, type=number)
    alias = root.add(made.TYPEDEF, name="alias", type=const)
    void_pointer = root.add(made.POINTER, byte_size=8, type=root.add(made.CONST))
    function = root.add(made.FUNCTION_TYPE, type=alias)
    function.add(made.PARAMETER, type=void_pointer)
    function.add(made.UNSPECIFIED_PARAMETERS)
    pointer = root.add(made.POINTER, byte_size=8, type=function)
    assert declaration(type_of(root, pointer), "f") == "alias (*f)(const void *, ...)"
    root.children.pop()
    assert type_name(resolved(type_of(root, alias))) == "int"
    root.children.pop()
    qualified = root.add(made.VOLATILE, type=root.add(made.ATOMIC, type=number))
    assert type_name(type_of(root, qualified)) == "volatile _Atomic int"


def test_what_is_only_declared_is_incomplete() -> None:
    """The catalog looks for the definition elsewhere."""
    root = unit_with()
    found = type_of(root, root.add(made.STRUCTURE, name="far", declaration=True))
    assert isinstance(found, IncompleteType)
    assert (found.keyword, found.name) == ("struct", "far")


def test_types_are_found_by_name() -> None:
    """A definition, and no declaration of the same name; functions and enumerators too."""
    root = unit_with()
    root.add(made.STRUCTURE, name="thing", declaration=True)
    root.add(made.STRUCTURE, name="thing", byte_size=4).add(
        made.MEMBER, name="thing", type=integer(root), data_member_location=0
    )
    entry = root.add(made.ENUMERATION, name="things", byte_size=4)
    entry.add(made.ENUMERATOR, name="THING_ONE", const_value=7)
    root.add(made.SUBPROGRAM, name="make_thing", low_pc=TEXT, high_pc=16)
    types = types_of(root)
    found = types.find("struct", "thing")
    assert isinstance(found, CompoundType)
    assert found.size == 4
    assert types.find("union", "thing") is None
    found_enumerator = types.enumerator("THING_ONE")
    assert found_enumerator is not None
    assert found_enumerator[1] == 7
    function = types.function("make_thing")
    assert function is not None
    assert isinstance(function.result, VoidType)
    assert types.function_at(TEXT + 4) is not None


def test_a_circle_of_typedefs_ends() -> None:
    """A hostile file may have any."""
    root = unit_with()
    first = root.add(made.TYPEDEF, name="a")
    first.attributes["type"] = root.add(made.TYPEDEF, name="b", type=first)
    found = type_of(root, first)
    with pytest.raises(UnsupportedFormat):
        resolved(found)


def _whole(version: int) -> dict[str, bytes]:
    root = unit_with()
    number = integer(root)
    structure = root.add(made.STRUCTURE, name="thing", byte_size=12)
    structure.add(made.MEMBER, name="first", type=number, data_member_location=0)
    structure.add(made.MEMBER, name="bits", type=number, bit_size=3, data_bit_offset=32)
    array = root.add(made.ARRAY, type=structure)
    array.add(made.SUBRANGE, upper_bound=3)
    root.add(made.VARIABLE, name="it", type=array, location=made.address_expression(ADDRESS))
    return made.sections_of(root, version)


def _look_at(type_: Type, depth: int = 0) -> None:
    """All that anybody may ask of a type."""
    declaration(type_, "it")
    _ = type_.size
    plain = resolved(type_)
    if isinstance(plain, CompoundType) and depth < 4:
        for member in plain.members:
            _look_at(member.type, depth + 1)
    target = getattr(plain, "target", None)
    if isinstance(target, Type) and depth < 4:
        _look_at(target, depth + 1)


@given(
    st.sampled_from(VERSIONS),
    st.sampled_from((".debug_info", ".debug_abbrev", ".debug_str")),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_gives_a_type_or_an_error(version: int, section: str, damage: list[tuple[int, int]]) -> None:
    """Any bytes changed anywhere: never another exception, never without end."""
    sections = _whole(version)
    data = bytearray(sections[section])
    for place, value in damage:
        data[place % len(data)] = value
    units = CompileUnits(ElfFile(BytesSource("made", image_with({**sections, section: bytes(data)}))))
    types = DwarfTypes(units)
    try:
        found = types.variable_at("it", ADDRESS) or types.find("struct", "thing")
        if found is not None:
            _look_at(found)
    except OrcdbgError:
        pass

"""Which C types do a file's debugging entries (DWARF) describe?

An entry becomes a type when somebody asks for it, and so do its target and members: a unit of a kernel has tens of thousands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from elftools.dwarf.die import DIE

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import signed
from orcdbg.formats import dwarf_entries as dwarf
from orcdbg.formats.dwarf_cursor import Cursor
from orcdbg.image.compile_units import CompileUnit, CompileUnits
from orcdbg.image.entry_search import EntrySearch
from orcdbg.typed.types import (
    MAX_DEPTH,
    MAX_MEMBERS,
    MAX_SIZE,
    VOID,
    ArrayType,
    CompoundType,
    EnumType,
    FloatType,
    FunctionType,
    IncompleteType,
    IntKind,
    IntType,
    Member,
    PointerType,
    QualifiedType,
    Type,
    TypedefType,
    resolved,
)

MAX_PARAMETERS = 64
MAX_ENUMERATORS = 1 << 16

_QUALIFIERS = {
    "DW_TAG_const_type": "const",
    "DW_TAG_volatile_type": "volatile",
    "DW_TAG_restrict_type": "restrict",
    "DW_TAG_atomic_type": "_Atomic",
}
_KEYWORDS = {"DW_TAG_structure_type": "struct", "DW_TAG_class_type": "struct", "DW_TAG_union_type": "union"}
_TAGS = {
    "struct": {"DW_TAG_structure_type"},
    "union": {"DW_TAG_union_type"},
    "enum": {"DW_TAG_enumeration_type"},
    "": {"DW_TAG_typedef", "DW_TAG_base_type"},
}

# DW_ATE_*: boolean, float, signed, signed_char, unsigned, unsigned_char, UTF.
_BOOLEAN, _FLOAT, _SIGNED, _SIGNED_CHAR, _UNSIGNED, _UNSIGNED_CHAR, _UTF = 2, 4, 5, 6, 7, 8, 16
_OP_PLUS_UCONST = 0x23
_CHARACTERS = (_SIGNED_CHAR, _UNSIGNED_CHAR, _UTF)


class DwarfTypes:
    """The types of one file.

    Args:
        units: of the file.
        named: whether types are looked for by name too; that of an image with BTF costs a second and finds what BTF has.

    Every method, and whatever a type asks for later, raises UnsupportedFormat where the file is damaged.
    """

    def __init__(self, units: CompileUnits, *, named: bool = True) -> None:
        self._units = units
        self._search = EntrySearch(units)
        self._named = named
        self._types: dict[int, Type] = {}

    # By name and place

    def find(self, keyword: str, name: str) -> Type | None:
        """The definition of a name; `keyword` is `struct`, `union`, `enum`, or empty for a typedef or basic type."""
        if not self._named:
            return None
        for found in self._search.named(name, _TAGS[keyword]):
            if not dwarf.flag(found.entry, "DW_AT_declaration"):
                return self._at(found.entry.offset)
        return None

    def variable(self, name: str) -> Type | None:
        """The type of a variable: None, since of a name there may be several; `variable_at` tells which."""
        return None

    def variable_at(self, name: str, address: int) -> Type | None:
        """The type of the variable of a name at a link address."""
        for found in self._search.variables(name, address):
            type_ = self._type_of(found.unit, found.entry)
            if type_ is not VOID:
                return type_
        return None

    def function(self, name: str) -> FunctionType | None:
        """The type of a function."""
        if not self._named:
            return None
        for found in self._search.named(name, {dwarf.SUBPROGRAM}):
            return self.function_type(found.unit, found.entry)
        return None

    def function_at(self, address: int) -> FunctionType | None:
        """The type of the function whose code is at a link address."""
        unit = self._units.at(address)
        entry = None if unit is None else unit.function(address)
        return None if unit is None or entry is None else self.function_type(unit, entry)

    def enumerator(self, name: str) -> tuple[EnumType, int] | None:
        """The enumeration that has an enumerator, and its value."""
        if not self._named:
            return None
        for found in self._search.named(name, {"DW_TAG_enumerator"}):
            *_, parent, _ = found.unit.unit.path_to(found.entry.offset)
            type_ = resolved(self._at(parent.offset))
            values = dict(type_.enumerators) if isinstance(type_, EnumType) else {}
            if name in values:
                assert isinstance(type_, EnumType)
                return type_, values[name]
        return None

    # Types

    def at(self, offset: int) -> Type:
        """The type whose entry is at an offset in `.debug_info`."""
        return self._at(offset)

    def type_of(self, unit: CompileUnit, entry: DIE) -> Type:
        """The type of a variable, parameter or function's result; void where it states none."""
        self._units.sections.work.begin()
        return self._type_of(unit, entry)

    def function_type(self, unit: CompileUnit, entry: DIE) -> FunctionType:
        """The type of a function's entry."""
        offset = entry.offset

        def result() -> Type:
            unit = self._units.holding(offset)
            return self._type_of(unit, unit.unit.entry(offset))

        return FunctionType(result, lambda: self._parameters(offset), self._is_variadic(unit, entry))

    def _type_of(self, unit: CompileUnit, entry: DIE) -> Type:
        """As `type_of`, of an entry that may leave its type to its declaration or abstract instance."""
        for account in unit.unit.accounts_of(entry):
            target = unit.unit.target(account, "DW_AT_type")
            if target is not None:
                return self._at(target)
        return VOID

    def _at(self, offset: int) -> Type:
        """The type whose entry is at an offset."""
        if offset not in self._types:
            unit = self._units.holding(offset)
            self._types[offset] = self._made(unit, unit.unit.entry(offset))
        return self._types[offset]

    def _target(self, unit: CompileUnit, entry: DIE) -> Callable[[], Type]:
        """What a pointer and the like are of; GNU's `void` has no entry."""
        target = unit.unit.target(entry, "DW_AT_type")
        return (lambda: VOID) if target is None else functools.partial(self._at, target)

    def _made(self, unit: CompileUnit, entry: DIE) -> Type:
        tag = str(entry.tag)
        name = dwarf.text(entry, "DW_AT_name") or ""
        if tag in _MAKERS:
            return _MAKERS[tag](self, unit, entry, name)
        if tag in _QUALIFIERS:
            return QualifiedType(_QUALIFIERS[tag], self._target(unit, entry))
        if tag in _KEYWORDS:
            return self._compound(_KEYWORDS[tag], entry, name)
        return VOID

    def _basic(self, unit: CompileUnit, entry: DIE, name: str) -> Type:
        size = _size(entry)
        encoding = dwarf.integer(entry, "DW_AT_encoding")
        if encoding == _FLOAT:
            return FloatType(name, size)
        is_character = encoding in _CHARACTERS
        kind = IntKind.BOOL if encoding == _BOOLEAN else IntKind.CHAR if is_character else IntKind.NUMBER
        return IntType(name, size, encoding in (_SIGNED, _SIGNED_CHAR), kind)

    def _pointer(self, unit: CompileUnit, entry: DIE, name: str) -> Type:
        return PointerType(self._target(unit, entry))

    def _typedef(self, unit: CompileUnit, entry: DIE, name: str) -> Type:
        return TypedefType(name, self._target(unit, entry))

    def _unspecified(self, unit: CompileUnit, entry: DIE, name: str) -> Type:
        return VOID

    def _function(self, unit: CompileUnit, entry: DIE, name: str) -> Type:
        return self.function_type(unit, entry)

    def _array(self, unit: CompileUnit, entry: DIE, name: str) -> Type:
        lengths = [_length(child) for child in unit.unit.children(entry) if child.tag == "DW_TAG_subrange_type"]
        if len(lengths) > MAX_DEPTH:
            raise UnsupportedFormat(unit.unit.name, f"an array of more than {MAX_DEPTH} dimensions")

        # The last dimension is the innermost array's.
        target = self._target(unit, entry)
        for length in reversed(lengths[1:]):
            target = functools.partial(ArrayType, target, length)
        return ArrayType(target, lengths[0] if lengths else None)

    def _compound(self, keyword: str, entry: DIE, name: str) -> Type:
        if dwarf.flag(entry, "DW_AT_declaration"):
            return IncompleteType(keyword, name)
        return CompoundType(keyword, name, _size(entry), functools.partial(self._members, entry.offset))

    def _members(self, offset: int) -> Sequence[Member]:
        unit = self._units.holding(offset)
        members: list[Member] = []
        for child in unit.unit.children(unit.unit.entry(offset)):
            if child.tag != "DW_TAG_member":
                continue
            if len(members) >= MAX_MEMBERS:
                raise UnsupportedFormat(unit.unit.name, f"more than {MAX_MEMBERS} members")
            type_ = self._type_of(unit, child)
            bit_offset, bit_size = _bits(unit, child, type_)
            members.append(Member(dwarf.text(child, "DW_AT_name") or "", type_, bit_offset, bit_size))
        return members

    def _enumeration(self, unit: CompileUnit, entry: DIE, name: str) -> Type:
        if dwarf.flag(entry, "DW_AT_declaration"):
            return IncompleteType("enum", name)

        pairs = [
            (dwarf.text(child, "DW_AT_name") or "", dwarf.integer(child, "DW_AT_const_value") or 0)
            for child in unit.unit.children(entry)
            if child.tag == "DW_TAG_enumerator"
        ]
        if len(pairs) > MAX_ENUMERATORS:
            raise UnsupportedFormat(unit.unit.name, f"more than {MAX_ENUMERATORS} enumerators")

        size = _size(entry)
        underlying = resolved(self._type_of(unit, entry))
        is_signed = underlying.is_signed if isinstance(underlying, IntType) else any(value < 0 for _, value in pairs)
        bits = 8 * min(size, 8)
        if bits:
            # The form that holds a number need not have the sign of the enumeration.
            pairs = [(name, signed(value, bits) if is_signed else value & (1 << bits) - 1) for name, value in pairs]
        return EnumType(name, size, is_signed, pairs)

    def _parameters(self, offset: int) -> Sequence[tuple[str, Type]]:
        unit = self._units.holding(offset)
        return [
            (unit.unit.name_of(child) or "", self._type_of(unit, child))
            for child in _parameter_entries(unit, unit.unit.entry(offset))
            if child.tag == dwarf.PARAMETER
        ][:MAX_PARAMETERS]

    def _is_variadic(self, unit: CompileUnit, entry: DIE) -> bool:
        return any(child.tag == "DW_TAG_unspecified_parameters" for child in _parameter_entries(unit, entry))


Maker = Callable[[DwarfTypes, CompileUnit, DIE, str], Type]
_MAKERS: dict[str, Maker] = {
    "DW_TAG_base_type": DwarfTypes._basic,
    "DW_TAG_pointer_type": DwarfTypes._pointer,
    "DW_TAG_typedef": DwarfTypes._typedef,
    "DW_TAG_array_type": DwarfTypes._array,
    "DW_TAG_enumeration_type": DwarfTypes._enumeration,
    "DW_TAG_subroutine_type": DwarfTypes._function,
    "DW_TAG_subprogram": DwarfTypes._function,
    "DW_TAG_unspecified_type": DwarfTypes._unspecified,
}


def _parameter_entries(unit: CompileUnit, entry: DIE) -> Iterator[DIE]:
    """What stands for parameters: of code's entry those of its abstract instance, some of which may be gone from the code."""
    *_, last = unit.unit.accounts_of(entry)
    return unit.unit.children(last)


def _size(entry: DIE) -> int:
    """`DW_AT_byte_size`."""
    size = dwarf.integer(entry, "DW_AT_byte_size") or 0
    return min(max(size, 0), MAX_SIZE + 1)  # which types refuse when somebody asks


def _length(subrange: DIE) -> int | None:
    """How many elements an array's dimension has; None where the declaration leaves it open."""
    count = dwarf.integer(subrange, "DW_AT_count")
    if count is not None:
        return max(count, 0) or None
    last = dwarf.integer(subrange, "DW_AT_upper_bound")
    if last is None or last == (1 << 64) - 1:
        return None
    # gcc writes `[0]` without a bound or with -1, in as many bytes as it likes.
    return max(last, -1) + 1 or None


def _bits(unit: CompileUnit, member: DIE, type_: Type) -> tuple[int, int]:
    """Bit offset and, of a bit-field, bit size of a member."""
    size = dwarf.integer(member, "DW_AT_bit_size") or 0
    data_offset = dwarf.integer(member, "DW_AT_data_bit_offset")
    if data_offset is not None:
        return data_offset, size

    offset = 8 * _byte_offset(unit, member)
    from_upper = dwarf.integer(member, "DW_AT_bit_offset")
    if from_upper is None:
        return offset, size
    # Up to DWARF 3, and in gcc's DWARF 4, counted from the upper end of the type that holds the bits.
    storage = dwarf.integer(member, "DW_AT_byte_size") or type_.size
    return offset + 8 * storage - from_upper - size, size


def _byte_offset(unit: CompileUnit, member: DIE) -> int:
    """Of a member; all members of a union are at 0, and need not say so."""
    place = member.attributes.get("DW_AT_data_member_location")
    if place is None:
        return 0
    if isinstance(place.value, int):
        return place.value

    # DWARF 2 has an expression that adds to the structure's address.
    data = bytes(place.value)
    cursor = Cursor(data, 1, len(data), unit.unit.name)
    if data[:1] != bytes([_OP_PLUS_UCONST]):
        raise UnsupportedFormat(unit.unit.name, f"the place of a member at {member.offset:#x} is of a form not read")
    return cursor.uleb()

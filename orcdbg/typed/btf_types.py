"""Which C types does a BTF section hold?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from orcdbg.base.reading import signed
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import Btf, RawType
from orcdbg.typed.types import (
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

# BTF_INT_SIGNED, BTF_INT_CHAR, BTF_INT_BOOL, bits of an integer's encoding.
_SIGNED = 1
_CHAR = 2
_BOOL = 4

_SMALL_NEGATIVES = 0xFFFF_0000  # 32 bits of -65536

_QUALIFIERS = {kinds.CONST: "const", kinds.VOLATILE: "volatile", kinds.RESTRICT: "restrict"}
_KEYWORDS = {kinds.STRUCT: "struct", kinds.UNION: "union"}
_ENUMS = (kinds.ENUM, kinds.ENUM64)

# In the order in which a name without a keyword is looked for.
KINDS_BY_KEYWORD = {"struct": (kinds.STRUCT,), "union": (kinds.UNION,), "enum": _ENUMS}
_PLAIN_KINDS = (kinds.TYPEDEF, kinds.INT, kinds.FLOAT)


def _looks_negative(values: Sequence[int]) -> bool:
    """Whether numbers of 32 bits are meant as signed: all that have the upper bit are just below 0.

    BTF says so only since Linux 6.0 (commit 6089fb325cf7, "bpf: Add btf enum64 support"). Flags in the upper bits, such as
    `1 << 31`, are not just below 0.
    """
    upper = [value for value in values if value >> 31]
    return bool(upper) and min(upper) >= _SMALL_NEGATIVES


class BtfTypes:
    """The types of one section; those of its base, of a split section, are the same objects as the base's own.

    Args:
        btf: the section.
        base: the types of the section that it continues, where it is split BTF.
    """

    def __init__(self, btf: Btf, base: BtfTypes | None = None) -> None:
        self.btf = btf
        self._base = base
        self._types: dict[int, Type] = {0: VOID}

    def type(self, type_id: int) -> Type:
        """The type of a number; void is 0.

        Raises:
            UnsupportedFormat: there is no such type.
        """
        found = self._types.get(type_id)
        if found is None:
            if self._base is not None and type_id < self.btf.first_id:
                return self._base.type(type_id)
            found = self._types[type_id] = self._made(type_id)
        return found

    def find(self, keyword: str, name: str) -> Type | None:
        """The type of a name; the base's are not asked.

        Args:
            keyword: `struct`, `union` or `enum`; empty for a typedef or basic type.
            name: the tag, or the name.
        """
        for kind in KINDS_BY_KEYWORD.get(keyword, _PLAIN_KINDS):
            type_id = self.btf.find(kind, name)
            if type_id is not None:
                return self.type(type_id)
        return None

    def variable(self, name: str) -> Type | None:
        """The type of a variable; kernels describe the per-CPU ones, and since pahole 1.29 may describe all.

        Mirrors the encoder of pahole, btf_encoder.c.
        """
        type_id = self.btf.find(kinds.VAR, name)
        return None if type_id is None else self.type(self.btf.raw(type_id).value)

    def function(self, name: str) -> FunctionType | None:
        """The type of a function that the section describes."""
        type_id = self.btf.find(kinds.FUNC, name)
        if type_id is None:
            return None
        found = resolved(self.type(self.btf.raw(type_id).value))
        return found if isinstance(found, FunctionType) else None

    def enumerator(self, name: str) -> tuple[EnumType, int] | None:
        """The enumeration that has an enumerator, and its value."""
        for type_id in self.btf.mentioning(name, _ENUMS):
            found = self.type(type_id)
            values = dict(found.enumerators) if isinstance(found, EnumType) else {}
            if name in values:
                assert isinstance(found, EnumType)
                return found, values[name]
        return None

    def _lazy(self, type_id: int) -> Callable[[], Type]:
        return functools.partial(self.type, type_id)

    def _made(self, type_id: int) -> Type:
        raw = self.btf.raw(type_id)
        if raw.kind == kinds.INT:
            return self._integer(raw)
        if raw.kind == kinds.PTR:
            return PointerType(self._lazy(raw.value))
        if raw.kind == kinds.ARRAY:
            element, _, count = self.btf.words(raw.at, 3)
            # BTF does not tell `[0]` from `[]`, and only the second is of use.
            return ArrayType(self._lazy(element), count or None)
        if raw.kind in _KEYWORDS:
            return CompoundType(_KEYWORDS[raw.kind], raw.name, raw.value, functools.partial(self._members, raw))
        if raw.kind in _ENUMS:
            return self._enumeration(raw)
        if raw.kind == kinds.FWD:
            return IncompleteType("union" if raw.flag else "struct", raw.name)
        if raw.kind == kinds.TYPEDEF:
            return TypedefType(raw.name, self._lazy(raw.value))
        if raw.kind in _QUALIFIERS:
            return QualifiedType(_QUALIFIERS[raw.kind], self._lazy(raw.value))
        if raw.kind == kinds.FLOAT:
            return FloatType(raw.name, raw.value)
        if raw.kind == kinds.FUNC_PROTO:
            return self._function(raw)
        if raw.kind in (kinds.TYPE_TAG, kinds.FUNC, kinds.VAR):
            # A tag (`__user`, `__rcu`) annotates its target; of a function or variable only the type is asked for.
            return TypedefType("", self._lazy(raw.value))
        return VOID

    def _integer(self, raw: RawType) -> IntType:
        encoding = self.btf.words(raw.at, 1)[0] >> 24
        kind = IntKind.BOOL if encoding & _BOOL else IntKind.CHAR if encoding & _CHAR else IntKind.NUMBER
        return IntType(raw.name, raw.value, bool(encoding & _SIGNED), kind)

    def _members(self, raw: RawType) -> Sequence[Member]:
        words = self.btf.words(raw.at, 3 * raw.vlen)
        members = []
        for name_offset, type_id, offset in zip(words[::3], words[1::3], words[2::3], strict=True):
            # With kind_flag, the offset's upper byte is a bit-field's size (BTF_MEMBER_BITFIELD_SIZE).
            bit_size = 0
            if raw.flag:
                bit_size = offset >> 24
                offset &= 0xFFFFFF
            if not bit_size:
                bit_size, shift = self._narrow(type_id)
                offset += shift
            name = self.btf.string(name_offset) if name_offset else ""
            members.append(Member(name, self.type(type_id), offset, bit_size))
        return members

    def _narrow(self, type_id: int) -> tuple[int, int]:
        """Bits and first bit of an integer type that does not fill its bytes, as old encoders made for bit-fields."""
        raw = self.btf.raw(type_id) if type_id else None
        if raw is None or raw.kind != kinds.INT:
            return 0, 0
        encoding = self.btf.words(raw.at, 1)[0]
        bits = encoding & 0xFF
        return (bits, encoding >> 16 & 0xFF) if bits != 8 * raw.value else (0, 0)

    def _enumeration(self, raw: RawType) -> EnumType:
        halves = 1 if raw.kind == kinds.ENUM else 2
        step = 1 + halves
        words = self.btf.words(raw.at, step * raw.vlen)
        names, values = [], []
        for place in range(0, len(words), step):
            name_offset, *value_words = words[place : place + step]
            names.append(self.btf.string(name_offset))
            values.append(sum(word << 32 * number for number, word in enumerate(value_words)))

        is_signed = raw.flag or (not self.btf.tells_signed_enums and _looks_negative(values))
        if is_signed:
            values = [signed(value, 32 * halves) for value in values]
        return EnumType(raw.name, raw.value, is_signed, list(zip(names, values, strict=True)))

    def _function(self, raw: RawType) -> FunctionType:
        words = self.btf.words(raw.at, 2 * raw.vlen)
        pairs = list(zip(words[::2], words[1::2], strict=True))
        is_variadic = bool(pairs) and pairs[-1] == (0, 0)
        if is_variadic:
            pairs.pop()

        def parameters() -> Sequence[tuple[str, Type]]:
            return [
                (self.btf.string(name_offset) if name_offset else "", self.type(type_id))
                for name_offset, type_id in pairs[:MAX_PARAMETERS]
            ]

        return FunctionType(self._lazy(raw.value), parameters, is_variadic)

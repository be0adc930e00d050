"""Which types does drgn read from a kernel's DWARF, where that is installed and nobody has BTF?

BTF is written as it is asked for: a type gets a number when something refers to it, and its words when somebody looks at it. To
whoever asks it is a section like any other, so the walk, `struct` and expressions stand on drgn as they stand on BTF. drgn
finds a type by name in milliseconds, once it has looked through the file, which takes it a second or two.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import MAGIC, MAX_DEPTH, Btf

MODULE = "drgn"

# Types that one session asks for are some thousands. A chain of objects that makes a new type at each step must end.
MAX_TYPES = 1 << 18
MAX_WORDS = 1 << 24
_MAX_PARTS = 0xFFFF

# Bits of a member's offset and size share a word (BTF_MEMBER_BIT_OFFSET).
_MAX_BIT_OFFSET = 1 << 24
_SIGNED, _BOOL = 1, 4
_EMPTY = kinds.HEADER.pack(MAGIC, 1, 0, kinds.HEADER.size, 0, 0, 0, 1) + b"\0"
_PREFIXES = {kinds.STRUCT: "struct ", kinds.UNION: "union ", kinds.ENUM: "enum "}
_QUALIFIERS = (("CONST", kinds.CONST), ("VOLATILE", kinds.VOLATILE), ("RESTRICT", kinds.RESTRICT))

# drgn calls C's integers by their shortest names; gcc's DWARF, and so BTF, by these.
_GCC_NAMES = {
    "short": "short int",
    "unsigned short": "short unsigned int",
    "long": "long int",
    "unsigned long": "long unsigned int",
    "long long": "long long int",
    "unsigned long long": "long long unsigned int",
}


def is_installed() -> bool:
    """Whether drgn can be imported."""
    return importlib.util.find_spec(MODULE) is not None


class DrgnBtf(Btf):
    """The types of a file with DWARF.

    Args:
        path: the file.

    Raises:
        UnsupportedFormat: drgn does not read it.
    """

    def __init__(self, path: str) -> None:
        super().__init__(_EMPTY, f"types of {path} by drgn", is_built=False)
        self._drgn = importlib.import_module(MODULE)
        self._text = bytearray(b"\0")
        self._text_at: dict[str, int] = {"": 0}
        self._types: list[Any] = []
        self._heads: list[tuple[int, int, int, int] | None] = []
        self._body: list[int] = []
        self._ids: dict[Any, int] = {}
        try:
            self._program = self._drgn.Program()
            made = self._program.extra_module("vmlinux", create=True)
            module = made[0] if isinstance(made, tuple) else made  # (module, is_new) in some releases
            module.try_file(path, force=True)
            self._program.type("struct task_struct")
        except Exception as error:
            raise UnsupportedFormat(path, f"drgn reads no types of it: {error}") from error

    # What `Btf` asks of a section

    @property
    def end_id(self) -> int:
        """Number behind that of the last type so far."""
        return 1 + len(self._types)

    def _header(self, type_id: int) -> tuple[int, int, int, int]:
        if not 1 <= type_id <= len(self._types):
            raise UnsupportedFormat(self.name, f"type {type_id} of {len(self._types)}")
        head = self._heads[type_id - 1]
        if head is None:
            head = self._heads[type_id - 1] = self._written(self._types[type_id - 1])
        return head

    def words(self, at: int, count: int) -> list[int]:
        """Words of the types written so far."""
        if at < 0 or at + count > len(self._body):
            raise UnsupportedFormat(self.name, f"type cut off at word {at}")
        return self._body[at : at + count]

    def string(self, offset: int) -> str:
        """A name that was written."""
        end = self._text.find(b"\0", offset)
        if offset < 0 or end < 0:
            raise UnsupportedFormat(self.name, f"a name without an end at offset {offset:#x}")
        return self._text[offset:end].decode("utf-8", "replace")

    def _search(self, kind: int, name: str) -> int | None:
        """As `find`; drgn is asked by the name as C writes it."""
        try:
            if kind == kinds.FUNC:
                return self._add((kinds.FUNC, name, self._program.function(name).type_))
            if kind in (kinds.VAR, kinds.DATASEC, kinds.ENUM64) or (kind in _PREFIXES and not name.isidentifier()):
                return None
            type_id = self._id_of(self._program.type(_PREFIXES.get(kind, "") + name))
        except (LookupError, SyntaxError, ValueError):
            return None
        except Exception as error:
            raise UnsupportedFormat(self.name, f"{name}: {error}") from error
        return type_id if type_id and self._header(type_id)[0] == kind else None

    @property
    def structure_names(self) -> list[str]:
        """None: drgn does not list them."""
        return []

    def mentioning(self, name: str, of_kinds: Sequence[int]) -> list[int]:
        """The enumeration that has an enumerator of that name."""
        if kinds.ENUM not in of_kinds or not name.isidentifier():
            return []
        try:
            return [self._id_of(self._program.constant(name).type_)]
        except Exception:  # noqa: BLE001  no such constant, or one of no enumeration
            return []

    @property
    def tells_signed_enums(self) -> bool:
        """DWARF says which are."""
        return True

    def check_whole(self) -> None:
        """Nothing: each type is made by drgn when it is asked for."""

    # Writing

    def _add(self, type_: Any) -> int:
        if len(self._types) >= MAX_TYPES:
            raise UnsupportedFormat(self.name, f"more than {MAX_TYPES} types")
        self._types.append(type_)
        self._heads.append(None)
        return len(self._types)

    def _id_of(self, type_: Any) -> int:
        """The number of a type of drgn's, 0 of void."""
        for word, kind in _QUALIFIERS:
            qualifier = getattr(self._drgn.Qualifiers, word)
            if type_.qualifiers & qualifier:
                return self._once((kind, self._id_of(type_.qualified(type_.qualifiers & ~qualifier))))
        if type_.qualifiers:
            return self._id_of(type_.unqualified())  # _Atomic, which BTF has no kind for
        name = type_.kind.name
        if name == "VOID":
            return 0
        if name == "POINTER":
            return self._once((kinds.PTR, self._id_of(type_.type)))
        key = _key(type_)
        if key is None:
            return self._add(type_)
        if key not in self._ids:
            self._ids[key] = self._add(type_)
        return self._ids[key]

    def _once(self, key: tuple[int, int]) -> int:
        """The number of a pointer or qualifier; of each target there is one."""
        if key not in self._ids:
            self._ids[key] = self._add(key)
        return self._ids[key]

    def _name_at(self, text: str | None) -> int:
        text = text or ""
        if text not in self._text_at:
            self._text_at[text] = len(self._text)
            self._text += text.encode("utf-8", "replace") + b"\0"
        return self._text_at[text]

    def _put(
        self, kind: int, name: str | None, value: int, words: Sequence[int] = (), vlen: int = 0, flag: bool = False
    ) -> tuple[int, int, int, int]:
        """Writes a type; what `_header` gives of it."""
        if vlen > _MAX_PARTS or len(self._body) + len(words) > MAX_WORDS:
            raise UnsupportedFormat(self.name, f"{name or 'a type'} has too many parts")
        self._body += [self._name_at(name), flag << 31 | kind << 24 | vlen, value]
        at = len(self._body)
        self._body += words
        return kind, vlen, value, at

    def _written(self, type_: Any) -> tuple[int, int, int, int]:
        try:
            return self._write(type_)
        except UnsupportedFormat:
            raise
        except Exception as error:
            raise UnsupportedFormat(self.name, str(error)) from error

    def _write(self, type_: Any) -> tuple[int, int, int, int]:
        if isinstance(type_, tuple):
            if len(type_) == 2:
                return self._put(type_[0], None, type_[1])
            kind, name, target = type_
            return self._put(kind, name, self._id_of(target))

        name = type_.kind.name
        if name in ("INT", "BOOL"):
            return self._integer(type_)
        if name == "FLOAT":
            return self._put(kinds.FLOAT, type_.name, type_.size)
        if name == "TYPEDEF":
            return self._put(kinds.TYPEDEF, type_.name, self._id_of(type_.type))
        if name == "ARRAY":
            return self._put(kinds.ARRAY, None, 0, [self._id_of(type_.type), 0, type_.length or 0])
        if name in ("STRUCT", "CLASS", "UNION"):
            return self._compound(type_, kinds.UNION if name == "UNION" else kinds.STRUCT)
        if name == "ENUM":
            return self._enumeration(type_)
        if name == "FUNCTION":
            words = [word for each in type_.parameters for word in (self._name_at(each.name), self._id_of(each.type))]
            words += [0, 0] if type_.is_variadic else []
            return self._put(kinds.FUNC_PROTO, None, self._id_of(type_.type), words, len(words) // 2)
        raise UnsupportedFormat(self.name, f"a type of kind {name}")

    def _integer(self, type_: Any) -> tuple[int, int, int, int]:
        # As pahole writes it, which marks no character as one.
        encoding = _BOOL if type_.kind.name == "BOOL" else _SIGNED if type_.is_signed else 0
        return self._put(
            kinds.INT, _GCC_NAMES.get(type_.name, type_.name), type_.size, [encoding << 24 | 8 * type_.size]
        )

    def _compound(self, type_: Any, kind: int) -> tuple[int, int, int, int]:
        if not type_.is_complete():
            return self._put(kinds.FWD, type_.tag, 0, flag=kind == kinds.UNION)
        words = []
        members = type_.members
        has_bits = any(member.bit_field_size for member in members)
        for member in members:
            offset = member.bit_offset
            if has_bits:
                if offset >= _MAX_BIT_OFFSET:
                    raise UnsupportedFormat(self.name, f"a bit-field at bit {offset} of {type_.tag}")
                offset |= (member.bit_field_size or 0) << 24
            words += [self._name_at(member.name), self._id_of(member.type), offset]
        return self._put(kind, type_.tag, type_.size, words, len(members), has_bits)

    def _enumeration(self, type_: Any) -> tuple[int, int, int, int]:
        if not type_.is_complete():
            return self._put(kinds.ENUM, type_.tag, 0)
        values = [(each.name, each.value) for each in type_.enumerators]
        is_wide = any(not -(1 << 31) <= value < 1 << 32 for _, value in values)
        words = []
        for name, value in values:
            words += [self._name_at(name), value & 0xFFFF_FFFF, *([value >> 32 & 0xFFFF_FFFF] if is_wide else [])]
        kind = kinds.ENUM64 if is_wide else kinds.ENUM
        is_signed = bool(type_.type.is_signed) and any(value < 0 for _, value in values)
        return self._put(kind, type_.tag, self._drgn.sizeof(type_), words, len(values), is_signed)


def _key(type_: Any, depth: int = 0) -> Any:
    """What two types that are the same have alike; None of one without a name, which nothing else refers to."""
    name = type_.kind.name
    if name in ("INT", "BOOL", "FLOAT"):
        return name, type_.name, type_.size
    if name in ("STRUCT", "UNION", "CLASS", "ENUM"):
        if type_.tag is None:
            return None
        if not type_.is_complete():
            return name, type_.tag, None
        # Files may have a structure of their own by a name that others have too.
        if name == "ENUM":
            return name, type_.tag, tuple((each.name, each.value) for each in type_.enumerators)
        parts = tuple((each.name, each.bit_offset, each.type.type_name()) for each in type_.members)
        return name, type_.tag, type_.size, parts
    if name == "TYPEDEF" and depth < MAX_DEPTH:
        inner = _key(type_.type, depth + 1)
        return None if inner is None else (name, type_.name, inner)
    return None

"""Where in a kernel structure is a member, according to the kernel's own BTF?

Types are numbered by their order in the section and have no index, so the numbering is rebuilt once: numpy computes, for
every aligned word taken as a type header, where the next header would be, and a short loop follows the real chain.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import NotFound, UnsupportedFormat

MAGIC = 0xEB9F
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO = range(1, 14)
VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(14, 20)
_MODIFIERS = {TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG}

# Words that follow a header: a fixed part, and a part for each of the header's `vlen` elements.
_FIXED = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
_EACH = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
MAX_DEPTH, MAX_MEMBERS, MAX_NAME = 32, 1 << 15, 4096
MAX_TYPES = 32 << 20  # bytes of all types; those of a kernel of 2026 have 5 MB
MAX_SIZE = 256 << 20  # bytes of a type that anybody would read

_HEADER = struct.Struct("<HBBIIIII")


class Member(NamedTuple):
    """A structure member: bit offset from the structure's start, type number, bits of a bit-field (else 0)."""

    name: str
    bit_offset: int
    type_id: int
    bit_size: int

    @property
    def offset(self) -> int:
        """Offset in bytes."""
        return self.bit_offset // 8


class RawType(NamedTuple):
    """A type's header.

    `vlen` is how many parts it has, `value` a size or another type's number, `at` the index of the first word that follows.
    """

    kind: int
    name: str
    vlen: int
    flag: bool
    value: int
    at: int


class Btf:
    """The types of one BTF section.

    Raises:
        UnsupportedFormat: the section is not BTF, or its parts leave it.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._name = name
        if len(data) < _HEADER.size:
            raise UnsupportedFormat(name, "no BTF type information")
        magic, version, _, header_size, type_offset, type_size, string_offset, string_size = _HEADER.unpack_from(data)
        types, strings = header_size + type_offset, header_size + string_offset
        if magic != MAGIC or version != 1 or max(types + type_size, strings + string_size) > len(data):
            raise UnsupportedFormat(name, "damaged BTF header")
        if type_size > MAX_TYPES:
            raise UnsupportedFormat(name, f"{type_size} bytes of BTF types")
        self._words = memoryview(data[types : types + (type_size & ~3)]).cast("I")
        self._strings = data[strings : strings + string_size]
        self._named: dict[tuple[int, str], int | None] = {}

    @functools.cached_property
    def _starts(self) -> list[int]:
        """Word index of each type's header; type 0 is void."""
        words = np.frombuffer(self._words, dtype="<u4")
        info = np.zeros(len(words), dtype=np.int64)
        info[:-1] = words[1:]
        kind, vlen = info >> 24 & 31, info & 0xFFFF
        fixed, each = np.zeros(32, dtype=np.int64), np.zeros(32, dtype=np.int64)
        for key, count in _FIXED.items():
            fixed[key] = count
        for key, count in _EACH.items():
            each[key] = count
        following = memoryview(np.arange(len(words)) + 3 + fixed[kind] + each[kind] * vlen)
        starts, position, end = [-1], 0, len(words) - 2
        while position < end:
            starts.append(position)
            position = following[position]
        unknown = np.flatnonzero((kind[starts[1:]] == 0) | (kind[starts[1:]] > ENUM64))
        if len(unknown):  # nobody knows how long it is, so all that follow would be misnumbered
            raise UnsupportedFormat(self._name, f"BTF type {int(unknown[0]) + 1} is of a kind not known")
        return starts

    def _header(self, type_id: int) -> tuple[int, int, int, int]:
        """kind, vlen, size-or-type, and the word index of what follows."""
        starts = self._starts
        if not 0 < type_id < len(starts):
            raise UnsupportedFormat(self._name, f"BTF type {type_id} of {len(starts)}")
        start = starts[type_id]
        info = self._words[start + 1]
        return info >> 24 & 31, info & 0xFFFF, self._words[start + 2], start + 3

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset, offset + MAX_NAME)
        if end < 0:
            raise UnsupportedFormat(self._name, f"a name without an end at offset {offset:#x}")
        return self._strings[offset:end].decode("ascii", "replace")

    @property
    def name(self) -> str:
        """The section, for messages."""
        return self._name

    def raw(self, type_id: int) -> RawType:
        """A type's header; UnsupportedFormat for a number that no type has."""
        kind, count, value, at = self._header(type_id)
        name = self._words[at - 3]
        return RawType(kind, self._string(name) if name else "", count, bool(self._words[at - 2] >> 31), value, at)

    def words(self, at: int, count: int) -> list[int]:
        """Words that follow a header; UnsupportedFormat behind the section's end."""
        if at < 0 or at + count > len(self._words):
            raise UnsupportedFormat(self._name, f"BTF type cut off at word {at}")
        return self._words[at : at + count].tolist()

    def string(self, offset: int) -> str:
        """A name by its offset."""
        return self._string(offset)

    def find(self, kind: int, name: str) -> int | None:
        """The number of the type of that kind and name, or None."""
        if (kind, name) not in self._named:
            self._named[kind, name] = self._search(kind, name)
        return self._named[kind, name]

    @functools.cached_property
    def _names(self) -> npt.NDArray[np.uint32]:
        """Each type's name, as an offset into the strings."""
        words = np.frombuffer(self._words, dtype="<u4")
        names: npt.NDArray[np.uint32] = words[np.array(self._starts[1:], dtype=np.int64)]
        return names

    @functools.cached_property
    def structure_names(self) -> list[str]:
        """Names of all structures and unions, sorted."""
        words = np.frombuffer(self._words, dtype="<u4")
        starts = np.array(self._starts[1:], dtype=np.int64)
        kind = words[starts + 1] >> 24 & 31
        mine = np.unique(words[starts[(kind == STRUCT) | (kind == UNION)]]).tolist()
        found: set[str] = set()
        left = 2 * len(self._strings)  # names that lie in each other could fill all of memory
        for name in mine:
            found.add(text := self._string(name) if 0 < name < len(self._strings) else "")
            left -= len(text)
            if left < 0:
                raise UnsupportedFormat(self._name, "names of structures that lie in each other")
        return sorted(found - {""})

    def _search(self, kind: int, name: str) -> int | None:
        text, places = b"\0" + name.encode() + b"\0", [-1]
        while (at := self._strings.find(text, places[-1] + 1)) >= 0:
            places.append(at)
        names = np.array(places[1:], dtype=np.uint32) + 1
        hits = np.flatnonzero(self._names == names[0] if len(names) == 1 else np.isin(self._names, names))
        return next((hit + 1 for hit in hits.tolist() if self._header(hit + 1)[0] == kind), None)

    def _resolve(self, type_id: int) -> int:
        """`type_id` without typedefs and qualifiers."""
        for _ in range(MAX_DEPTH):
            kind, _, target, _ = self._header(type_id)
            if kind not in _MODIFIERS:
                return type_id
            type_id = target
        raise UnsupportedFormat(self._name, f"BTF type {type_id}: a chain of more than {MAX_DEPTH} qualifiers")

    def size_of(self, type_id: int) -> int:
        """Size in bytes of a type."""
        elements = 1
        for _ in range(MAX_DEPTH):
            kind, _, value, at = self._header(self._resolve(type_id))
            if kind != ARRAY:
                break
            element, _, count = self.words(at, 3)
            elements, type_id = elements * count, element
        size = 8 if kind == PTR else value if kind in (INT, STRUCT, UNION, ENUM, ENUM64, FLOAT) else 0
        if size * elements > MAX_SIZE:
            raise UnsupportedFormat(self._name, f"BTF type {type_id} of more than {MAX_SIZE >> 20} MiB")
        return size * elements

    def array_length(self, type_id: int) -> int:
        """Number of elements of an array type; 1 for anything else."""
        kind, _, _, at = self._header(self._resolve(type_id))
        return self.words(at, 3)[2] if kind == ARRAY else 1

    def points_to_integer(self, type_id: int) -> bool:
        """True for a pointer to an integer type, such as `unsigned long *`."""
        kind, _, target, _ = self._header(self._resolve(type_id))
        return kind == PTR and target != 0 and self._header(self._resolve(target))[0] == INT

    @functools.cached_property
    def structs(self) -> StructIndex:
        """The structures by name."""
        return StructIndex(self)

    def members(self, type_id: int, base: int = 0) -> dict[str, Member]:
        """Members of a structure or union by name, those of anonymous members included.

        Args:
            type_id: the type, or an array of it.
            base: bits to add to each offset.

        Raises:
            UnsupportedFormat: they are damaged, or more than any structure has.
        """
        found: dict[str, Member] = {}
        pending, seen = [(Member("", base, type_id, 0), 0)], 0
        while pending:
            member, depth = pending.pop()
            if member.name:
                found[member.name] = member
            elif depth <= MAX_DEPTH:
                inner = self._direct(member)
                seen += len(inner)
                if seen > MAX_MEMBERS:
                    raise UnsupportedFormat(self._name, f"BTF type {type_id} has more than {MAX_MEMBERS} members")
                pending += [(one, depth + 1) for one in reversed(inner)]
        return found

    def _direct(self, outer: Member) -> list[Member]:
        """The members of an anonymous member's type; an array has one, its element."""
        kind, count, _, at = self._header(self._resolve(outer.type_id))
        if kind == ARRAY:
            return [outer._replace(type_id=self.words(at, 3)[0])]
        if kind not in (STRUCT, UNION):
            return []
        is_packed, words = self._words[at - 2] >> 31, self.words(at, 3 * count)
        found = []
        for name, target, where in zip(words[::3], words[1::3], words[2::3], strict=True):
            bits, place = (where >> 24, where & 0xFFFFFF) if is_packed else (0, where)
            found.append(Member(self._string(name) if name else "", outer.bit_offset + place, target, bits))
        return found


class StructIndex:
    """Structures by name: `offset("task_struct", "thread.sp")` and the like."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._members: dict[str, dict[str, Member]] = {}
        self._paths: dict[tuple[str, str], Member | None] = {}

    @property
    def btf(self) -> Btf:
        """The section that the structures are from."""
        return self._btf

    def members(self, struct_name: str) -> dict[str, Member]:
        """Members of `struct struct_name` (or the union of that name) by name.

        Raises:
            NotFound: the kernel has no such structure.
        """
        if struct_name not in self._members:
            type_id = self._btf.find(STRUCT, struct_name) or self._btf.find(UNION, struct_name)
            if type_id is None:
                raise NotFound("structure", struct_name)
            self._members[struct_name] = self._btf.members(type_id)
        return self._members[struct_name]

    def find(self, struct_name: str, path: str) -> Member | None:
        """The member at a dotted path, or None where structure or member do not exist."""
        key = (struct_name, path)
        if key not in self._paths:
            self._paths[key] = self._walk_path(struct_name, path)
        return self._paths[key]

    def _walk_path(self, struct_name: str, path: str) -> Member | None:
        first, *rest = path.split(".")
        try:
            found = self.members(struct_name).get(first)
        except NotFound:
            return None
        for step in rest:
            if found is None:
                return None
            found = self._btf.members(found.type_id, found.bit_offset).get(step)
        return found

    def offset(self, struct_name: str, path: str) -> int:
        """Byte offset of a member.

        Raises:
            NotFound: there is no such member.
        """
        member = self.find(struct_name, path)
        if member is None:
            raise NotFound("member", f"{struct_name}.{path}")
        return member.offset

    def exists(self, struct_name: str) -> bool:
        """True when the kernel has a structure of that name."""
        return self._btf.find(STRUCT, struct_name) is not None

    def has(self, struct_name: str, path: str) -> bool:
        """True when the member exists."""
        return self.find(struct_name, path) is not None

    def size(self, struct_name: str) -> int:
        """Size of a structure in bytes; NotFound when it does not exist."""
        type_id = self._btf.find(STRUCT, struct_name)
        if type_id is None:
            raise NotFound("structure", struct_name)
        return self._btf.size_of(type_id)

    def size_of_member(self, struct_name: str, path: str) -> int:
        """Size of a member in bytes."""
        member = self.find(struct_name, path)
        if member is None:
            raise NotFound("member", f"{struct_name}.{path}")
        return self._btf.size_of(member.type_id)

    def array_length(self, struct_name: str, path: str) -> int:
        """Number of elements of an array member."""
        member = self.find(struct_name, path)
        return self._btf.array_length(member.type_id) if member else 0

    def points_to_integer(self, struct_name: str, path: str) -> bool:
        """True when the member exists and is a pointer to an integer type."""
        member = self.find(struct_name, path)
        return member is not None and self._btf.points_to_integer(member.type_id)

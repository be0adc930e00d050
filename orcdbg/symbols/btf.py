"""Where in a kernel structure is a member, according to the kernel's own BTF?

Mirrors include/uapi/linux/btf.h. Types are numbered by their order in the section and have no index, so the numbering is
rebuilt once: numpy computes, for every aligned word taken as a type header, where the next header would be, and a short loop
follows the real chain.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import NotFound, UnsupportedFormat

MAGIC = 0xEB9F
VERSION = 1

# BTF_KIND_*, in the order of their numbers.
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO = range(1, 14)
VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(14, 20)
_MODIFIERS = {TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG}
_SIZED = {INT, STRUCT, UNION, ENUM, ENUM64, FLOAT}
_REFERRING = {PTR, FUNC, FUNC_PROTO, VAR, DECL_TAG, *_MODIFIERS}
_CONTAINING = {STRUCT, UNION, ARRAY, *_MODIFIERS}
# Words of each part of a type, and which of them is the part's type.
_PART_TYPES = {STRUCT: (3, 1), UNION: (3, 1), FUNC_PROTO: (2, 1), DATASEC: (3, 0)}
_POINTER_SIZE = 8

# struct btf_type: three words, name_off, info, and size or type. `info` holds vlen, kind and kind_flag.
_HEADER_WORDS = 3
_KINDS = 32

# Words that follow a type's header: a fixed part, and a part for each of the header's `vlen` elements.
_FIXED = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
_EACH = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}

# Typedefs, qualifiers and anonymous members may name each other in a circle; a kernel's are a few deep.
MAX_DEPTH = 32
# Structures, arrays, typedefs and qualifiers in each other; those of a kernel are some 30 deep.
MAX_NESTING = 128
# A structure may contain itself a million times; the largest of a kernel has some hundreds of members.
MAX_MEMBERS = 1 << 15
# Names may lie in each other, so that a small section holds many long ones.
MAX_NAME = 4096
# Bytes of all types; those of a kernel of 2026 have 5 MB.
MAX_TYPES = 32 << 20
# Bytes of a type that anybody would read.
MAX_SIZE = 256 << 20

SECTION = ".BTF"

# struct btf_header: magic, version, flags, hdr_len; offset and length of the types, and of the strings.
HEADER = struct.Struct("<HBBIIIII")


class BtfMember(NamedTuple):
    """A structure's member.

    Attributes:
        name: empty for an anonymous one.
        bit_offset: from the structure's start.
        type_id: number of its type.
        bit_size: bits of a bit-field, else 0.
    """

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

    Attributes:
        kind: one of the kinds above.
        name: empty where it has none.
        vlen: how many parts it has.
        flag: `kind_flag`, which means another thing for each kind.
        value: a size in bytes, or another type's number.
        at: index of the first word that follows.
    """

    kind: int
    name: str
    vlen: int
    flag: bool
    value: int
    at: int


class _Links(NamedTuple):
    """References: the number of the type that refers, and of the type that it refers to."""

    owner: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]


class Btf:
    """The types of one BTF section.

    Args:
        data: the section.
        name: for messages.
        base: the section that this one continues, where it is split BTF: the numbers of its types, the offsets of its strings,
            and here the indices of its words, begin where the base's end (kernel/bpf/btf.c, `start_id`, `start_str_off`).
        is_built: whether it is the one that the kernel was built with, whose numbers its modules' split BTF continues.

    Raises:
        UnsupportedFormat: the section is not BTF, or its parts leave it.
    """

    def __init__(self, data: bytes, name: str, base: Btf | None = None, *, is_built: bool = True) -> None:
        self._name = name
        self._base = base
        self.is_built = is_built
        self._first_string = 0 if base is None else base.strings_end
        self._first_word = 0 if base is None else base.words_end
        if len(data) < HEADER.size:
            raise UnsupportedFormat(name, "no BTF type information")

        magic, version, _, header_size, type_offset, type_size, string_offset, string_size = HEADER.unpack_from(data)
        types = header_size + type_offset
        strings = header_size + string_offset
        if magic != MAGIC or version != VERSION or max(types + type_size, strings + string_size) > len(data):
            raise UnsupportedFormat(name, "damaged BTF header")
        if type_size > MAX_TYPES:
            raise UnsupportedFormat(name, f"{type_size} bytes of BTF types")

        self._words = memoryview(data[types : types + (type_size & ~3)]).cast("I")
        self._strings = data[strings : strings + string_size]
        self._offsets: dict[str, list[int]] = {}
        self._named: dict[tuple[int, str], int | None] = {}

    @property
    def name(self) -> str:
        """The section, for messages."""
        return self._name

    @property
    def strings_end(self) -> int:
        """Offset behind the last string, its base's counted."""
        return self._first_string + len(self._strings)

    @property
    def words_end(self) -> int:
        """Index behind the last word, its base's counted."""
        return self._first_word + len(self._words)

    @functools.cached_property
    def first_id(self) -> int:
        """Number of the first type of this section's own."""
        return 1 if self._base is None else self._base.end_id

    @property
    def end_id(self) -> int:
        """Number behind that of the last type."""
        return self.first_id + len(self._starts)

    @functools.cached_property
    def _starts(self) -> list[int]:
        """Where the header of each type of this section's own is: an index into its own words."""
        words = np.frombuffer(self._words, dtype="<u4")
        info = np.zeros(len(words), dtype=np.int64)
        info[:-1] = words[1:]
        kind = info >> 24 & 31
        vlen = info & 0xFFFF

        fixed = np.zeros(_KINDS, dtype=np.int64)
        for of_kind, count in _FIXED.items():
            fixed[of_kind] = count
        each = np.zeros(_KINDS, dtype=np.int64)
        for of_kind, count in _EACH.items():
            each[of_kind] = count

        # The loop runs over every type of the kernel. A memoryview gives it plain numbers; numpy's scalars would make it slow.
        following = memoryview(np.arange(len(words)) + _HEADER_WORDS + fixed[kind] + each[kind] * vlen)
        starts: list[int] = []
        position = 0
        end = len(words) - (_HEADER_WORDS - 1)
        while position < end:
            starts.append(position)
            position = following[position]

        self._has_all_words = position == len(words)

        # Nobody knows how long a type of another kind is, so that all which follow it would be misnumbered.
        unknown = np.flatnonzero((kind[starts] == 0) | (kind[starts] > ENUM64))
        if len(unknown):
            raise UnsupportedFormat(self._name, f"BTF type {int(unknown[0]) + self.first_id} is of a kind not known")
        return starts

    def _header(self, type_id: int) -> tuple[int, int, int, int]:
        """kind, vlen, size-or-type, and the word index of what follows."""
        if self._base is not None and type_id < self.first_id:
            return self._base._header(type_id)
        starts = self._starts
        index = type_id - self.first_id
        if not 0 <= index < len(starts):
            raise UnsupportedFormat(self._name, f"BTF type {type_id} of {self.end_id}")
        start = starts[index]
        info = self._words[start + 1]
        return info >> 24 & 31, info & 0xFFFF, self._words[start + 2], self._first_word + start + _HEADER_WORDS

    def string(self, offset: int) -> str:
        """A name by its offset in the section's strings.

        Raises:
            UnsupportedFormat: it does not end, or is longer than any compiler makes.
        """
        if self._base is not None and offset < self._first_string:
            return self._base.string(offset)
        offset -= self._first_string
        end = self._strings.find(b"\0", offset, offset + MAX_NAME)
        if end < 0:
            raise UnsupportedFormat(self._name, f"a name without an end at offset {offset:#x}")
        return self._strings[offset:end].decode("ascii", "replace")

    def raw(self, type_id: int) -> RawType:
        """A type's header; UnsupportedFormat for a number that no type has."""
        kind, count, value, body = self._header(type_id)
        name_offset, info = self.words(body - _HEADER_WORDS, 2)
        flag = bool(info >> 31)
        return RawType(kind, self.string(name_offset) if name_offset else "", count, flag, value, body)

    def words(self, at: int, count: int) -> list[int]:
        """Words that follow a header; UnsupportedFormat behind the section's end."""
        if self._base is not None and at < self._first_word:
            return self._base.words(at, count)
        at -= self._first_word
        if at < 0 or at + count > len(self._words):
            raise UnsupportedFormat(self._name, f"BTF type cut off at word {at}")
        return self._words[at : at + count].tolist()

    def find(self, kind: int, name: str) -> int | None:
        """The number of the type of that kind and name, or None; a base's types are not asked."""
        if (kind, name) not in self._named:
            self._named[kind, name] = self._search(kind, name)
        return self._named[kind, name]

    @functools.cached_property
    def _names(self) -> npt.NDArray[np.uint32]:
        """Each type's name, as an offset into the strings."""
        words = np.frombuffer(self._words, dtype="<u4")
        names: npt.NDArray[np.uint32] = words[np.array(self._starts, dtype=np.int64)]
        return names

    @functools.cached_property
    def structure_names(self) -> list[str]:
        """Names of all structures and unions, sorted."""
        words = np.frombuffer(self._words, dtype="<u4")
        starts = np.array(self._starts, dtype=np.int64)
        kind = words[starts + 1] >> 24 & 31
        name_offsets = np.unique(words[starts[(kind == STRUCT) | (kind == UNION)]]).tolist()

        names: set[str] = set()
        # Names that lie in each other could fill all of memory: as many characters come out as honest strings could give.
        left = 2 * len(self._strings)
        for offset in name_offsets:
            if not 0 < offset < self.strings_end:
                continue
            name = self.string(offset)
            names.add(name)
            left -= len(name)
            if left < 0:
                raise UnsupportedFormat(self._name, "names of structures that lie in each other")
        return sorted(names - {""})

    def _search(self, kind: int, name: str) -> int | None:
        """As `find`, without keeping the answer."""
        offsets = np.array(self._offsets_of(name), dtype=np.uint32)
        is_hit = self._names == offsets[0] if len(offsets) == 1 else np.isin(self._names, offsets)
        type_ids = (index + self.first_id for index in np.flatnonzero(is_hit).tolist())
        return next((type_id for type_id in type_ids if self._header(type_id)[0] == kind), None)

    def _offsets_of(self, name: str) -> list[int]:
        """Where a name is among the strings, those of the base included, which a split section refers to."""
        # One look through all strings takes 2 ms, and dozens of modules ask the same base.
        if name not in self._offsets:
            self._offsets[name] = self._found_offsets(name)
        return self._offsets[name]

    def _found_offsets(self, name: str) -> list[int]:
        """As `_offsets_of`, without keeping the answer."""
        offsets = [] if self._base is None else list(self._base._offsets_of(name))
        # A string is there once in a good section, and a name may begin only behind another's end.
        text = b"\0" + name.encode() + b"\0"
        place = self._strings.find(text)
        if self._strings.startswith(text[1:]):  # a split section's strings begin without an empty one
            offsets.append(self._first_string)
        while place >= 0:
            offsets.append(self._first_string + place + 1)
            place = self._strings.find(text, place + 1)
        return offsets

    @functools.cached_property
    def _kinds(self) -> npt.NDArray[np.integer[Any]]:
        """Kind of each type of this section's own."""
        words = np.frombuffer(self._words, dtype="<u4")
        kind: npt.NDArray[np.integer[Any]] = words[np.array(self._starts, dtype=np.int64) + 1] >> 24 & 31
        return kind

    def mentioning(self, name: str, of_kinds: Sequence[int]) -> list[int]:
        """Numbers of the types of some kinds that a name's offset is among the words of, of this section's own."""
        words = np.frombuffer(self._words, dtype="<u4")
        places = np.flatnonzero(np.isin(words, np.array(self._offsets_of(name), dtype=np.uint32)))
        indices = np.unique(np.searchsorted(np.array(self._starts, dtype=np.int64), places, side="right") - 1)
        indices = indices[indices >= 0]
        found: list[int] = (indices[np.isin(self._kinds[indices], of_kinds)] + self.first_id).tolist()
        return found

    @functools.cached_property
    def tells_signed_enums(self) -> bool:
        """Whether the encoder says which enumerations are signed: since pahole 1.24 and Linux 6.0, one of a kernel is."""
        if self._base is not None:
            return self._base.tells_signed_enums
        words = np.frombuffer(self._words, dtype="<u4")
        infos = words[np.array(self._starts, dtype=np.int64) + 1][np.isin(self._kinds, (ENUM, ENUM64))]
        return bool((infos >> 31).any())

    def check_whole(self) -> None:
        """Looks once at every type, as the kernel does before it takes a section (kernel/bpf/btf.c, `btf_check_all_types`).

        A section of the kernel's own build needs none of it: each question to it is bounded for itself. What was found in
        memory, or was given, is looked at before anything is believed of it.

        Raises:
            UnsupportedFormat: a type is cut off, a name lies outside of the strings, a type refers to one that there is not,
                or contains itself.
        """
        starts = np.array(self._starts, dtype=np.int64)
        if not self._has_all_words or not len(starts):
            raise UnsupportedFormat(self._name, "the last BTF type is cut off" if len(starts) else "BTF without types")
        if not self._strings.startswith(b"\0") or not self._strings.endswith(b"\0"):
            raise UnsupportedFormat(self._name, "the strings of BTF do not begin and end as strings do")

        words = np.frombuffer(self._words, dtype="<u4")
        if int(words[starts].max()) >= len(self._strings):
            raise UnsupportedFormat(self._name, "a BTF type's name lies outside of the strings")

        kind = words[starts + 1] >> 24 & 31
        links = [self._targets(starts, kind), *(self._parts(starts, kind, each) for each in _PART_TYPES)]
        if max((int(link.target.max()) for link in links if len(link.target)), default=0) > len(starts):
            raise UnsupportedFormat(self._name, f"BTF refers to more types than the {len(starts)} that it has")
        self._refuse_circles(kind, links)

    def _targets(self, starts: npt.NDArray[np.int64], kind: npt.NDArray[np.integer[Any]]) -> _Links:
        """What types with one target refer to, arrays among them."""
        words = np.frombuffer(self._words, dtype="<u4")
        # An array's element is the first word behind the header, the others' target the last one in it.
        of_header = np.flatnonzero(np.isin(kind, tuple(_REFERRING)))
        of_array = np.flatnonzero(kind == ARRAY)
        places = np.concatenate((starts[of_header] + _HEADER_WORDS - 1, starts[of_array] + _HEADER_WORDS))
        return _Links(np.concatenate((of_header, of_array)) + 1, words[places].astype(np.int64))

    def _parts(self, starts: npt.NDArray[np.int64], kind: npt.NDArray[np.integer[Any]], of_kind: int) -> _Links:
        """What the parts (members, parameters, variables) of types of a kind refer to."""
        step, at = _PART_TYPES[of_kind]
        words = np.frombuffer(self._words, dtype="<u4")
        owners = np.flatnonzero(kind == of_kind)
        first = starts[owners] + _HEADER_WORDS
        counts = (words[first - _HEADER_WORDS + 1] & 0xFFFF).astype(np.int64)
        number_in_type = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        targets = words[np.repeat(first, counts) + step * number_in_type + at].astype(np.int64)
        return _Links(np.repeat(owners + 1, counts), targets)

    def _refuse_circles(self, kind: npt.NDArray[np.integer[Any]], links: Sequence[_Links]) -> None:
        """Refuses types that contain themselves; a pointer to a type contains none of it."""
        owner = np.concatenate([link.owner for link in links])
        target = np.concatenate([link.target for link in links])
        contains = np.isin(kind, tuple(_CONTAINING))[owner - 1]
        owner, target = owner[contains], target[contains]

        # Each round resolves what contains only what is resolved, as leaves are taken off a tree.
        for _ in range(MAX_NESTING):
            is_open = np.zeros(len(kind) + 1, dtype=bool)
            is_open[owner] = True
            left = is_open[target]
            owner, target = owner[left], target[left]
            if not len(owner):
                return
        what = f"BTF type {int(owner[0])} contains itself, or types nested more than {MAX_NESTING} deep"
        raise UnsupportedFormat(self._name, what)

    def _resolve(self, type_id: int) -> int:
        """`type_id` without typedefs and qualifiers."""
        for _ in range(MAX_DEPTH):
            kind, _, target, _ = self._header(type_id)
            if kind not in _MODIFIERS:
                return type_id
            type_id = target
        raise UnsupportedFormat(self._name, f"BTF type {type_id}: a chain of more than {MAX_DEPTH} qualifiers")

    def size_of(self, type_id: int) -> int:
        """Size of a type in bytes; 0 of one that has none, such as a function.

        Raises:
            UnsupportedFormat: damaged, or larger than anybody would read.
        """
        elements = 1
        for _ in range(MAX_DEPTH):
            kind, _, value, body = self._header(self._resolve(type_id))
            if kind != ARRAY:
                break
            type_id, _, count = self.words(body, 3)
            elements *= count

        size = _POINTER_SIZE if kind == PTR else value if kind in _SIZED else 0
        if size * elements > MAX_SIZE:
            raise UnsupportedFormat(self._name, f"BTF type {type_id} of more than {MAX_SIZE >> 20} MiB")
        return size * elements

    def array_length(self, type_id: int) -> int:
        """Number of elements of an array type; 1 for anything else."""
        kind, _, _, body = self._header(self._resolve(type_id))
        return self.words(body, 3)[2] if kind == ARRAY else 1

    def points_to_integer(self, type_id: int) -> bool:
        """True for a pointer to an integer type, such as `unsigned long *`."""
        kind, _, target, _ = self._header(self._resolve(type_id))
        return kind == PTR and target != 0 and self._header(self._resolve(target))[0] == INT

    @functools.cached_property
    def structs(self) -> StructIndex:
        """The structures by name."""
        return StructIndex(self)

    def members(self, type_id: int, base: int = 0) -> dict[str, BtfMember]:
        """Members of a structure or union by name, those of anonymous members included.

        Args:
            type_id: the type, or an array of it.
            base: bits to add to each offset.

        Raises:
            UnsupportedFormat: they are damaged, or more than any structure has.
        """
        members: dict[str, BtfMember] = {}
        pending = [(BtfMember("", base, type_id, 0), 0)]
        seen = 0
        while pending:
            member, depth = pending.pop()
            if member.name:
                members[member.name] = member
                continue
            if depth > MAX_DEPTH:
                continue

            inner = self._direct(member)
            seen += len(inner)
            if seen > MAX_MEMBERS:
                raise UnsupportedFormat(self._name, f"BTF type {type_id} has more than {MAX_MEMBERS} members")
            # Reversed, so that they come off the pile in the order of the structure.
            pending += [(each, depth + 1) for each in reversed(inner)]
        return members

    def _direct(self, outer: BtfMember) -> list[BtfMember]:
        """The members of an anonymous member's type; an array has one, its element."""
        kind, count, _, body = self._header(self._resolve(outer.type_id))
        if kind == ARRAY:
            element, _, _ = self.words(body, 3)
            return [outer._replace(type_id=element)]
        if kind not in (STRUCT, UNION):
            return []

        has_bit_fields = bool(self.words(body - 2, 1)[0] >> 31)
        words = self.words(body, 3 * count)
        members = []
        for name_offset, type_id, offset in zip(words[::3], words[1::3], words[2::3], strict=True):
            # With kind_flag, the offset's upper byte is a bit-field's size (BTF_MEMBER_BITFIELD_SIZE).
            bit_size = 0
            if has_bit_fields:
                bit_size = offset >> 24
                offset &= 0xFFFFFF
            name = self.string(name_offset) if name_offset else ""
            members.append(BtfMember(name, outer.bit_offset + offset, type_id, bit_size))
        return members


class StructIndex:
    """Structures by name: `offset("task_struct", "thread.sp")` and the like.

    Args:
        btf: the section that they are from.
    """

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._members: dict[str, dict[str, BtfMember]] = {}
        self._paths: dict[tuple[str, str], BtfMember | None] = {}

    @property
    def btf(self) -> Btf:
        """The section that the structures are from."""
        return self._btf

    def members(self, struct_name: str) -> dict[str, BtfMember]:
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

    def find(self, struct_name: str, path: str) -> BtfMember | None:
        """The member at a dotted path, or None where structure or member do not exist."""
        key = (struct_name, path)
        if key not in self._paths:
            self._paths[key] = self._walk_path(struct_name, path)
        return self._paths[key]

    def _walk_path(self, struct_name: str, path: str) -> BtfMember | None:
        """As `find`, without keeping the answer; a later member's offset counts from the structure's start."""
        first, *rest = path.split(".")
        try:
            member = self.members(struct_name).get(first)
        except NotFound:
            return None

        for step in rest:
            if member is None:
                return None
            member = self._btf.members(member.type_id, member.bit_offset).get(step)
        return member

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

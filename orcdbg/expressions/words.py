"""What does a value say to who reads it, besides its number?

An error in a pointer, the flags of an allocation, a task's state, a moment in jiffies: which bits mean what is read from
this kernel's own tables (`gfpflag_names` and its like in mm/debug.c, which print them into the log), so that no version of
them is believed in.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import read_cstring, read_u64
from orcdbg.base.sizes import U64
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program
from orcdbg.typed.types import (
    ArrayType,
    CompoundType,
    EnumType,
    IntKind,
    IntType,
    PointerType,
    QualifiedType,
    Type,
    TypedefType,
    is_text_type,
    resolved,
)
from orcdbg.typed.values import Compound, Elements, Scalar, Value

Path = tuple[str | int, ...]
"""Members and indices from a value to a part of it."""

MAX_ERRNO = 4095  # include/linux/err.h
MAX_TEXT = 200  # characters of a string that are shown beside its pointer
MAX_STRINGS = 256  # strings in one answer, each of which is a read
_MAX_FLAGS = 128  # rows of a table of flags
_MAX_FLAG_NAME = 64

# What the kernel has of its own beside POSIX's (include/linux/errno.h).
_KERNEL_ERRORS: Mapping[int, str] = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
    517: "EPROBE_DEFER",
    518: "EOPENSTALE",
    519: "ENOPARAM",
    521: "EBADHANDLE",
    522: "ENOTSYNC",
    523: "EBADCOOKIE",
    524: "ENOTSUPP",
    525: "ETOOSMALL",
    526: "ESERVERFAULT",
    527: "EBADTYPE",
    528: "EJUKEBOX",
    529: "EIOCBQUEUED",
    530: "ERECALLCONFLICT",
}

# task_struct.__state and exit_state, the bits that have meant the same since 4.14 (include/linux/sched.h, commit
# 8ef9925b02c2); the bits above came and moved, and are shown as numbers.
_TASK_STATES = (
    (0x0001, "TASK_INTERRUPTIBLE"),
    (0x0002, "TASK_UNINTERRUPTIBLE"),
    (0x0004, "__TASK_STOPPED"),
    (0x0008, "__TASK_TRACED"),
    (0x0010, "EXIT_DEAD"),
    (0x0020, "EXIT_ZOMBIE"),
    (0x0040, "TASK_PARKED"),
    (0x0080, "TASK_DEAD"),
    (0x0100, "TASK_WAKEKILL"),
    (0x0200, "TASK_WAKING"),
    (0x0400, "TASK_NOLOAD"),
    (0x0800, "TASK_NEW"),
)

# Members that hold a moment in jiffies, and those of structures, by name.
_JIFFIES_NAMES = ("jiffies", "jiffies_64")
_JIFFIES_MEMBERS = (("timer_list", "expires"),)
_STATE_MEMBERS = ("__state", "state", "exit_state")

# Of an integer without any of these names and typedefs, and that is no character, no question has an answer.
_TELLING_NAMES = frozenset(["flags", "f", "vm_flags", *_STATE_MEMBERS, *(name for _, name in _JIFFIES_MEMBERS)])
_TELLING_TYPEDEFS = frozenset(["gfp_t", "dev_t"])

_MINOR_BITS = 20  # include/linux/kdev_t.h


def error_name(number: int) -> str | None:
    """The name of an error number, `ENOMEM` of 12; None where it has none."""
    return errno.errorcode.get(number) or _KERNEL_ERRORS.get(number)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a value that has no parts itself, or a structure.

    Attributes:
        path: from the value to it.
        object: the part.
        value: what it was read as.
        structure: the name of the structure that it is a member of, else empty.
        name: of the member or variable, else empty.
    """

    path: Path
    object: Object
    value: Value
    structure: str
    name: str


def parts_of(
    whole: Object, value: Value, structure: str = "", name: str = "", plain_numbers: bool = True
) -> Iterator[Part]:
    """Every part of a value, itself first; as many as `values` has read.

    Args:
        whole: the object.
        value: what it was read as.
        structure: as in `Part`, of the object itself.
        name: likewise.
        plain_numbers: whether the elements of arrays of integers are wanted of which `Words` has nothing to say. Of a
            task_struct they are 4096 of 5500 parts, and were most of the 60 ms that it took to print one.
    """
    yield from _parts(Part((), whole, value, structure, name), plain_numbers)


def _parts(part: Part, plain_numbers: bool) -> Iterator[Part]:
    yield part
    if isinstance(part.value, Compound):
        plain = part.object.plain_type_
        if isinstance(plain, CompoundType):
            for name, inner in part.value.members:
                member = part.object.member_(name)
                tag = plain.name or next(_typedefs(part.object.type_), "")
                yield from _parts(Part((*part.path, name), member, inner, tag, name), plain_numbers)
    elif isinstance(part.value, Elements):
        plain = part.object.plain_type_
        if isinstance(plain, ArrayType) and (plain_numbers or not _is_plain_number(plain.target, part.name)):
            for index, inner in enumerate(part.value.elements):
                element = Part((*part.path, index), part.object[index], inner, part.structure, part.name)
                yield from _parts(element, plain_numbers)


def _is_plain_number(type_: Type, name: str) -> bool:
    """Whether none of the questions about integers can have an answer for elements of this type in a member of this name."""
    if not isinstance(resolved(type_), IntType) or name in _TELLING_NAMES or _is_character(type_):
        return False
    return _TELLING_TYPEDEFS.isdisjoint(_typedefs(type_))


class Words:
    """What the values of one kernel say.

    Args:
        program: the kernel.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._strings = 0

    def of(self, part: Part) -> str | None:
        """What a part says besides its number; None where it is only that."""
        questions = _QUESTIONS.get(type(part.object.plain_type_), ())
        try:
            return next(filter(None, (ask(self, part) for ask in questions)), None)
        except OrcdbgError:
            return None  # a comment on a value is not worth an error in its place

    # Pointers

    def _error(self, part: Part) -> str | None:
        number = _number(part)
        if number is None or not isinstance(part.object.plain_type_, PointerType) or number < (U64 + 1) - MAX_ERRNO:
            return None
        return f"ERR_PTR(-{error_name(U64 + 1 - number) or U64 + 1 - number})"

    def _string(self, part: Part) -> str | None:
        plain = part.object.plain_type_
        if not isinstance(plain, PointerType) or not is_text_type(plain.target):
            return None
        number = _number(part)
        self._strings += 1
        if not number or self._strings > MAX_STRINGS:
            return None
        data = read_cstring(self._program.memory, number, MAX_TEXT)
        text = data.decode("utf-8", "backslashreplace").replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"' + ("..." if len(data) >= MAX_TEXT else "")

    def _empty_list(self, part: Part) -> str | None:
        plain = part.object.plain_type_
        address = part.object.address_
        if not isinstance(plain, CompoundType) or plain.name != "list_head" or address is None:
            return None
        return "empty list" if int(part.object.member_("next")) == address else None

    # Flags

    def _allocation_flags(self, part: Part) -> str | None:
        return self._flags("gfpflag_names", part) if "gfp_t" in _typedefs(part.object.type_) else None

    def _page_flags(self, part: Part) -> str | None:
        # Since 6.18 the word is in a structure of its own (commit 53fbef56e07d): memdesc_flags_t.
        is_flags = part.structure in ("page", "folio") and part.name == "flags"
        if not is_flags and not (part.name == "f" and part.structure == "memdesc_flags_t"):
            return None
        return self._flags("pageflag_names", part, "zone, node and section")

    def _mapping_flags(self, part: Part) -> str | None:
        is_flags = part.name == "vm_flags" and part.structure == "vm_area_struct"
        return self._flags("vmaflag_names", part) if is_flags else None

    def _flags(self, table: str, part: Part, rest: str = "") -> str | None:
        number = _number(part)
        rows = self._table(table)
        if number is None or not rows:
            return None
        left, names = number & U64, []
        for mask, name in rows:
            # A row may stand for several bits (GFP_KERNEL), as in the kernel's own print of them.
            if mask and left & mask == mask:
                names.append(name)
                left &= ~mask
        if left:
            names.append(f"{rest} {left:#x}" if rest else f"{left:#x}")
        return "|".join(names) or None

    @functools.cache  # noqa: B019  as long as the answer that it is for
    def _table(self, name: str) -> Sequence[tuple[int, str]]:
        """A table of `struct trace_print_flags`: a mask and a name each, up to the first without a name."""
        address = self._program.linux.find_address(name)
        if address is None:
            return ()
        rows: list[tuple[int, str]] = []
        memory = self._program.linux.memory
        try:
            for row in range(_MAX_FLAGS):
                mask, text = (read_u64(memory, address + 16 * row + offset) for offset in (0, 8))
                if not text:
                    break
                rows.append((mask, read_cstring(memory, text, _MAX_FLAG_NAME).decode("ascii", "replace")))
        except MemoryFault:
            return ()
        return rows

    # Other numbers

    def _task_state(self, part: Part) -> str | None:
        if part.structure != "task_struct" or part.name not in _STATE_MEMBERS:
            return None
        number = _number(part)
        if number is None:
            return None
        if not number:
            return None if part.name == "exit_state" else "TASK_RUNNING"
        known = [name for bit, name in _TASK_STATES if number & bit]
        left = number & ~sum(bit for bit, _ in _TASK_STATES)
        return "|".join([*known, *([f"{left:#x}"] if left else [])])

    def _device(self, part: Part) -> str | None:
        if "dev_t" not in _typedefs(part.object.type_):
            return None
        number = _number(part)
        return f"{number >> _MINOR_BITS}:{number & (1 << _MINOR_BITS) - 1}" if number else None

    def _moment(self, part: Part) -> str | None:
        is_member = (part.structure, part.name) in _JIFFIES_MEMBERS
        is_variable = not part.path and part.name in _JIFFIES_NAMES
        number = _number(part)
        if number is None or not (is_member or is_variable) or not (is_variable or number):
            return None
        rate = self._ticks_per_second
        if rate is None:
            return None
        # INITIAL_JIFFIES (include/linux/jiffies.h): the first wrap of 32 bits comes five minutes after the boot.
        since_boot = number - ((-300 * rate) & 0xFFFF_FFFF)
        seconds = since_boot / rate
        return f"{seconds:.3f} s after the boot" if seconds >= 0 else f"{-seconds:.3f} s before the boot"

    @functools.cached_property
    def _ticks_per_second(self) -> int | None:
        """HZ, by the clock that counts in jiffies: a tick of it has `mult >> shift` ns (kernel/time/jiffies.c)."""
        address = self._program.linux.find_address("clocksource_jiffies")
        if address is None:
            return None
        clock = self._program.object("clocksource", address)
        length = int(clock.mult) >> min(int(clock.shift), 63)
        rate = round(1_000_000_000 / length) if length else 0
        return rate if 10 <= rate <= 10_000 else None

    def _character(self, part: Part) -> str | None:
        number = _number(part)
        if number is None or not _is_character(part.object.plain_type_):
            return None
        return repr(chr(number)) if 32 <= number < 127 else None


_QUESTIONS: Mapping[type[Type], Sequence[Callable[[Words, Part], str | None]]] = {
    PointerType: (Words._error, Words._string),
    CompoundType: (Words._empty_list,),
    IntType: (
        Words._allocation_flags,
        Words._page_flags,
        Words._mapping_flags,
        Words._task_state,
        Words._device,
        Words._moment,
        Words._character,
    ),
}


def _is_character(type_: Type) -> bool:
    plain = resolved(type_)
    return (isinstance(plain, IntType) and plain.kind is IntKind.CHAR) or is_text_type(plain)


def _number(part: Part) -> int | None:
    """The number that a part was read as; None of what has none, and of an enumerator."""
    value = part.value
    return value.value if isinstance(value, Scalar) and isinstance(value.value, int) else None


def _typedefs(type_: Type) -> Iterator[str]:
    """Names of the typedefs that a type was come to by."""
    for _ in range(32):
        if isinstance(type_, TypedefType):
            yield type_.name
        if not isinstance(type_, TypedefType | QualifiedType):
            return
        type_ = type_.target


# Formats


def formatted(part: Part, letter: str) -> str | None:
    """A part in one of gdb's formats; None where it has no number, which is shown as always.

    Args:
        part: of a value.
        letter: `x` hexadecimal, `z` with zeros, `o` octal, `t` binary, `d` signed, `u` unsigned, `c` a character, `a` an
            address.
    """
    plain = part.object.plain_type_
    if not isinstance(plain, IntType | EnumType | PointerType) or not isinstance(part.value, Scalar):
        return None
    is_as_always = not letter or (isinstance(plain, PointerType) and letter in "xa")
    if is_as_always or part.value.value is None:
        return None
    bits = part.object.bit_size_ or 8 * plain.size
    return format_number(int(part.object), bits, letter)


def format_number(number: int, bits: int, letter: str) -> str:
    """A number of so many bits in one of gdb's formats, as `formatted` has them."""
    low = number & (1 << bits) - 1
    negative = low - (1 << bits) if low >> bits - 1 else low
    if letter == "d":
        return str(negative)
    if letter == "u":
        return str(low)
    if letter == "c":
        character = low & 0xFF
        shown = repr(chr(character)) if 32 <= character < 127 else f"'\\{character:03o}'"
        return f"{negative} {shown}"
    if letter == "z":
        return f"0x{low:0{-(-bits // 4)}x}"
    if letter == "o":
        return f"0{low:o}" if low else "0"
    if letter == "t":
        return f"{low:b}"
    return f"{low:#x}"


FORMATS = "xzotduca"
"""The letters of `formatted`."""

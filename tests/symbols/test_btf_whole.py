"""BTF that was found or given is looked at as a whole: what any question to it could stumble over is refused at once."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import MAX_NESTING, Btf
from tests.build.btf import BtfBuilder


def small() -> BtfBuilder:
    """A structure that points at itself, holds another in an array, and a function; none of it contains itself."""
    made = BtfBuilder()
    number = made.integer("int", 4)
    node = made.structure("list_head", 16, [("next", 3, 0), ("prev", 3, 64)])
    made.pointer(node)
    made.structure("task_struct", 64, [("tasks", node, 0), ("nodes", 5, 128), ("pid", 6, 384)])
    made.array(node, 2)
    made.add("pid_t", kinds.TYPEDEF, number)
    made.add("fork", kinds.FUNC, made.function(number, [("flags", number)]))
    return made


def test_good_types_are_taken() -> None:
    """Pointers may lead in a circle."""
    small().built().check_whole()


def _typedefs(made: BtfBuilder) -> None:
    made.add("a", kinds.TYPEDEF, 10)
    made.add("b", kinds.CONST, 9)


def _itself(made: BtfBuilder) -> None:
    made.structure("whole", 8, [("part", 9, 0)])


def _by_array(made: BtfBuilder) -> None:
    made.structure("whole", 8, [("parts", 10, 0)])
    made.array(9, 1)


def _deep(made: BtfBuilder) -> None:
    for number in range(MAX_NESTING + 1):
        made.structure("", 8, [("", 8 + number, 0)])


def _reference(made: BtfBuilder) -> None:
    made.pointer(10)


def _member(made: BtfBuilder) -> None:
    made.structure("odd", 8, [("x", 1 << 31, 0)])


def _parameter(made: BtfBuilder) -> None:
    made.function(1, [("x", 77)])


def _kind(made: BtfBuilder) -> None:
    made.add("new", 25, 0)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_typedefs, "contains itself"),
        (_itself, "contains itself"),
        (_by_array, "contains itself"),
        (_deep, "nested more than"),
        (_reference, "more types than the 9"),
        (_member, "more types than the 9"),
        (_parameter, "more types than the 9"),
        (_kind, "a kind not known"),
    ],
)
def test_bad_types_are_refused(damage: Callable[[BtfBuilder], None], what: str) -> None:
    """Circles, references to nothing, and kinds that nobody knows."""
    made = small()
    damage(made)
    with pytest.raises(UnsupportedFormat, match=what):
        made.built().check_whole()


def test_names_and_ends() -> None:
    """A name outside of the strings, strings without an end, a type that is cut off, no types at all."""
    data = small().encode()
    size = struct.unpack_from("<I", data, 12)[0]

    def changed(at: int, value: int) -> bytes:
        return data[:at] + struct.pack("<I", value) + data[at + 4 :]

    cases = {
        "outside of the strings": changed(24, 1 << 31),
        "begin and end": data[:-1] + b"x",
        "cut off": changed(12, size - 4),
        "without types": changed(12, 0),
        "damaged BTF header": changed(12, 1 << 31),
    }
    for what, case in cases.items():
        with pytest.raises(UnsupportedFormat, match=what):
            Btf(case, "test").check_whole()


def test_no_cut_gives_anything_but_an_error() -> None:
    """Whatever is missing of the section."""
    data = small().encode()
    for size in range(len(data)):
        with pytest.raises(UnsupportedFormat):
            Btf(data[:size], "test").check_whole()

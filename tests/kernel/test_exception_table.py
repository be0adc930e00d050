"""The table of faults that the kernel expects, as its entries are since 4.6, and as damage may leave it."""

from __future__ import annotations

import struct

import pytest

from orcdbg.kernel.exception_table import ExceptionTable
from tests.build.kernel import U32, Structure, made_linux
from tests.build.memory import SparseMemory

TABLE = 0xFFFFFFFF82000000
TEXT = 0xFFFFFFFF81000000
ENTRY: dict[str, Structure] = {"exception_table_entry": (12, {"insn": (0, U32), "fixup": (4, U32), "data": (8, U32)})}
PAIRS = [(TEXT + 0x10, TEXT + 0x20), (TEXT + 0x110, TEXT + 0x900), (TEXT + 0x930, TEXT + 0x950)]


def table(pairs: list[tuple[int, int]]) -> bytes:
    """Entries whose words count from where they are."""
    out = b""
    for insn, fixup in pairs:
        at = TABLE + len(out)
        out += struct.pack("<iiI", insn - at, fixup - at - 4, 7)
    return out


def test_faults_are_continued_where_the_table_says() -> None:
    """Whether from elsewhere: a function's own faults that are continued within it do not count."""
    memory, data = SparseMemory(), table(PAIRS)
    linux = made_linux(memory, ENTRY, {"__start___ex_table": (TABLE, 0), "__stop___ex_table": (TABLE + len(data), 0)})
    empty = ExceptionTable(linux, (SparseMemory(),))
    memory.put(TABLE, data)
    found = ExceptionTable(linux, (SparseMemory(), memory))
    assert list(zip(*(column.tolist() for column in found.entries), strict=True)) == PAIRS
    asked = [(TEXT, 0x100), (TEXT + 0x100, 0x100), (TEXT + 0x900, 0x100), (TEXT + 0x901, 0xFF)]
    assert [found.lands_from_outside(start, start + size) for start, size in asked] == [False, False, True, False]
    assert not empty.lands_from_outside(0, 2**64 - 1)


@pytest.mark.parametrize("end", [TABLE, TABLE - 12, TABLE + (1 << 23)])
@pytest.mark.parametrize("size", [12, 6])
def test_a_table_of_no_sound_bounds_is_taken_for_empty(end: int, size: int) -> None:
    """And one whose entries do not hold their members."""
    memory = SparseMemory()
    memory.put(TABLE, table(PAIRS))
    structures = {"exception_table_entry": (size, ENTRY["exception_table_entry"][1])}
    end = end if size == 12 else TABLE + 36
    linux = made_linux(memory, structures, {"__start___ex_table": (TABLE, 0), "__stop___ex_table": (end, 0)})
    assert len(ExceptionTable(linux, (memory,)).entries[0]) == 0

"""Where did a function save its caller's registers, by the call frame information (`.debug_frame`) of its file?

DWARF 5, section 6.4. The table has no index: entries are found by following their lengths once, which takes some tens of
milliseconds for a kernel; instructions are run for the one entry that is asked for.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.sizes import U64
from orcdbg.formats.call_frame_row import Place, Row
from orcdbg.formats.dwarf_cursor import Cursor

# System V psABI for x86-64, figure 3.36.
REGISTERS = (
    *("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip"),
)
MAX_ENTRIES, MAX_INSTRUCTIONS, MAX_REMEMBERED = 1 << 21, 1 << 16, 64
_CIE, _FDE = struct.Struct("<IIB"), struct.Struct("<IIQQ")
_CIE_ID, _WIDE = 0xFFFF_FFFF, 0xFFFF_FFF0
_BREG0, _DEREF = 0x70, 0x06


class _Cie(NamedTuple):
    code_align: int
    data_align: int
    start: int
    end: int


class CallFrames:
    """The entries of one `.debug_frame` section.

    Args:
        data: the section.
        name: for messages.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self._rows: dict[int, list[tuple[int, Row]]] = {}

    @functools.cached_property
    def _index(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """First addresses in rising order, ends, and offsets of the entries of functions."""
        data, at, last = self._data, 0, len(self._data) - _FDE.size
        starts, sizes, places = [], [], []
        for _ in range(MAX_ENTRIES):
            if at > last:
                break
            length, identity, start, size = _FDE.unpack_from(data, at)
            if length >= _WIDE:
                raise UnsupportedFormat(self._name, f"64-bit DWARF at offset {at:#x}")
            if identity != _CIE_ID and length >= 20 and start + size <= U64 and size:
                starts.append(start)
                sizes.append(size)
                places.append(at)
            at += length + 4
        firsts = np.array(starts, dtype=np.uint64)
        order = np.argsort(firsts, kind="stable")
        ends = firsts + np.array(sizes, dtype=np.uint64)
        return firsts[order], ends[order], np.array(places, dtype=np.int64)[order]

    def __len__(self) -> int:
        return len(self._index[0])

    def row(self, address: int) -> Row | None:
        """What holds at a link address; None where no entry covers it.

        Raises:
            UnsupportedFormat: the entry is damaged.
        """
        firsts, ends, places = self._index
        at = int(np.searchsorted(firsts, np.uint64(address & U64), side="right")) - 1
        if at < 0 or address >= int(ends[at]):
            return None
        place = int(places[at])
        if place not in self._rows:
            self._rows[place] = self._run(place, int(firsts[at]))
        return [row for start, row in self._rows[place] if start <= address][-1]

    def _cie(self, offset: int) -> _Cie:
        if offset + _CIE.size > len(self._data):
            raise UnsupportedFormat(self._name, f"no common entry at offset {offset:#x}")
        length, identity, version = _CIE.unpack_from(self._data, offset)
        end = offset + 4 + length
        cursor = Cursor(self._data, offset + _CIE.size, min(end, len(self._data)), self._name)
        if identity != _CIE_ID or cursor.fixed(1):
            raise UnsupportedFormat(self._name, f"the common entry at offset {offset:#x} is of a form not read")
        if version >= 4 and (cursor.fixed(1), cursor.fixed(1)) != (8, 0):
            raise UnsupportedFormat(self._name, f"the common entry at offset {offset:#x} is not for 64 bits")
        code, data = cursor.uleb(), cursor.sleb()
        if cursor.uleb() != 16:
            raise UnsupportedFormat(self._name, "the return address is not in the column of x86-64")
        return _Cie(code, data, cursor.at, cursor.end)

    def _run(self, place: int, start: int) -> list[tuple[int, Row]]:
        """All rows of an entry, with the address each holds from."""
        length, cie_at = struct.unpack_from("<II", self._data, place)
        cie = self._cie(cie_at)
        initial = _Machine(cie, start, Row())
        initial.run(Cursor(self._data, cie.start, cie.end, self._name))
        machine = _Machine(cie, start, initial.row)
        machine.run(Cursor(self._data, place + _FDE.size, min(place + 4 + length, len(self._data)), self._name))
        return [*machine.rows, (machine.address, machine.row)]


class _Machine:
    """Runs call frame instructions; `rows` are those that are complete."""

    def __init__(self, cie: _Cie, start: int, initial: Row) -> None:
        self._cie = cie
        self._initial = initial
        self.row = initial.copy()
        self.address = start
        self.rows: list[tuple[int, Row]] = []
        self._remembered: list[Row] = []

    def run(self, cursor: Cursor) -> None:
        """Runs all instructions of an entry."""
        for _ in range(MAX_INSTRUCTIONS):
            if cursor.at >= cursor.end:
                return
            opcode = cursor.fixed(1)
            high, low = opcode & 0xC0, opcode & 0x3F
            if high == 0x40:
                self._advance(low)
            elif high == 0x80:
                self._save(low, cursor.uleb() * self._cie.data_align)
            elif high == 0xC0:
                self._restore(low)
            else:
                self._extended(opcode, cursor)
        raise UnsupportedFormat(cursor.name, f"more than {MAX_INSTRUCTIONS} instructions in one entry")

    def _advance(self, delta: int) -> None:
        self.rows.append((self.address, self.row))
        self.row = self.row.copy()
        self.address += delta * self._cie.code_align

    def _save(self, register: int, offset: int) -> None:
        self._set(register, Place("cfa", offset))

    def _set(self, register: int, place: Place | None) -> None:
        if register < len(REGISTERS):
            self.row.saved[REGISTERS[register]] = place

    def _restore(self, register: int) -> None:
        name = REGISTERS[register] if register < len(REGISTERS) else ""
        self.row.saved.pop(name, None)
        if name in self._initial.saved:
            self.row.saved[name] = self._initial.saved[name]

    def _cfa(self, register: int, offset: int) -> None:
        known = register < len(REGISTERS)
        self.row.cfa = Place(REGISTERS[register], offset, False) if known else None

    def _extended(self, opcode: int, cursor: Cursor) -> None:  # noqa: C901  one branch an opcode, in the standard's order
        """Instructions whose operands follow."""
        align = self._cie.data_align
        old = self.row.cfa
        match opcode:
            case 0x00:  # nop
                pass
            case 0x02 | 0x03 | 0x04:  # advance_loc1, 2, 4
                self._advance(cursor.fixed(1 << opcode - 2))
            case 0x05:  # offset_extended
                self._save(cursor.uleb(), cursor.uleb() * align)
            case 0x06:  # restore_extended
                self._restore(cursor.uleb())
            case 0x07:  # undefined
                self._set(cursor.uleb(), None)
            case 0x08:  # same_value
                register = cursor.uleb()
                self.row.saved.pop(REGISTERS[register] if register < len(REGISTERS) else "", None)
            case 0x0A:  # remember_state
                if len(self._remembered) >= MAX_REMEMBERED:
                    raise UnsupportedFormat(cursor.name, "states remembered without end")
                self._remembered.append(self.row.copy())
            case 0x0B:  # restore_state
                if not self._remembered:
                    raise UnsupportedFormat(cursor.name, "a state restored that was not remembered")
                self.row = self._remembered.pop()
            case 0x0C:  # def_cfa
                self._cfa(cursor.uleb(), cursor.uleb())
            case 0x0D:  # def_cfa_register
                self._cfa(cursor.uleb(), old.offset if old else 0)
            case 0x0E:  # def_cfa_offset
                self.row.cfa = old._replace(offset=cursor.uleb()) if old else None
            case 0x0F:  # def_cfa_expression
                self.row.cfa = _expression(cursor)
            case 0x10:  # expression
                register, place = cursor.uleb(), _expression(cursor)
                self._set(register, place._replace(indirect=True) if place and not place.indirect else None)
            case 0x11:  # offset_extended_sf
                self._save(cursor.uleb(), cursor.sleb() * align)
            case 0x2E:  # GNU_args_size
                cursor.uleb()
            case _:
                raise UnsupportedFormat(cursor.name, f"call frame instruction {opcode:#x} is not known")


def _expression(cursor: Cursor) -> Place | None:
    """`register + offset`, or the word there; None for an expression of another form."""
    end = cursor.uleb() + cursor.at
    inner = Cursor(cursor.data, cursor.at, min(end, cursor.end), cursor.name)
    cursor.take(end - cursor.at)
    operation = inner.fixed(1)
    if not _BREG0 <= operation < _BREG0 + len(REGISTERS):
        return None
    register, offset = REGISTERS[operation - _BREG0], inner.sleb()
    if inner.at == inner.end:
        return Place(register, offset, False)
    return Place(register, offset, True) if inner.data[inner.at : inner.end] == bytes([_DEREF]) else None

"""What do the six bytes of an ORC entry mean, in each layout that kernels have used?

Mirrors arch/x86/include/asm/orc_types.h from 4.14 to 7.2. All layouts are decoded into one row type; what differs
(bit positions, type numbers, register numbers) is a table a layout.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

ENTRY = struct.Struct("<hhH")

_REGISTERS = (
    "undefined", "prev_sp", "dx", "di", "bp", "sp", "r10", "r13", "(bp)", "(sp)",
)  # fmt: skip
_REGISTERS_7_1 = (
    "undefined", "ax", "dx", "sp", "bp", "di", "r10", "r13", "prev_sp", "(sp)", "(bp)",
)  # fmt: skip
_TYPES_OLD = ("call", "regs", "regs_partial")
_TYPES = ("undefined", "end_of_stack", "call", "regs", "regs_partial")


class OrcRow(NamedTuple):
    """One decoded ORC entry; fields as in the kernel, register names as in its source (`(sp)` is SP_INDIRECT)."""

    sp_reg: str
    sp_offset: int
    bp_reg: str
    bp_offset: int
    type: str
    signal: bool


@dataclass(frozen=True, slots=True)
class OrcLayout:
    """Where the fields are: bit widths and positions in the entry's last 16 bits."""

    name: str
    registers: tuple[str, ...]
    types: tuple[str, ...]
    type_bits: int
    end_bit: int | None
    signal_bit: int | None

    def decode(self, raw: bytes) -> OrcRow:
        """The row in six bytes; numbers without a meaning become `undefined` rows, which stop a walk."""
        sp_offset, bp_offset, flags = ENTRY.unpack(raw)
        sp_reg, bp_reg = self._register(flags & 15), self._register(flags >> 4 & 15)
        number = flags >> 8 & (1 << self.type_bits) - 1
        kind = self.types[number] if number < len(self.types) else "undefined"
        if self.end_bit is not None and sp_reg == "undefined":
            kind = "end_of_stack" if flags >> self.end_bit & 1 else "undefined"
        derived = kind in ("regs", "regs_partial")
        signal = derived if self.signal_bit is None else bool(flags >> self.signal_bit & 1)
        return OrcRow(sp_reg, sp_offset, bp_reg, bp_offset, kind, signal)

    def encode(self, row: OrcRow) -> bytes:
        """The six bytes of a row; the inverse of `decode`."""
        flags = self.registers.index(row.sp_reg) | self.registers.index(row.bp_reg) << 4
        if row.type in self.types:
            flags |= self.types.index(row.type) << 8
        if self.end_bit is not None:
            flags |= (row.type == "end_of_stack") << self.end_bit
        if self.signal_bit is not None:
            flags |= row.signal << self.signal_bit
        return ENTRY.pack(row.sp_offset, row.bp_offset, flags)

    def _register(self, number: int) -> str:
        return self.registers[number] if number < len(self.registers) else "undefined"


# The names are the first release of each layout. Linux 6.3 gave `signal` its own bit (ffb1b4a41016), 6.4 split the type
# (fb799447ae29, 628a0b5c2a24), 7.1 renumbered the registers without moving a field.
LAYOUT_4_14 = OrcLayout("4.14", _REGISTERS, _TYPES_OLD, 2, 10, None)
LAYOUT_6_3 = OrcLayout("6.3", _REGISTERS, _TYPES_OLD, 2, 11, 10)
LAYOUT_6_4 = OrcLayout("6.4", _REGISTERS, _TYPES, 3, None, 11)
LAYOUT_7_1 = OrcLayout("7.1", _REGISTERS_7_1, _TYPES, 3, None, 11)
LAYOUTS = (LAYOUT_4_14, LAYOUT_6_3, LAYOUT_6_4, LAYOUT_7_1)

HASHES = {
    bytes.fromhex("db84aed4103b31dd51e017f8f79783ca985c2c51"): LAYOUT_6_3,
    bytes.fromhex("fe5d32bf581bd63b2ca9a5c65ba5a625eab3fe24"): LAYOUT_6_4,
    bytes.fromhex("137c36ad7627c4dd55932176bb0ecdbd5041fc82"): LAYOUT_7_1,
}

FUNCTION_ENTRY = OrcRow("sp", 8, "undefined", 0, "call", False)
"""The row of nearly every function's first instruction: its return address is on top of the stack."""

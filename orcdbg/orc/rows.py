"""What do the six bytes of an ORC entry mean, in each layout that kernels have used?

Mirrors arch/x86/include/asm/orc_types.h from 4.14 to 7.2. All layouts are decoded into one row type; what differs
(bit positions, type numbers, register numbers) is a table a layout.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ENTRY = struct.Struct("<hhH")


class RowType(enum.Enum):
    """What a row says of the code it covers (ORC_TYPE_*); the values are the JSON contract's words."""

    UNDEFINED = "undefined"
    END_OF_STACK = "end_of_stack"
    CALL = "call"
    REGS = "regs"
    REGS_PARTIAL = "regs_partial"


class OrcRegister(enum.Enum):
    """What a row counts from (ORC_REG_*); the values are the JSON contract's words, those in brackets the indirect ones."""

    UNDEFINED = "undefined"
    PREV_SP = "prev_sp"
    AX = "ax"
    DX = "dx"
    DI = "di"
    BP = "bp"
    SP = "sp"
    R10 = "r10"
    R13 = "r13"
    BP_INDIRECT = "(bp)"
    SP_INDIRECT = "(sp)"


# By number, in the order of the kernel's own header.
_REGISTERS = (
    OrcRegister.UNDEFINED,
    OrcRegister.PREV_SP,
    OrcRegister.DX,
    OrcRegister.DI,
    OrcRegister.BP,
    OrcRegister.SP,
    OrcRegister.R10,
    OrcRegister.R13,
    OrcRegister.BP_INDIRECT,
    OrcRegister.SP_INDIRECT,
)
_REGISTERS_7_1 = (
    OrcRegister.UNDEFINED,
    OrcRegister.AX,
    OrcRegister.DX,
    OrcRegister.SP,
    OrcRegister.BP,
    OrcRegister.DI,
    OrcRegister.R10,
    OrcRegister.R13,
    OrcRegister.PREV_SP,
    OrcRegister.SP_INDIRECT,
    OrcRegister.BP_INDIRECT,
)
_TYPES_OLD = (RowType.CALL, RowType.REGS, RowType.REGS_PARTIAL)
_TYPES = (RowType.UNDEFINED, RowType.END_OF_STACK, *_TYPES_OLD)


class OrcRow(NamedTuple):
    """One decoded ORC entry; fields as in the kernel."""

    sp_reg: OrcRegister
    sp_offset: int
    bp_reg: OrcRegister
    bp_offset: int
    type: RowType
    signal: bool


@dataclass(frozen=True, slots=True)
class OrcLayout:
    """Where the fields are: bit widths and positions in the entry's last 16 bits."""

    name: str
    registers: tuple[OrcRegister, ...]
    types: tuple[RowType, ...]
    type_bits: int
    end_bit: int | None
    signal_bit: int | None

    def decode(self, raw: bytes) -> OrcRow:
        """The row in six bytes; numbers without a meaning become `undefined` rows, which stop a walk."""
        sp_offset, bp_offset, flags = ENTRY.unpack(raw)
        sp_reg, bp_reg = self._register(flags & 15), self._register(flags >> 4 & 15)
        number = flags >> 8 & (1 << self.type_bits) - 1
        row_type = self.types[number] if number < len(self.types) else RowType.UNDEFINED
        if self.end_bit is not None and sp_reg is OrcRegister.UNDEFINED:
            row_type = RowType.END_OF_STACK if flags >> self.end_bit & 1 else RowType.UNDEFINED

        # Without a bit of its own, `signal` follows from the type: registers are saved where something interrupted.
        derived = row_type in (RowType.REGS, RowType.REGS_PARTIAL)
        signal = derived if self.signal_bit is None else bool(flags >> self.signal_bit & 1)
        return OrcRow(sp_reg, sp_offset, bp_reg, bp_offset, row_type, signal)

    def encode(self, row: OrcRow) -> bytes:
        """The six bytes of a row; the inverse of `decode`."""
        flags = self.registers.index(row.sp_reg) | self.registers.index(row.bp_reg) << 4
        if row.type in self.types:
            flags |= self.types.index(row.type) << 8
        if self.end_bit is not None:
            flags |= (row.type is RowType.END_OF_STACK) << self.end_bit
        if self.signal_bit is not None:
            flags |= row.signal << self.signal_bit
        return ENTRY.pack(row.sp_offset, row.bp_offset, flags)

    def are_terminators(self, flags: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
        """Which rows only say that a section ends, by their last 16 bits; "end of stack" says more."""
        if self.end_bit is not None:
            ends: npt.NDArray[np.bool_] = (flags & 15 == 0) & (flags >> self.end_bit & 1 == 0)
            return ends
        undefined: npt.NDArray[np.bool_] = flags >> 8 & (1 << self.type_bits) - 1 == self.types.index(RowType.UNDEFINED)
        return undefined

    def _register(self, number: int) -> OrcRegister:
        return self.registers[number] if number < len(self.registers) else OrcRegister.UNDEFINED


# The names are the first release of each layout. 4.18 gave the name `end` to a bit that was zero in all rows (d31a580266ee),
# 6.3 gave `signal` a bit of its own (ffb1b4a41016), 6.4 split the type (fb799447ae29, 628a0b5c2a24), and 7.1 renumbered the
# registers without moving a field.
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

FUNCTION_ENTRY = OrcRow(OrcRegister.SP, 8, OrcRegister.UNDEFINED, 0, RowType.CALL, False)
"""The row of nearly every function's first instruction: its return address is on top of the stack."""

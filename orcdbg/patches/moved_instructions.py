"""What becomes of instructions that are moved to another place, and of the NOPs behind them?

Mirrors apply_relocation() and optimize_nops() in arch/x86/kernel/alternative.c. Thousands of sites share a few hundred
contents, and nothing here depends on addresses, so results are kept by content.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from orcdbg.base.reading import signed
from orcdbg.patches.state.nops import NopTable
from orcdbg.x86.instructions import Instruction, Operand, decode_one, wide_operands

_CACHED = 8192
_LONGEST = 15
# Opcodes without prefix whose length needs no decoder: the bulk of what stands at patch sites.
_SIZES = {0xE8: 5, 0xE9: 5, 0xEB: 2, 0x90: 1, 0xCC: 1, 0xC3: 1, **dict.fromkeys(range(0x70, 0x80), 2)}
_SHORT_JUMP, _LONG_JUMP = 0xEB, 0xE9


@functools.lru_cache(maxsize=_CACHED)
def _decoded(raw: bytes) -> Instruction | None:
    return decode_one(raw, 0)


@functools.lru_cache(maxsize=_CACHED)
def _operands(raw: bytes) -> tuple[Operand, ...]:
    return tuple(wide_operands(raw, 0))


def _size_at(data: bytes, offset: int) -> int | None:
    """Length of the instruction at an offset; None where the bytes are none."""
    size = _SIZES.get(data[offset])
    if size is not None:
        return size if offset + size <= len(data) else None
    found = _decoded(data[offset : offset + _LONGEST])
    return None if found is None else found.size


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each instruction, up to the first that cannot be decoded."""
    offset = 0
    while offset < len(data):
        size = _size_at(data, offset)
        if size is None:
            return
        yield offset, data[offset : offset + size]
        offset += size


def _branch_width(raw: bytes) -> int:
    """Bytes of a direct branch's distance, 0 for any other instruction (loops, which are never moved, included)."""
    first = raw[0]
    if first == _SHORT_JUMP or 0x70 <= first < 0x80:
        return 1
    if first in (0xE8, 0xE9) or (first == 0x0F and 0x80 <= raw[1] < 0x90):
        return 4
    body = raw.lstrip(b"\x2e\x3e\x66\xf2")
    return 4 if body != raw and body and body[0] in (0xE8, 0xE9) else 0


def moved(data: bytes, shift: int, length: int) -> bytes:
    """A replacement as it reads at its site: branches and RIP-relative operands that leave it are corrected (since 6.3).

    Args:
        data: the replacement, filled up to the site's size.
        shift: the replacement's address minus the site's.
        length: bytes of the replacement alone.
    """
    out = bytearray(data)
    for offset, raw in _pieces(data):
        width = _branch_width(raw)
        if width:
            _move_branch(out, raw, offset, shift, length, width)
        elif len(raw) > 5:  # a RIP-relative operand takes four bytes behind an opcode and its ModRM byte
            _move_operands(out, raw, offset, shift, length)
    return bytes(out)


def _move_operands(out: bytearray, raw: bytes, offset: int, shift: int, length: int) -> None:
    for operand in _operands(raw):
        value = signed(int.from_bytes(raw[operand.offset : operand.offset + 4], "little"), 32)
        if operand.relative and not 0 <= offset + len(raw) + value <= length:
            at = offset + operand.offset
            out[at : at + 4] = (value + shift & 0xFFFF_FFFF).to_bytes(4, "little")


def _move_branch(out: bytearray, raw: bytes, offset: int, shift: int, length: int, width: int) -> None:
    """Corrects one direct branch; a long jump that became short is rewritten as a short one."""
    after = offset + len(raw)
    value = signed(int.from_bytes(raw[-width:], "little"), 8 * width)
    if not 0 <= after + value <= length:
        out[after - width : after] = (value + shift & (1 << 8 * width) - 1).to_bytes(width, "little")
    if raw[0] == _LONG_JUMP:
        near = value + shift + 3
        if -128 <= near <= 127:
            out[offset:after] = bytes((_SHORT_JUMP, near & 0xFF, 0xCC, 0xCC, 0xCC))


@functools.lru_cache(maxsize=_CACHED)
def optimise_old_nops(data: bytes, nops: NopTable) -> bytes:
    """Runs of single-byte NOPs become long ones (optimize_nops before 6.3)."""
    out, offset = bytearray(data), 0
    while offset < len(data):
        if data[offset] == 0x90:
            end = offset
            while end < len(data) and data[end] == 0x90:
                end += 1
            if end - offset > 1:
                out[offset:end] = nops.fill(end - offset)
            offset = end
            continue
        size = _size_at(data, offset)
        if size is None:
            break
        offset += size
    return bytes(out)


def _is_nop(raw: bytes) -> bool:
    """What the kernel's insn_is_nop() of 6.12 calls a NOP."""
    body = raw.lstrip(b"\x66\x2e\x3e\x26\x64\x65\x36\xf2\xf3")
    if body == b"\x90":
        return not raw.startswith(b"\xf3")
    return body.startswith(b"\x0f\x1f")


@functools.lru_cache(maxsize=_CACHED)
def optimise_new_nops(data: bytes, nops: NopTable) -> bytes:
    """Adjacent NOPs become one, or a jump over them (optimize_nops since 6.4)."""
    out, start = bytearray(data), -1
    end = 0
    for offset, raw in _pieces(data):
        end = offset + len(raw)
        if _is_nop(raw):
            if start < 0:
                if end == len(data):
                    return bytes(out)  # a single NOP at the very end stays what it is
                start = offset
        elif start >= 0:
            out[start:offset] = _one_nop(offset - start, nops)
            start = -1
    if start >= 0:
        out[start:end] = _one_nop(end - start, nops)
    return bytes(out)


def _one_nop(size: int, nops: NopTable) -> bytes:
    if size <= len(nops.by_length):
        return nops.by_length[size - 1]
    if size < 128:
        return bytes((_SHORT_JUMP, size - 2)) + b"\xcc" * (size - 2)
    return bytes((_LONG_JUMP,)) + (size - 5).to_bytes(4, "little") + b"\xcc" * (size - 5)

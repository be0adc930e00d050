"""Memory images as acquisition tools and hypervisors write them, made by code: LiME, AVML, VMware."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from orcdbg.formats.core_notes import PR_REG_NAMES


def lime(ranges: Mapping[int, bytes]) -> bytes:
    """A LiME file: contents by physical address."""
    out = b""
    for start, data in ranges.items():
        out += struct.pack("<4sIQQQ", b"EMiL", 1, start, start + len(data) - 1, 0) + data
    return out


def snappy_stream(data: bytes) -> bytes:
    """The snappy framing format, a chunk in three of it plain; checksums are not computed, for nobody reads them."""
    import cramjam

    out = b"\xff\x06\0\0sNaPpY"
    for number, at in enumerate(range(0, len(data), 1 << 16)):
        piece = data[at : at + (1 << 16)]
        body = piece if number % 3 == 2 else bytes(cramjam.snappy.compress_raw(piece))
        out += bytes([int(number % 3 == 2)]) + (len(body) + 4).to_bytes(3, "little") + bytes(4) + body
    return out


def avml(ranges: Mapping[int, bytes]) -> bytes:
    """An AVML file of version 2."""
    out = b""
    for start, data in ranges.items():
        stream = snappy_stream(data)
        out += struct.pack("<4sIQQQ", b"AVML", 2, start, start + len(data) - 1, 0) + stream
        out += len(stream).to_bytes(8, "little")
    return out


def _value(name: str, indices: Sequence[int], value: int, size: int = 4) -> bytes:
    head = len(name) << 8 | len(indices) << 6 | size
    return (
        struct.pack("<H", head)
        + name.encode()
        + struct.pack(f"<{len(indices)}I", *indices)
        + value.to_bytes(size, "little")
    )


def _block(name: str, data: bytes, padding: int, packed: bool = False, index: int | None = None) -> bytes:
    indices = b"" if index is None else struct.pack("<I", index)
    tag = len(name) << 8 | (index is not None) << 6 | (0x3E if packed else 0x3F)
    head = struct.pack("<H", tag) + name.encode() + indices
    return head + struct.pack("<QQH", len(data), len(data), padding) + bytes(padding) + data


_SEGMENTS = {"cs": 1, "ss": 2}
_GENERAL = ("rax", "rcx", "rdx", "rbx", "rbp", "rsp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


def _cpu_values(cpu: int, registers: Mapping[str, int]) -> bytes:
    """A value for each register; `cr3` and the like are of the CR64, `idt` of the IDTR, selectors of `S`."""
    out = b""
    for name, number in registers.items():
        if name.startswith("cr"):
            out += _value("CR64", (cpu, int(name[2:])), number, 8)
        elif name == "idt":
            halves = (0xFFF, number & 0xFFFF_FFFF, number >> 32)
            out += b"".join(_value("IDTR", (cpu, index), half) for index, half in enumerate(halves))
        elif name in _SEGMENTS:
            out += _value("S", (cpu, _SEGMENTS[name]), number)
        elif name == "gs_base":
            out += _value("S.base64", (cpu, 5), number, 8)
        else:
            out += _value("eflags" if name == "rflags" else name, (cpu,), number, 8)
    return out


def _cpu_blocks(cpu: int, registers: Mapping[str, int]) -> bytes:
    """Blocks of the general registers, the control registers and the IDT's; what is in none of them as a value."""
    controls = [registers.get(f"cr{number}", 0) for number in range(9)]
    others = {
        name: value for name, value in registers.items() if name not in _GENERAL and name != "idt" and name[:2] != "cr"
    }
    return (
        _block("gpregs", struct.pack("<16Q", *(registers.get(name, 0) for name in _GENERAL)), 3, index=cpu)
        + _block("CR64", struct.pack("<9Q", *controls), 0, index=cpu)
        + _block("IDTR", struct.pack("<HQ", 0xFFF, registers.get("idt", 0)), 5, index=cpu)
        + _cpu_values(cpu, others)
    )


def vmss(
    memory: bytes | None,
    regions: Sequence[tuple[int, int, int]] = (),
    registers: Sequence[Mapping[str, int]] = (),
    packed: bool = False,
    in_blocks: bool = False,
) -> bytes:
    """A .vmss: memory in it or not, regions (page of the file, page frame, pages), registers of CPUs as values or in blocks."""
    memory_group = _value("align_mask", (), 0xFFFF) + _value("regionsCount", (), len(regions))
    for index, region in enumerate(regions):
        for name, number in zip(("regionPageNum", "regionPPN", "regionSize"), region, strict=True):
            memory_group += _value(name, (index,), number)
    if memory is not None:
        memory_group += _block("Memory", memory, 13, packed)
    cpu_group = _value("cpu:numVCPUs", (), len(registers))
    for cpu, values in enumerate(registers):
        cpu_group += (_cpu_blocks if in_blocks else _cpu_values)(cpu, values)
    groups = {"Checkpoint": b"", "memory": memory_group + b"\0\0", "cpu": cpu_group + b"\0\0"}
    at = 12 + 80 * len(groups)
    table, body = b"", b""
    for name, data in groups.items():
        table += struct.pack("<64sQQ", name.encode(), at + len(body), len(data))
        body += data
    return struct.pack("<III", 0xBED2BED2, 8, len(groups)) + table + body


_GUEST = {
    1: (13, 45),
    3: (14, 45),
    4: (14, 42),
    5: (14, 42),
    6: (15, 42),
    7: (8, 42),
}


def debug_guest(
    version: int,
    pages: int,
    registers: Sequence[Mapping[str, int]],
    holes: Sequence[tuple[int, int]] = (),
) -> bytes:
    """A debug.guest of a version: pages of memory, its holes (page frame, pages), registers of CPUs."""
    before, gap = _GUEST[version]
    last = (pages + sum(size for _, size in holes)) * 4096 - 1
    of_holes = [number for hole in (*holes, (0, 0), (0, 0))[:2] for number in hole]
    old = version == 1
    memory = struct.pack("<QIII4I" if old else "<QQII4Q", last, pages, 0, len(holes), *of_holes)
    out = struct.pack("<II", version, len(registers)) + bytes(before) + memory
    if old:
        out += bytes(8 * len(holes) + 4)
    if version == 7:
        out += struct.pack("<I", 1) + bytes(7)
    for values in registers:
        out += struct.pack("<IQQQ", 0x8005_0033, *(values.get(name, 0) for name in ("cr2", "cr3", "cr4")))
        out += bytes(80) + values.get("idt", 0).to_bytes(8, "little") + b"\xaa" * gap
        out += struct.pack("<27Q", *(values.get(name, 0) for name in PR_REG_NAMES)) + bytes(17) + bytes(4096)
    return out

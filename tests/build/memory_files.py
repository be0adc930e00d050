"""Memory images as acquisition tools and hypervisors write them, made by code: LiME, AVML, VMware."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence


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


def _block(name: str, data: bytes, padding: int, packed: bool = False) -> bytes:
    head = struct.pack("<H", len(name) << 8 | (0x3E if packed else 0x3F)) + name.encode()
    return head + struct.pack("<QQH", len(data), len(data), padding) + bytes(padding) + data


def vmss(
    memory: bytes | None,
    regions: Sequence[tuple[int, int, int]] = (),
    registers: Sequence[Mapping[str, int]] = (),
    packed: bool = False,
) -> bytes:
    """A .vmss: memory in it or not, regions (page of the file, page frame, pages), registers of CPUs."""
    memory_group = _value("align_mask", (), 0xFFFF) + _value("regionsCount", (), len(regions))
    for index, region in enumerate(regions):
        for name, number in zip(("regionPageNum", "regionPPN", "regionSize"), region, strict=True):
            memory_group += _value(name, (index,), number)
    if memory is not None:
        memory_group += _block("Memory", memory, 13, packed)
    cpu_group = _value("cpu:numVCPUs", (), len(registers))
    for cpu, values in enumerate(registers):
        for name, number in values.items():
            if name.startswith("cr"):
                cpu_group += _value("CR64", (cpu, int(name[2:])), number, 8)
            else:
                cpu_group += _value(name, (cpu,), number, 8)
    groups = {"Checkpoint": b"", "memory": memory_group + b"\0\0", "cpu": cpu_group + b"\0\0"}
    at = 12 + 80 * len(groups)
    table, body = b"", b""
    for name, data in groups.items():
        table += struct.pack("<64sQQ", name.encode(), at + len(body), len(data))
        body += data
    return struct.pack("<III", 0xBED2BED2, 8, len(groups)) + table + body

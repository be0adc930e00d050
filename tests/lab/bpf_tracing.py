"""How does a guest come to run BPF programs at the entry and the return of kernel functions (fentry and fexit)?"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from orcdbg.image.vmlinux import Image, open_source
from tests.lab.program import BASE, HEADERS, Call, encode_calls, executable

NAME = "s_bpf_tracing"
_LOAD, _OPEN_RAW_TRACEPOINT = 5, 17
_TRACING, _FENTRY, _FEXIT = 26, 24, 25
# r0 = 0; exit
_PROGRAM = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
_ATTRIBUTES, _FIRST_DESCRIPTOR = 128, 3

# What follows a `struct btf_type` of each kind (include/uapi/linux/btf.h): bytes in all, and for each of its members.
_BTF_HEADER, _BTF_TYPE = "<HBBIIIII", "<III"
_FUNC = 12
_EXTRA = {
    1: (4, 0),
    3: (12, 0),
    4: (0, 12),
    5: (0, 12),
    6: (0, 8),
    13: (0, 8),
    14: (4, 0),
    15: (0, 12),
    17: (4, 0),
    19: (0, 12),
}


def function_ids(vmlinux: Path, names: Sequence[str]) -> list[int]:
    """The BTF ids of these functions, without those that the kernel's BTF does not have."""
    data = Image(open_source(str(vmlinux))).section_data(".BTF")
    _, _, _, size, type_at, type_size, string_at, _ = struct.unpack_from(_BTF_HEADER, data)
    wanted, strings = {name.encode() for name in names}, size + string_at
    at, end, number = size + type_at, size + type_at + type_size, 0
    found: list[int] = []
    while at < end:
        number += 1
        name, info, _ = struct.unpack_from(_BTF_TYPE, data, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        if kind == _FUNC and data[strings + name : data.index(0, strings + name)] in wanted:
            found.append(number)
        whole, each = _EXTRA.get(kind, (0, 0))
        at += struct.calcsize(_BTF_TYPE) + whole + count * each
    return found


def tracing_program(vmlinux: Path, names: Sequence[str]) -> bytes:
    """A static executable: a program at the entry and one at the return of each function, for as long as it sleeps."""
    ids = function_ids(vmlinux, names)
    length = len(_code(ids, 0))
    at = BASE + HEADERS + length
    return executable(_code(ids, at) + b"".join(_data(ids, at)))


def _pieces(ids: Sequence[int]) -> list[tuple[int, int]]:
    return [(function, kind) for function in ids for kind in (_FENTRY, _FEXIT)]


def _data(ids: Sequence[int], at: int) -> Iterator[bytes]:
    """The program, its licence, and for each program the attributes of both calls."""
    yield _PROGRAM + b"GPL".ljust(8, b"\0")
    for number, (function, kind) in enumerate(_pieces(ids)):
        load = struct.pack("<IIQQ", _TRACING, len(_PROGRAM) // 8, at, at + len(_PROGRAM)).ljust(68, b"\0")
        load = (load + struct.pack("<I", kind)).ljust(108, b"\0") + struct.pack("<I", function)
        yield load.ljust(_ATTRIBUTES, b"\0")
        yield struct.pack("<QQ", 0, _FIRST_DESCRIPTOR + 2 * number)


def _code(ids: Sequence[int], at: int) -> bytes:
    attributes, size = at + len(_PROGRAM) + 8, _ATTRIBUTES + 16
    calls: list[Call] = []
    for number in range(len(_pieces(ids))):
        calls.append((321, _LOAD, attributes + size * number, _ATTRIBUTES))
        calls.append((321, _OPEN_RAW_TRACEPOINT, attributes + size * number + _ATTRIBUTES, 16))
    return encode_calls(calls)

"""How a guest gets a task that sleeps in one chosen system call: tiny static ELF programs, written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

BASE = 0x400000
HEADERS = 64 + 56
# Stands for the result of the previous call, as the first argument only.
PREVIOUS: Final = -(1 << 40)

Call = Sequence[int]

_ARGUMENTS = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")  # mov imm64 to rdi .. r9
SCRATCH: Final = BASE + 0x1000  # a page of zeros behind the text
_PAUSE: Call = (34,)

# Numbers are those of x86-64 (kernel: arch/x86/entry/syscalls/syscall_64.tbl).
SLEEPERS: dict[str, list[Call]] = {
    "s_pause": [_PAUSE],
    "s_futex": [(202, SCRATCH, 0, 0, 0)],
    "s_poll": [(7, 0, 0, -1)],
    "s_select": [(23, 0, 0, 0, 0, 0)],
    "s_epoll": [(291, 0), (232, PREVIOUS, SCRATCH, 1, -1)],
    "s_eventfd": [(290, 0, 0), (0, PREVIOUS, SCRATCH, 8)],
    "s_signalfd": [(282, -1, SCRATCH, 8), (0, PREVIOUS, SCRATCH, 128)],
    "s_sigwait": [(128, SCRATCH, 0, 0, 8)],
    "s_sigsuspend": [(130, SCRATCH, 8)],
    "s_vfork": [(58,), _PAUSE],
    "s_msgrcv": [(68, 0, 0o600), (70, PREVIOUS, SCRATCH, 8, 0, 0)],
}


def encode_calls(calls: Sequence[Call], ends: bool = True) -> bytes:
    """Return machine code that makes each call (number, arguments...) in turn, then pauses for ever unless told not to."""
    code = b"".join(map(_encode_call, calls))
    if not ends:
        return code
    loop = _encode_call(_PAUSE)
    return code + loop + b"\xeb" + struct.pack("b", -len(loop) - 2)


def _encode_call(call: Call) -> bytes:
    number, *arguments = call
    code = b""
    for opcode, value in zip(_ARGUMENTS, arguments, strict=False):
        code += b"\x48\x89\xc7" if value == PREVIOUS else opcode + struct.pack("<Q", value & (1 << 64) - 1)
    return code + b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"


def build_program(calls: Sequence[Call]) -> bytes:
    """Return a static x86-64 executable of `calls`."""
    return executable(encode_calls(calls))


def executable(code: bytes) -> bytes:
    """Return a static x86-64 executable of machine code, with one writable page of zeros at `SCRATCH`."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, HEADERS + len(code), 0x2000, 0x1000)
    return header + segment + code


def executable_32(code: bytes) -> bytes:
    """Return a static 32-bit executable of machine code."""
    headers = 52 + 32
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, BASE + headers, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, BASE, BASE, headers + len(code), headers + len(code), 7, 0x1000)
    return header + segment + code


def sleeper_programs() -> dict[str, bytes]:
    """Return every program of `SLEEPERS` by name."""
    return {name: build_program(calls) for name, calls in SLEEPERS.items()}

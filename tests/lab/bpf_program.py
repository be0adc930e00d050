"""How does a guest come to run a BPF program again and again: a filter on a socket that its owner keeps writing to?"""

from __future__ import annotations

import struct

from tests.lab.program import BASE, HEADERS, SCRATCH, Call, encode_calls, executable

NAME = "s_bpf"
_SOCKET_FILTER, _KTIME = 1, 5
# call ktime_get_ns; r6 = r0; call ktime_get_ns; r0 = 65535 (keep the packet); exit
_FILTER = b"".join(
    struct.pack("<BBhi", *insn)
    for insn in ((0x85, 0, 0, _KTIME), (0xBF, 0x06, 0, 0), (0x85, 0, 0, _KTIME), (0xB7, 0, 0, 0xFFFF), (0x95, 0, 0, 0))
)
_LOADED, _READER, _WRITER = 3, 4, 5  # the file descriptors, in the order in which they are made
_SLEEP_NANOSECONDS = 2_000_000


def filter_program() -> bytes:
    """A static executable: loads the filter, puts it on one end of a socket pair, and writes to the other for ever."""
    length = len(_code(0))
    return executable(_code(BASE + HEADERS + length) + _data(BASE + HEADERS + length))


def _data(at: int) -> bytes:
    """The filter, its licence, its descriptor, a pause, and the attributes of bpf(), which point at the first two."""
    head = _FILTER + b"GPL".ljust(8, b"\0") + struct.pack("<QQQ", _LOADED, 0, _SLEEP_NANOSECONDS)
    attributes = struct.pack("<IIQQ", _SOCKET_FILTER, len(_FILTER) // 8, at, at + len(_FILTER))
    return head + attributes.ljust(96, b"\0")


def _code(at: int) -> bytes:
    descriptor, pause = at + len(_FILTER) + 8, at + len(_FILTER) + 16
    attributes = pause + 16
    setup: list[Call] = [
        (321, 5, attributes, 96),  # bpf(BPF_PROG_LOAD)
        (53, 1, 2, 0, SCRATCH),  # socketpair(AF_UNIX, SOCK_DGRAM)
        (54, _READER, 1, 50, descriptor, 4),  # setsockopt(SOL_SOCKET, SO_ATTACH_BPF)
    ]
    work: list[Call] = [(1, _WRITER, SCRATCH, 8), (0, _READER, SCRATCH, 8), (35, pause, 0)]
    loop = encode_calls(work, ends=False)
    return encode_calls(setup, ends=False) + loop + b"\xe9" + struct.pack("<i", -len(loop) - 5)

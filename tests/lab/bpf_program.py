"""How does a guest come to run BPF programs again and again: filters on sockets that their owner keeps writing to?"""

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
# A classic one: A = length of the headers, which CALLED finds out; return 65535.
_CLASSIC = b"".join(struct.pack("<HBBI", *insn) for insn in ((0x20, 0, 0, -4096 + 52 & 0xFFFFFFFF), (6, 0, 0, 0xFFFF)))
CALLED = "bpf_skb_get_pay_offset"
_LOADED, _READER, _WRITER, _CLASSIC_READER, _CLASSIC_WRITER = (
    3,
    4,
    5,
    6,
    7,
)  # the file descriptors, in the order in which they are made
_SLEEP_NANOSECONDS = 2_000_000
_ATTRIBUTES = 96  # bytes


def filter_program() -> bytes:
    """A static executable: puts each filter on one end of a socket pair, and writes to the others for ever."""
    length = len(_code(0))
    return executable(_code(BASE + HEADERS + length) + _data(BASE + HEADERS + length))


def _data(at: int) -> bytes:
    """The filter, its licence, its descriptor, a pause, the attributes of bpf(), which point at the first two, the classic."""
    head = _FILTER + b"GPL".ljust(8, b"\0") + struct.pack("<QQQ", _LOADED, 0, _SLEEP_NANOSECONDS)
    attributes = struct.pack("<IIQQ", _SOCKET_FILTER, len(_FILTER) // 8, at, at + len(_FILTER))
    classic = at + len(head) + _ATTRIBUTES + 16
    return head + attributes.ljust(_ATTRIBUTES, b"\0") + struct.pack("<QQ", len(_CLASSIC) // 8, classic) + _CLASSIC


def _code(at: int) -> bytes:
    descriptor, pause = at + len(_FILTER) + 8, at + len(_FILTER) + 16
    attributes = pause + 16
    setup: list[Call] = [
        (321, 5, attributes, _ATTRIBUTES),  # bpf(BPF_PROG_LOAD)
        (53, 1, 2, 0, SCRATCH),  # socketpair(AF_UNIX, SOCK_DGRAM)
        (54, _READER, 1, 50, descriptor, 4),  # setsockopt(SOL_SOCKET, SO_ATTACH_BPF)
        (53, 1, 2, 0, SCRATCH),
        (54, _CLASSIC_READER, 1, 26, attributes + _ATTRIBUTES, 16),  # SO_ATTACH_FILTER
    ]
    work: list[Call] = [(1, _WRITER, SCRATCH, 8), (0, _READER, SCRATCH, 8)]
    work += [(1, _CLASSIC_WRITER, SCRATCH, 8), (0, _CLASSIC_READER, SCRATCH, 8), (35, pause, 0)]
    loop = encode_calls(work, ends=False)
    return encode_calls(setup, ends=False) + loop + b"\xe9" + struct.pack("<i", -len(loop) - 5)

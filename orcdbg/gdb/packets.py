"""How are packets of the GDB remote protocol framed, and how is a peer survived that frames them wrongly?

`$text#hh`, hh the sum of the text's bytes; `+` and `-` say whether one arrived whole; `%` begins a notification, a lone
0x03 is an interrupt. Both sides are here, the client's and the server's, and each bounds what it takes.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from orcdbg.base.errors import RemoteError

MAX_ENCODED = 1 << 17
MAX_DECODED = 1 << 20
MAX_NOISE = 1 << 16  # bytes between packets that are none
_ESCAPED = re.compile(rb"[#$}*]")
_HEX = re.compile(rb"[0-9a-fA-F]*")


class Kind(Enum):
    """What arrived."""

    PACKET = "packet"
    DAMAGED = "damaged packet"
    NOTIFICATION = "notification"
    ACK = "+"
    NACK = "-"
    INTERRUPT = "interrupt"


class Arrived(NamedTuple):
    """One thing of the stream; `payload` is decoded, and empty but for packets and notifications."""

    kind: Kind
    payload: bytes = b""


def encode_packet(payload: bytes) -> bytes:
    """The packet of a payload, its special bytes escaped."""
    body = _ESCAPED.sub(lambda found: bytes((0x7D, found[0][0] ^ 0x20)), payload)
    return b"$%s#%02x" % (body, sum(body) & 0xFF)


def decode_body(body: bytes) -> bytes:
    """What stands in a packet: escapes resolved and repeated bytes written out.

    Raises:
        RemoteError: an escape or a repetition without its other half, or more than any packet may hold.
    """
    if b"}" not in body and b"*" not in body:
        return body
    out = bytearray()
    index = 0
    while index < len(body):
        byte = body[index]
        index += 1
        if byte not in b"}*":
            out.append(byte)
            continue
        if index == len(body) or (byte == 0x2A and (not out or body[index] < 29)):
            raise RemoteError("a packet with half an escape")
        out += bytes((body[index] ^ 0x20,)) if byte == 0x7D else out[-1:] * (body[index] - 29)
        index += 1
        if len(out) > MAX_DECODED:
            raise RemoteError(f"a packet of more than {MAX_DECODED} bytes")
    return bytes(out)


class PacketReader:
    """Takes a stream apart, however it is cut into pieces."""

    def __init__(self) -> None:
        # Bytes are taken from its front, and added behind, without a copy of the others.
        self._buffer = bytearray()
        self._noise = 0
        self._searched = 0  # so many of its bytes have no packet's end among them

    def feed(self, data: bytes) -> None:
        """Adds bytes that arrived."""
        self._buffer += data

    def take(self) -> Arrived | None:
        """The next thing that arrived whole, None until more bytes come.

        Raises:
            RemoteError: the stream is not the protocol: a packet without end, or too much between packets.
        """
        while self._buffer:
            first = bytes(self._buffer[:1])
            if first in b"$%":
                return self._packet(first)
            del self._buffer[:1]
            if first in b"+-\x03":
                return Arrived(Kind(first.decode()) if first != b"\x03" else Kind.INTERRUPT)
            self._noise += 1
            if self._noise > MAX_NOISE:
                raise RemoteError("the peer does not speak the GDB remote protocol")
        return None

    def _packet(self, first: bytes) -> Arrived | None:
        end = self._buffer.find(b"#", self._searched)
        if end < 0 or end + 3 > len(self._buffer):
            if len(self._buffer) > MAX_ENCODED:
                raise RemoteError(f"a packet of more than {MAX_ENCODED} bytes")
            self._searched = len(self._buffer) if end < 0 else end
            return None
        body, checksum = bytes(self._buffer[1:end]), bytes(self._buffer[end + 1 : end + 3])
        del self._buffer[: end + 3]
        self._searched = 0
        if not _HEX.fullmatch(checksum) or int(checksum, 16) != sum(body) & 0xFF:
            return Arrived(Kind.DAMAGED)
        return Arrived(Kind.PACKET if first == b"$" else Kind.NOTIFICATION, decode_body(body))


def from_hex(text: bytes, what: str) -> bytes:
    """The bytes that hexadecimal digits stand for; RemoteError where they are none, naming `what` they answer."""
    if len(text) % 2 or not _HEX.fullmatch(text):
        raise RemoteError(f"{what}: not hexadecimal: {text[:40]!r}")
    return bytes.fromhex(text.decode("ascii"))


def number(text: bytes, what: str) -> int:
    """A hexadecimal number of at most 64 bits; RemoteError where it is none."""
    if not 0 < len(text) <= 16 or not _HEX.fullmatch(text):
        raise RemoteError(f"{what}: not a number: {text[:40]!r}")
    return int(text, 16)

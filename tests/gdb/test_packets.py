"""Framing of the GDB remote protocol: what is sent arrives, however it is cut; any stream ends in things or an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import RemoteError
from orcdbg.gdb import packets
from orcdbg.gdb.packets import Arrived, Kind, PacketReader, decode_body, encode_packet, from_hex, number


def taken(reader: PacketReader) -> list[Arrived]:
    """All that is there."""
    return list(iter(reader.take, None))


def test_a_packet_is_framed_as_the_protocol_says() -> None:
    """The checksum counts the escaped text."""
    assert encode_packet(b"g") == b"$g#67"
    assert encode_packet(b"}") == b"$}]#da"


@given(st.binary(max_size=300))
def test_what_is_encoded_is_decoded(payload: bytes) -> None:
    """decode(encode(x)) == x."""
    reader = PacketReader()
    reader.feed(encode_packet(payload))
    assert taken(reader) == [Arrived(Kind.PACKET, payload)]


@given(st.lists(st.sampled_from([b"+", b"-", b"\x03", b"$ab#c3", b"$ab#00", b"%n#6e"]), max_size=8), st.integers(1, 5))
def test_a_stream_says_the_same_however_it_is_cut(parts: list[bytes], size: int) -> None:
    """By pieces of any length, the same things arrive in the same order."""
    kinds = {
        b"+": Kind.ACK, b"-": Kind.NACK, b"\x03": Kind.INTERRUPT,
        b"$ab#c3": Kind.PACKET, b"$ab#00": Kind.DAMAGED, b"%n#6e": Kind.NOTIFICATION,
    }  # fmt: skip
    reader, stream, found = PacketReader(), b"".join(parts), list[Arrived]()
    for at in range(0, len(stream), size):
        reader.feed(stream[at : at + size])
        found += taken(reader)
    assert [one.kind for one in found] == [kinds[part] for part in parts]


@given(st.binary(max_size=400))
def test_any_bytes_are_things_or_an_error(data: bytes) -> None:
    """Nothing else comes out, and nothing is left to loop over."""
    reader = PacketReader()
    reader.feed(data)
    try:
        assert len(taken(reader)) <= len(data)
    except RemoteError as error:
        assert error.kind == "remote"


def test_runs_of_a_byte_are_written_out() -> None:
    """`0* ` is four zeroes."""
    assert decode_body(b"0* ") == b"0000"


@pytest.mark.parametrize("body", [b"*!", b"a*", b"a}", b"a*\x02"])
def test_half_an_escape_is_an_error(body: bytes) -> None:
    """Nothing to repeat, no count, or a count below the least."""
    with pytest.raises(RemoteError):
        decode_body(body)


def test_repetition_does_not_grow_without_bound() -> None:
    """A small packet cannot become all of memory."""
    with pytest.raises(RemoteError, match="more than"):
        decode_body(b"a" + b"*~" * (packets.MAX_DECODED // 97 + 1))


def test_a_packet_without_an_end_is_an_error() -> None:
    """It is not kept for ever."""
    reader = PacketReader()
    with pytest.raises(RemoteError, match="more than"):
        for _ in range(3):
            reader.feed(b"$" + b"a" * packets.MAX_ENCODED)
            reader.take()


def test_noise_between_packets_is_an_error() -> None:
    """Something else than a stub is speaking."""
    reader = PacketReader()
    reader.feed(b"\r\n" * packets.MAX_NOISE)
    with pytest.raises(RemoteError, match="does not speak"):
        reader.take()


def test_numbers_and_bytes_are_hexadecimal() -> None:
    """And bounded."""
    assert from_hex(b"00fF", "x") == b"\0\xff"
    assert number(b"1f", "x") == 31
    for text in (b"0", b"0g", b"zz"):
        with pytest.raises(RemoteError):
            from_hex(text, "x")
    for text in (b"", b"-1", b"1" * 17, b"0x1"):
        with pytest.raises(RemoteError):
            number(text, "x")

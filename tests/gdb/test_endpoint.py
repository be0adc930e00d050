"""Addresses of stubs: this machine's, and no other's."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import RemoteError, UsageError
from orcdbg.gdb.endpoint import Endpoint, connect, parse_endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:1234", Endpoint("127.0.0.1", 1234)),
        ("localhost:1", Endpoint("127.0.0.1", 1)),
        (":1234", Endpoint("127.0.0.1", 1234)),
        ("127.9.8.7:5", Endpoint("127.9.8.7", 5)),
        ("[::1]:1234", Endpoint("::1", 1234)),
        ("unix:a/b", Endpoint(path="a/b")),
    ],
)
def test_sockets_of_this_machine_are_taken(text: str, endpoint: Endpoint) -> None:
    """Loopback of either family, and unix sockets."""
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize("text", ["10.0.0.1:1", "example.org:1", "0.0.0.0:1", "[::]:1", "1.2.3:1"])
def test_other_machines_are_refused_with_a_way(text: str) -> None:
    """No name is looked up."""
    with pytest.raises(UsageError) as caught:
        parse_endpoint(text)
    assert "ssh -L" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text", ["", "1234", "localhost:", "localhost:x", "localhost:65536", "unix:", "unix:" + "a" * 200]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """With the forms that there are."""
    with pytest.raises(UsageError) as caught:
        parse_endpoint(text)
    assert "unix:PATH" in (caught.value.hint or "")


def test_an_address_is_written_as_it_is_given() -> None:
    """For messages."""
    for text in ("127.0.0.1:1", "[::1]:1", "unix:a"):
        assert str(parse_endpoint(text)) == text


def test_nobody_listening_is_an_error() -> None:
    """With how QEMU is told to."""
    with pytest.raises(RemoteError, match="cannot connect") as caught:
        connect(Endpoint(path="nobody/listens/here"), 1.0)
    assert "-gdb" in (caught.value.hint or "")

"""Where does the other side of the GDB remote protocol listen, and may it be talked to?

The protocol has no password and hands out a machine's memory, so only sockets of this machine are taken: loopback
addresses and unix sockets.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from orcdbg.base.errors import RemoteError, UsageError

_FORMS = "HOST:PORT on this machine, such as 127.0.0.1:1234, or unix:PATH"
_TUNNEL = "for another machine's: ssh -L 1234:localhost:1234 MACHINE, then 127.0.0.1:1234"
MAX_UNIX_PATH = 107


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A socket's address: `path` of a unix socket, else `host`, a loopback address, and `port`."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def family(self) -> socket.AddressFamily:
        """The socket's family."""
        if self.path:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def address(self) -> str | tuple[str, int]:
        """What the socket is bound or connected to."""
        return self.path or (self.host, self.port)


def parse_endpoint(text: str) -> Endpoint:
    """The address that a user's words name.

    Raises:
        UsageError: no address, or one that other machines reach.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path or len(path.encode()) > MAX_UNIX_PATH:
            raise UsageError(f"not the path of a socket: {text}", _FORMS)
        return Endpoint(path=path)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise UsageError(f"not an address: {text}", _FORMS)
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if host == "localhost":
        return Endpoint("127.0.0.1", int(port))
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise UsageError(f"{host} is not localhost, nor the address of a loopback interface", _TUNNEL) from error
    if not is_here:
        raise UsageError(
            f"{host} is not this machine: the protocol has no password, and gives away all memory", _TUNNEL
        )
    return Endpoint(host, int(port))


def connect(endpoint: Endpoint, timeout: float) -> socket.socket:
    """A connection; RemoteError where nobody answers within `timeout` seconds."""
    made = socket.socket(endpoint.family)
    made.settimeout(timeout)
    try:
        made.connect(endpoint.address)
    except OSError as error:
        made.close()
        hint = "QEMU listens with -gdb tcp:127.0.0.1:1234, or -gdb unix:PATH,server=on,wait=off"
        raise RemoteError(f"{endpoint}: cannot connect: {error.strerror or error}", hint) from error
    if not endpoint.path:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made

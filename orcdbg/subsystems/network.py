"""Which network devices are there, with which addresses, which neighbours, and which sockets has a task?

Mirrors include/linux/netdevice.h, net/core/neighbour.c, net/core/dev.c, net/ipv4/devinet.c, net/ipv6/addrconf.c,
net/socket.c, net/unix/af_unix.c.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.base.walks import Budget
from orcdbg.subsystems.containers import lists
from orcdbg.subsystems.files import descriptors
from orcdbg.subsystems.kernel_variables import variable
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

MAX_DEVICES = 1 << 17
_LONGEST_ADDRESS = 32  # MAX_ADDR_LEN
_LONGEST_UNIX_NAME = 108

# AF_UNIX and so on (include/linux/socket.h), SOCK_STREAM and so on (include/linux/net.h).
FAMILIES = {
    0: "UNSPEC",
    1: "UNIX",
    2: "INET",
    3: "AX25",
    4: "IPX",
    5: "APPLETALK",
    10: "INET6",
    15: "KEY",
    16: "NETLINK",
    17: "PACKET",
    29: "CAN",
    30: "TIPC",
    31: "BLUETOOTH",
    38: "ALG",
    39: "NFC",
    40: "VSOCK",
    41: "KCM",
    43: "SMC",
    44: "XDP",
    45: "MCTP",
}
TYPES = {1: "STREAM", 2: "DGRAM", 3: "RAW", 4: "RDM", 5: "SEQPACKET", 6: "DCCP", 10: "PACKET"}
# TCP's states (include/net/tcp_states.h); other protocols use a few of them.
STATES = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECV",
    4: "FIN_WAIT1",
    5: "FIN_WAIT2",
    6: "TIME_WAIT",
    7: "CLOSE",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "NEW_SYN_RECV",
    13: "BOUND_INACTIVE",
}
# NEIGH_ARP_TABLE and NEIGH_ND_TABLE (include/net/neighbour.h); NUD_INCOMPLETE and so on (include/uapi/linux/neighbour.h).
_ARP_TABLE, _DISCOVERY_TABLE = 0, 1
_KEY_SIZES = {_ARP_TABLE: 4, _DISCOVERY_TABLE: 16}
_NEIGHBOUR_STATES = {
    0x01: "INCOMPLETE",
    0x02: "REACHABLE",
    0x04: "STALE",
    0x08: "DELAY",
    0x10: "PROBE",
    0x20: "FAILED",
    0x40: "NOARP",
    0x80: "PERMANENT",
}
_INET, _INET6, _UNIX = 2, 10, 1
_UP = 0x1


@dataclass(frozen=True, slots=True)
class Device:
    """A network device.

    Attributes:
        address: of the `struct net_device`.
        name: of the device.
        index: its ifindex.
        is_up: whether it was brought up.
        mtu: its largest packet in bytes.
        hardware_address: in hexadecimal with colons; empty without one.
        addresses: IPv4 and IPv6 addresses with the length of their prefix: `127.0.0.1/8`.
    """

    address: int
    name: str
    index: int
    is_up: bool
    mtu: int
    hardware_address: str
    addresses: list[str]


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket that a task has open.

    Attributes:
        descriptor: its number in the task.
        socket: address of the `struct socket`.
        sock: address of the `struct sock`.
        family: `INET`, `UNIX` and so on, a number where it has no name here.
        type: `STREAM`, `DGRAM` and so on.
        state: of an IPv4, IPv6 or Unix socket; None of others.
        source: address and port, or a Unix socket's name; None where it has none.
        destination: the other end's.
    """

    descriptor: int
    socket: int
    sock: int
    family: str
    type: str
    state: str | None
    source: str | None
    destination: str | None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What is known of a machine on the same link.

    Attributes:
        address: of the `struct neighbour`.
        ip: its IP address.
        hardware_address: in hexadecimal with colons; of an entry that is INCOMPLETE zeros.
        device: address of the `struct net_device` that it is reached by, 0 for none.
        device_name: that device's name, None for none.
        states: `REACHABLE`, `STALE` and so on.
    """

    address: int
    ip: str
    hardware_address: str
    device: int
    device_name: str | None
    states: list[str]


def namespace_of(program: Program, task: Object | None) -> Object:
    """The `struct net` of a task, the first one where no task is given or the task has none any more; a pointer."""
    if task is not None:
        proxy = task.member_("nsproxy")
        if int(proxy):
            return proxy.member_("net_ns")
    return variable(program, "init_net", "struct net").address_of_()


def devices(namespace: Object, budget: Budget) -> list[Device]:
    """The devices of a network namespace.

    Args:
        namespace: a pointer to its `struct net`.
        budget: what the walk draws on, and where problems go.
    """
    found = []
    for device in lists.entries(namespace.member_("dev_base_head"), "net_device", "dev_list", budget):
        try:
            found.append(_device(device, budget))
        except OrcdbgError as error:
            budget.note_error("a network device", device.address_ or 0, error)
    return found


def _device(device: Object, budget: Budget) -> Device:
    length = min(int(device.member_("addr_len")), _LONGEST_ADDRESS)
    data = device.program_.memory.read(int(device.member_("dev_addr")), length) if length else b""
    return Device(
        device.address_ or 0,
        device.member_("name").string_(),
        int(device.member_("ifindex")),
        bool(int(device.member_("flags")) & _UP),
        int(device.member_("mtu")),
        ":".join(f"{byte:02x}" for byte in data),
        [*_ipv4(device, budget), *_ipv6(device, budget)],
    )


def _ipv4(device: Object, budget: Budget) -> Iterator[str]:
    if not device.has_member_("ip_ptr") or not int(device.member_("ip_ptr")):
        return
    first = int(device.member_("ip_ptr").member_("ifa_list"))
    for entry in lists.chained(first, device.program_, "in_ifaddr", "ifa_next", budget):
        address = ipaddress.IPv4Address(entry.member_("ifa_local").bytes_())
        yield f"{address}/{int(entry.member_('ifa_prefixlen'))}"


def _ipv6(device: Object, budget: Budget) -> Iterator[str]:
    if not device.has_member_("ip6_ptr") or not int(device.member_("ip6_ptr")):
        return
    inside = device.member_("ip6_ptr")
    if device.program_.catalog.find("struct", "inet6_ifaddr") is None or not inside.has_member_("addr_list"):
        return
    for entry in lists.entries(inside.member_("addr_list"), "inet6_ifaddr", "if_list", budget):
        address = ipaddress.IPv6Address(entry.member_("addr").bytes_())
        yield f"{address}/{int(entry.member_('prefix_len'))}"


def neighbours(program: Program, budget: Budget) -> list[Neighbour]:
    """What the kernel knows of its neighbours: the ARP cache, and IPv6's of neighbour discovery.

    Args:
        program: the kernel.
        budget: what the walks draw on, and where problems go.
    """
    found = []
    tables = program.linux.address("neigh_tables")
    for number, size in _KEY_SIZES.items():
        table = program.object("struct neigh_table *", tables + 8 * number)
        if not int(table):  # IPv6 may be a module that is not loaded
            continue
        try:
            for neighbour in _entries_of(table, budget):
                found.append(_neighbour(neighbour, size))
        except OrcdbgError as error:
            budget.note_error("a table of neighbours", int(table), error)
    return found


def _entries_of(table: Object, budget: Budget) -> Iterator[Object]:
    """The `neighbour`s of a `neigh_table`."""
    program = table.program_
    inside = table.member_("nht")
    # Since 6.13 (d09446073f19) the buckets are hlists; before, each neighbour points to the next one.
    path = "hash" if inside.has_member_("hash_heads") else "next"
    buckets = int(inside.first_of_("hash_heads", "hash_buckets") or 0)
    shift = int(inside.member_("hash_shift"))
    seen: set[int] = set()
    for bucket in budget.entries(1 << min(shift, 32), buckets, "buckets of neighbours"):
        first = read_u64(program.memory, buckets + 8 * bucket)
        if first:
            yield from lists.chained(first, program, "neighbour", path, budget, seen)


def _neighbour(neighbour: Object, key_size: int) -> Neighbour:
    device = neighbour.member_("dev")
    length = min(int(device.member_("addr_len")), _LONGEST_ADDRESS) if int(device) else 0
    place = neighbour.member_("primary_key").address_ or 0
    key = neighbour.program_.memory.read(place, key_size)
    hardware = neighbour.member_("ha").bytes_()[:length]
    state = int(neighbour.member_("nud_state"))
    return Neighbour(
        neighbour.address_ or 0,
        str(ipaddress.ip_address(key)),
        ":".join(f"{byte:02x}" for byte in hardware),
        int(device),
        device.member_("name").string_() if int(device) else None,
        [name for bit, name in _NEIGHBOUR_STATES.items() if state & bit] or ["NONE"],
    )


def sockets_of(task: Object, budget: Budget) -> list[Socket]:
    """The sockets that a task has open, by their descriptors.

    Args:
        task: its `task_struct`.
        budget: what the walk draws on, and where problems go.
    """
    table = task.member_("files")
    if not int(table):
        return []
    found = []
    for descriptor, pointer in descriptors(table, budget):
        try:
            inode = pointer.member_("f_inode")
            if int(inode) and stat.S_ISSOCK(int(inode.member_("i_mode"))):
                found.append(_socket(descriptor, inode))
        except OrcdbgError as error:
            budget.note_error(f"the socket of descriptor {descriptor}", int(pointer), error)
    return found


def _socket(descriptor: int, inode: Object) -> Socket:
    """The socket around its inode, as SOCKET_I(); the inode of a socket's file in a file system is no such inode."""
    file_system = inode.member_("i_sb").member_("s_type").member_("name").string_(64)
    program = inode.program_
    if file_system != "sockfs":
        return Socket(descriptor, 0, 0, "UNIX", "", None, None, None)
    socket = inode.container_of_("struct socket_alloc", "vfs_inode").member_("socket")
    sock = socket.member_("sk")
    word = TYPES.get(int(socket.member_("type")), str(int(socket.member_("type"))))
    if not int(sock):
        return Socket(descriptor, socket.address_ or 0, 0, "", word, None, None, None)
    common = sock.member_("__sk_common")
    family = int(common.member_("skc_family"))
    state = STATES.get(int(common.member_("skc_state")))
    source: str | None = None
    destination: str | None = None
    if family in (_INET, _INET6):
        port = int.from_bytes(program.value("struct inet_sock *", int(sock)).member_("inet_sport").bytes_(), "big")
        other = int.from_bytes(common.member_("skc_dport").bytes_(), "big")
        source = _end(_ip(common, family, "skc_rcv_saddr", "skc_v6_rcv_saddr"), port)
        destination = _end(_ip(common, family, "skc_daddr", "skc_v6_daddr"), other)
    elif family == _UNIX:
        source = _unix_name(program, int(sock))
        peer = program.value("struct unix_sock *", int(sock)).member_("peer")
        destination = _unix_name(program, int(peer)) if int(peer) else None
    else:
        state = None
    return Socket(
        descriptor,
        socket.address_ or 0,
        int(sock),
        FAMILIES.get(family, str(family)),
        word,
        state,
        source,
        destination,
    )


def _ip(common: Object, family: int, of_4: str, of_6: str) -> str:
    if family == _INET:
        return str(ipaddress.IPv4Address(common.member_(of_4).bytes_()))
    return f"[{ipaddress.IPv6Address(common.member_(of_6).bytes_())}]"


def _end(address: str, port: int) -> str:
    return f"{address}:{port}"


def _unix_name(program: Program, sock: int) -> str | None:
    """The name that a Unix socket is bound to, `@` before one that is in no file system; None where it has none."""
    address = program.value("struct unix_sock *", sock).member_("addr")
    if not int(address):
        return None
    # sockaddr_un begins with two bytes of family.
    length = min(max(int(address.member_("len")) - 2, 0), _LONGEST_UNIX_NAME)
    name = address.member_("name")
    data = program.memory.read((name.address_ or 0) + 2, length)
    text = data.lstrip(b"\0") if data[:1] == b"\0" else data.split(b"\0", 1)[0]
    return ("@" if data[:1] == b"\0" else "") + text.decode("utf-8", "backslashreplace")

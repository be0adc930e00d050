"""Which functions does ftrace trace, and through which trampolines: its records, operations and hashes?

Mirrors kernel/trace/ftrace.c: `ftrace_pages_start`, `ftrace_ops_list`, `direct_functions`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from orcdbg.base.errors import Corrupt, MemoryFault, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.kernel.linux import Linux
from orcdbg.patches.site import U64Array, Undecidable

MAX_PAGES = 1 << 16
MAX_RECORDS = 1 << 20
MAX_HASH_BITS = 24
MAX_OPS = 4096
# Bits of dyn_ftrace.flags.
ENABLED, REGS_EN, TRAMP_EN, DIRECT_EN = 1 << 31, 1 << 29, 1 << 27, 1 << 23
_OPS_ADDING, _OPS_MODIFYING = 1 << 8, 1 << 10


class Records(NamedTuple):
    """One row for each call site of ftrace: its address and flags."""

    ips: U64Array
    flags: U64Array


class Operation(NamedTuple):
    """A `struct ftrace_ops` with a trampoline: which functions it traces. An empty `only` means all of them."""

    address: int
    trampoline: int
    only: U64Array
    never: U64Array

    def traces(self, ips: U64Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """For each address, whether this operation traces it (hash_contains_ip)."""
        found = np.isin(ips, self.only) if len(self.only) else np.ones(len(ips), dtype=np.bool_)
        return found & ~np.isin(ips, self.never)


class FtraceState:
    """What ftrace keeps in memory. Members raise Undecidable where the snapshot lacks it."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    @functools.cached_property
    def records(self) -> Records:
        """All records, those of modules included."""
        head = self._linux.find_address("ftrace_pages_start")
        if head is None:
            return Records(np.empty(0, np.uint64), np.empty(0, np.uint64))
        try:
            pages = list(self._record_pages(read_u64(self._linux.memory, head)))
        except OrcdbgError as error:
            raise Undecidable(f"ftrace_pages_start: {error}") from error
        rows = np.concatenate(pages) if pages else np.empty((0, 2), np.uint64)
        # A record whose function was thrown away with the init text keeps no address.
        rows = rows[rows[:, 0] != 0]
        return Records(np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1]))

    def _record_pages(self, page: int) -> Iterator[U64Array]:
        linux, seen = self._linux, 0
        size = linux.types.size("dyn_ftrace")
        while page:
            count = linux.member("ftrace_page", "index", page)
            seen += 1
            if seen > MAX_PAGES or count > MAX_RECORDS:
                raise Corrupt(f"ftrace_page {page:#x}: {count} records, page {seen}")
            data = linux.memory.read(linux.member("ftrace_page", "records", page), count * size)
            words = np.frombuffer(data, dtype="<u8").reshape(count, size // 8)
            yield words[:, :2]
            page = linux.member("ftrace_page", "next", page)

    @functools.cached_property
    def operations(self) -> list[Operation]:
        """The operations with a trampoline, in the order in which the kernel looks through them."""
        try:
            return list(self._operations())
        except OrcdbgError as error:
            raise Undecidable(f"ftrace_ops_list: {error}") from error

    def _operations(self) -> Iterator[Operation]:
        linux = self._linux
        end = linux.address("ftrace_list_end")
        address = read_u64(linux.memory, linux.address("ftrace_ops_list"))
        for _ in range(MAX_OPS):
            if address in (0, end):
                return
            flags = linux.member("ftrace_ops", "flags", address)
            trampoline = linux.member("ftrace_ops", "trampoline", address)
            if trampoline and not flags & _OPS_ADDING:
                which = "old_hash" if flags & _OPS_MODIFYING else "func_hash"
                yield self._operation(address, trampoline, self._hash_of(address, which))
            address = linux.member("ftrace_ops", "next", address)
        raise Corrupt(f"more than {MAX_OPS} ftrace operations")

    def _hash_of(self, address: int, which: str) -> int:
        """Address of an operation's `struct ftrace_ops_hash`: `func_hash` points at one, `old_hash` is one."""
        linux = self._linux
        offset = linux.types.offset("ftrace_ops", which)
        return address + offset if which == "old_hash" else read_u64(linux.memory, address + offset)

    def _operation(self, address: int, trampoline: int, hashes: int) -> Operation:
        linux = self._linux
        only = self.hash_entries(linux.member("ftrace_ops_hash", "filter_hash", hashes))
        never = self.hash_entries(linux.member("ftrace_ops_hash", "notrace_hash", hashes))
        return Operation(address, trampoline, _column(only, 0), _column(never, 0))

    @functools.cached_property
    def direct(self) -> dict[int, int]:
        """The function that each directly called site calls, by the site's address."""
        variable = self._linux.find_address("direct_functions")
        if variable is None:
            return {}
        try:
            return dict(self.hash_entries(read_u64(self._linux.memory, variable)))
        except OrcdbgError as error:
            raise Undecidable(f"direct_functions: {error}") from error

    def hash_entries(self, address: int) -> list[tuple[int, int]]:
        """The (ip, direct) pairs of a `struct ftrace_hash`."""
        linux = self._linux
        if not address or not linux.member("ftrace_hash", "count", address):
            return []
        bits = linux.member("ftrace_hash", "size_bits", address)
        if bits > MAX_HASH_BITS:
            raise Corrupt(f"ftrace_hash {address:#x}: 2^{bits} buckets")
        buckets = linux.member("ftrace_hash", "buckets", address)
        heads = np.frombuffer(linux.memory.read(buckets, 8 << bits), dtype="<u8")
        found: list[tuple[int, int]] = []
        for node in heads[heads != 0].tolist():
            while node:
                if len(found) > MAX_RECORDS:
                    raise Corrupt(f"ftrace_hash {address:#x} runs in a circle")
                found.append(self._entry(node))
                node = read_u64(linux.memory, node)
        return found

    def _entry(self, node: int) -> tuple[int, int]:
        linux = self._linux
        direct = linux.first_member("ftrace_func_entry", ("direct",), node) or 0
        return linux.member("ftrace_func_entry", "ip", node), direct

    def pointer(self, name: str) -> int:
        """A function pointer variable."""
        try:
            return read_u64(self._linux.memory, self._linux.address(name))
        except OrcdbgError as error:
            raise Undecidable(f"{name}: {error}") from error

    @property
    def graph_active(self) -> bool:
        """True while function_graph traces."""
        try:
            return self._linux.memory.read(self._linux.address("ftrace_graph_active"), 4) != bytes(4)
        except MemoryFault as error:
            raise Undecidable(f"ftrace_graph_active: {error}") from error


def _column(pairs: list[tuple[int, int]], index: int) -> U64Array:
    return np.array([pair[index] for pair in pairs], dtype=np.uint64)

"""Which functions does ftrace trace, and through which trampolines: its records, operations and hashes?

Mirrors kernel/trace/ftrace.c: `ftrace_pages_start`, `ftrace_ops_list`, `direct_functions`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import Corrupt, MemoryFault, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.base.walks import Budget, BudgetSpent, Chain
from orcdbg.kernel.generated_code import operations
from orcdbg.kernel.linux import Linux
from orcdbg.patches.site import U64Array, Undecidable

# Groups of records: a few of the kernel's own, and one or more of each module.
MAX_PAGES = 1 << 14
# A distribution's kernel has some 60,000 functions, its modules together some 200,000 where all are loaded. One changed
# `next` made 2^16 pages of the same records, and 6 GB.
MAX_RECORDS = 1 << 19
# FTRACE_HASH_MAX_BITS is 12. One changed word claimed 2^22 buckets, each the head of a chain.
MAX_HASH_BITS = 16
# Each fprobe, each BPF trampoline and each tracer's instance has an operation.
MAX_OPS = 1 << 13
# Of the hashes of all operations together: some tracers name most functions. Each costs 10 us.
MAX_ENTRIES = 1 << 18
_BUCKETS_BYTES = 32 << 20
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


class FtraceState:
    """What ftrace keeps in memory. Members raise Undecidable where the snapshot lacks it."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux
        self._pages = Budget(MAX_PAGES)
        self._records = Budget(MAX_RECORDS)
        self._listed = Budget(MAX_OPS)
        self._entries = Budget(MAX_ENTRIES, _BUCKETS_BYTES)
        self._direct = Budget(MAX_ENTRIES, _BUCKETS_BYTES)

    def problems(self) -> list[str]:
        """Lines for what is known to be missing of all that was asked for."""
        named = (
            ("ftrace_pages_start", self._pages),
            ("ftrace_pages_start", self._records),
            ("ftrace_ops_list", self._listed),
            ("ftrace_ops_list", self._entries),
            ("direct_functions", self._direct),
        )
        return [f"{name}: {line}" for name, budget in named for line in budget.lines()]

    @property
    def has_all_records(self) -> bool:
        """False where the list of records is known to break off; once `records` was asked for."""
        return self._pages.is_whole and self._records.is_whole

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

    def _record_pages(self, first: int) -> Iterator[U64Array]:
        linux = self._linux
        size = linux.types.size("dyn_ftrace")

        def next_of(page: int) -> int:
            return linux.member("ftrace_page", "next", page)

        for page in Chain(first, next_of, self._pages, "the list of records"):
            try:
                numbers = self._records.entries(linux.member("ftrace_page", "index", page), page, "records")
                data = linux.memory.read(linux.member("ftrace_page", "records", page), len(numbers) * size)
            except (MemoryFault, BudgetSpent) as error:
                self._records.note_error("a page of records", page, error)
                continue
            words = np.frombuffer(data, dtype="<u8").reshape(len(numbers), size // 8)
            yield words[:, :2]

    @functools.cached_property
    def operations(self) -> list[Operation]:
        """The operations with a trampoline, in the order in which the kernel looks through them.

        They end before the first that cannot be read whole: what traces a function is the first operation that names it, so
        that behind a gap nothing can be told of the functions that those before it do not name.
        """
        try:
            return list(self._operations())
        except OrcdbgError as error:
            raise Undecidable(f"ftrace_ops_list: {error}") from error

    def _operations(self) -> Iterator[Operation]:
        linux = self._linux
        end = linux.address("ftrace_list_end")
        first = read_u64(linux.memory, linux.address("ftrace_ops_list"))
        for address in operations(linux, first, end, self._listed):
            try:
                operation = self._operation(address)
            except (MemoryFault, Corrupt) as error:
                self._listed.note_error("an operation", address, error)
                return
            if operation is not None:
                yield operation

    def _operation(self, address: int) -> Operation | None:
        """The operation at an address; None for one without a trampoline, or that is only being added."""
        linux = self._linux
        flags = linux.member("ftrace_ops", "flags", address)
        trampoline = linux.member("ftrace_ops", "trampoline", address)
        if not trampoline or flags & _OPS_ADDING:
            return None
        hashes = self._hash_of(address, "old_hash" if flags & _OPS_MODIFYING else "func_hash")
        only = self.hash_entries(linux.member("ftrace_ops_hash", "filter_hash", hashes), self._entries)
        never = self.hash_entries(linux.member("ftrace_ops_hash", "notrace_hash", hashes), self._entries)
        if not self._entries.is_whole:
            raise Corrupt("the functions that it traces are not all known")
        return Operation(address, trampoline, _column(only, 0), _column(never, 0))

    def _hash_of(self, address: int, which: str) -> int:
        """Address of an operation's `struct ftrace_ops_hash`: `func_hash` points at one, `old_hash` is one."""
        linux = self._linux
        offset = linux.types.offset("ftrace_ops", which)
        return address + offset if which == "old_hash" else read_u64(linux.memory, address + offset)

    @functools.cached_property
    def trampolines(self) -> dict[int, int]:
        """The trampoline of each site that has one of its own (FTRACE_FL_TRAMP), by the site's address.

        Worked out once for all of them: each operation is compared only with the functions that its hash names, so that
        thousands of false operations cost no more than the entries of their hashes.
        """
        own = (self.records.flags & np.uint64(TRAMP_EN)) != 0
        ips = np.unique(self.records.ips[own])
        targets = np.zeros(len(ips), dtype=np.uint64)
        for operation in self.operations if len(ips) else ():
            # As hash_contains_ip() has it: an empty filter names all functions.
            rows = _rows_of(ips, operation.only) if len(operation.only) else np.arange(len(ips))
            if len(operation.never):
                rows = np.setdiff1d(rows, _rows_of(ips, operation.never))
            targets[rows[targets[rows] == 0]] = operation.trampoline
            if targets.all():
                break
        known = targets != 0
        return dict(zip(ips[known].tolist(), targets[known].tolist(), strict=True))

    @functools.cached_property
    def direct(self) -> dict[int, int]:
        """The function that each directly called site calls, by the site's address."""
        variable = self._linux.find_address("direct_functions")
        if variable is None:
            return {}
        try:
            return dict(self.hash_entries(read_u64(self._linux.memory, variable), self._direct))
        except OrcdbgError as error:
            raise Undecidable(f"direct_functions: {error}") from error

    def hash_entries(self, address: int, budget: Budget) -> list[tuple[int, int]]:
        """The (ip, direct) pairs of a `struct ftrace_hash`, those that can be read; the budget has why others cannot."""
        linux = self._linux
        if not address or not linux.member("ftrace_hash", "count", address):
            return []
        bits = linux.member("ftrace_hash", "size_bits", address)
        if bits > MAX_HASH_BITS:
            raise Corrupt(f"ftrace_hash {address:#x}: 2^{bits} buckets")
        buckets = linux.member("ftrace_hash", "buckets", address)
        what = f"ftrace_hash {address:#x}"
        heads = np.frombuffer(budget.read(linux.memory, buckets, 8 << bits, f"buckets of {what}"), dtype="<u8")
        found: list[tuple[int, int]] = []
        seen: set[int] = set()
        for first in heads[heads != 0].tolist():
            for node in linux.chain(first, budget, what, seen=seen):
                try:
                    found.append(self._entry(node))
                except MemoryFault as error:
                    budget.note_error(f"an entry of {what}", node, error)
            if budget.is_spent:
                break
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


def _rows_of(ips: U64Array, wanted: U64Array) -> npt.NDArray[np.intp]:
    """Which rows of rising addresses hold the wanted ones."""
    rows = np.searchsorted(ips, wanted)
    inside = rows < len(ips)
    inside[inside] = ips[rows[inside]] == wanted[inside]
    return np.unique(rows[inside])


def _column(pairs: list[tuple[int, int]], index: int) -> U64Array:
    return np.array([pair[index] for pair in pairs], dtype=np.uint64)

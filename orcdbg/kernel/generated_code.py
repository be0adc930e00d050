"""Which code did the kernel make at run time, outside of its image and modules, and what is it made from?

Mirrors ftrace_ops_list, kprobe_table with the caches of instruction slots, and bpf_kallsyms. The lists are read at the first
address that is no other text.
"""

from __future__ import annotations

import bisect
import enum
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget, Chain
from orcdbg.kernel.linux import Linux

# Of each of the three kinds. Machines that trace a lot have some thousand probes or BPF programs; a false node costs up to
# 60 us, and the first address that is no other text pays for all.
MAX_ITEMS = 1 << 15
MAX_SIZE = 1 << 20
_BUCKETS = 64
_SAVE_REGS, _ALLOC_TRAMP = 1 << 2, 1 << 11


class CodeKind(enum.Enum):
    """What made it."""

    FTRACE = enum.auto()
    KPROBE = enum.auto()  # a copied instruction
    OPTPROBE = enum.auto()  # the detour of an optimised probe
    BPF = enum.auto()


class GeneratedCode(NamedTuple):
    """Code at [start, end).

    `name` and `owner` are the kernel's own in /proc/kallsyms. `origin` is what the first `head` bytes of an ftrace
    trampoline were copied from; of a slot it is the probed address, whose instructions, `copied` bytes of them, stand
    behind `head`.
    """

    kind: CodeKind
    start: int
    end: int
    name: str
    owner: str
    origin: int = 0
    head: int = 0
    copied: int = 0


class GeneratedCodes:
    """The generated code of one kernel."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux
        self.problems: list[str] = []

    @functools.cached_property
    def all(self) -> list[GeneratedCode]:
        """All of it, in order of address; a list that breaks off leaves a line in `problems`."""
        readers: tuple[tuple[str, Callable[[Budget], Iterator[GeneratedCode]]], ...] = (
            ("ftrace_ops_list", self._trampolines),
            ("kprobe_table", self._slots),
            ("bpf_kallsyms", self._programs),
        )
        found: list[GeneratedCode] = []
        for name, read in readers:
            budget = Budget(MAX_ITEMS)
            try:
                found.extend(one for one in read(budget) if 0 < one.end - one.start <= MAX_SIZE and one.start >> 63)
            except OrcdbgError as error:
                self.problems.append(f"{name}: {error}")
            self.problems += [f"{name}: {line}" for line in budget.lines()]
        return sorted(found, key=lambda one: one.start)

    def at(self, address: int) -> GeneratedCode | None:
        """The generated code that holds an address."""
        if not address >> 63:
            return None
        index = bisect.bisect_right(self._starts, address) - 1
        found = self.all[index] if index >= 0 else None
        return found if found is not None and address < found.end else None

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [one.start for one in self.all]

    def _trampolines(self, budget: Budget) -> Iterator[GeneratedCode]:
        """The trampolines of ftrace's operations (create_trampoline)."""
        linux = self._linux
        first, end = linux.find_address("ftrace_ops_list"), linux.find_address("ftrace_list_end")
        if first is None or end is None or not linux.types.has("ftrace_ops", "trampoline_size"):
            return
        for operation in operations(linux, read_u64(linux.memory, first), end, budget):
            try:
                flags = linux.member("ftrace_ops", "flags", operation)
                start = linux.member("ftrace_ops", "trampoline", operation)
                size = linux.member("ftrace_ops", "trampoline_size", operation)
            except MemoryFault as error:
                budget.note_error("an ftrace operation", operation, error)
                continue
            if start and flags & _ALLOC_TRAMP:
                template = "ftrace_regs_caller" if flags & _SAVE_REGS else "ftrace_caller"
                origin, copied = self._template(template)
                name = "ftrace_trampoline"
                yield GeneratedCode(CodeKind.FTRACE, start, start + size, name, "__builtin__ftrace", origin, copied)

    def _template(self, name: str) -> tuple[int, int]:
        start, end = self._linux.address(name), self._linux.find_address(f"{name}_end")
        # What was copied of ftrace_caller ended at a label of another name up to 5.7.
        end = self._linux.address("ftrace_epilogue") if end is None else end
        return start, min(max(end - start, 0), PAGE)

    def _slots(self, budget: Budget) -> Iterator[GeneratedCode]:
        """The slots of all probes in the table, armed or not: a CPU may still be in one."""
        linux = self._linux
        table = linux.find_address("kprobe_table")
        if table is None or not linux.types.has("kprobe", "ainsn.insn"):
            return
        pages: tuple[tuple[frozenset[int], int], ...] = ()
        for probe in probes(linux, table, budget):
            # Most kernels have no probe, and many snapshots no such pages.
            pages = pages or (self._pages("kprobe_insn_slots", budget), self._pages("kprobe_optinsn_slots", budget))
            try:
                yield from self._slots_of(probe, *pages)
            except MemoryFault as error:
                budget.note_error("a kprobe", probe, error)

    def _pages(self, cache: str, budget: Budget) -> tuple[frozenset[int], int]:
        """The pages of a cache of slots, and the size of one slot."""
        linux = self._linux
        address = linux.find_address(cache)
        if address is None:
            return frozenset(), 0
        head = address + linux.types.offset("kprobe_insn_cache", "pages")
        pages = linux.walk_list(head, "kprobe_insn_page", "list", budget)
        size = linux.member("kprobe_insn_cache", "insn_size", address)
        return frozenset(linux.member("kprobe_insn_page", "insns", page) for page in pages), min(size, PAGE)

    def _slots_of(
        self, probe: int, plain: tuple[frozenset[int], int], detours: tuple[frozenset[int], int]
    ) -> Iterator[GeneratedCode]:
        linux, owner = self._linux, "__builtin__kprobes"
        address = linux.member("kprobe", "addr", probe)
        slot = linux.member("kprobe", "ainsn.insn", probe)
        if slot & -PAGE in plain[0]:
            size = linux.member("kprobe", "ainsn.size", probe)
            yield GeneratedCode(CodeKind.KPROBE, slot, slot + plain[1], "kprobe_insn_page", owner, address, 0, size)
        # Only a probe that stands for several, or was prepared to be optimised, is part of a larger structure.
        handler = linux.member("kprobe", "pre_handler", probe)
        if not detours[0] or handler != linux.find_address("aggr_pre_handler"):
            return
        slot = linux.member("optimized_kprobe", "optinsn.insn", probe)
        if slot & -PAGE in detours[0]:
            size = linux.member("optimized_kprobe", "optinsn.size", probe)
            head = linux.address("optprobe_template_end") - linux.address("optprobe_template_entry")
            end = slot + detours[1]
            yield GeneratedCode(
                CodeKind.OPTPROBE, slot, end, "kprobe_optinsn_page", owner, address, head, min(size, 64)
            )

    def _programs(self, budget: Budget) -> Iterator[GeneratedCode]:
        """BPF programs, trampolines and dispatchers, as far as the kernel has names for them."""
        linux = self._linux
        head = linux.find_address("bpf_kallsyms")
        if head is None or not linux.types.has("bpf_ksym", "lnode"):
            return
        for symbol in linux.walk_list(head, "bpf_ksym", "lnode", budget):
            try:
                start, end = linux.member("bpf_ksym", "start", symbol), linux.member("bpf_ksym", "end", symbol)
                yield GeneratedCode(CodeKind.BPF, start, end, linux.text_member("bpf_ksym", "name", symbol), "bpf")
            except MemoryFault as error:
                budget.note_error("a BPF symbol", symbol, error)


def operations(linux: Linux, first: int, end: int, budget: Budget) -> Iterator[int]:
    """Addresses of ftrace's operations (`ftrace_ops_list`), in the order in which the kernel looks through them.

    Args:
        linux: the kernel.
        first: the first operation's address.
        end: address of `ftrace_list_end`, which ends the list.
        budget: what the walk draws on.
    """

    def next_of(operation: int) -> int:
        return linux.member("ftrace_ops", "next", operation)

    yield from Chain(first, next_of, budget, "the list of ftrace operations", ends=(0, end))


def probes(linux: Linux, table: int, budget: Budget) -> Iterator[int]:
    """Addresses of the kprobes in the hash table at `table` (`kprobe_table` in kernel/kprobes.c), by bucket.

    All buckets draw on one budget, and none may lead into another's chain.
    """
    offset = linux.types.offset("kprobe", "hlist")
    seen: set[int] = set()
    for number in range(_BUCKETS):
        head = table + 8 * number
        what = f"the list of kprobes at {head:#x}"
        try:
            first = read_u64(linux.memory, head)
        except MemoryFault as error:
            budget.note_error(what, head, error)
            continue
        for node in linux.chain(first, budget, what, seen=seen):
            yield node - offset

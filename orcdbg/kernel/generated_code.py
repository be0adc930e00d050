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

from orcdbg.base.errors import Corrupt, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.kernel.linux import Linux

MAX_ITEMS = 1 << 14
MAX_SIZE = 1 << 20
PAGE = 4096
_BUCKETS = 64
_SAVE_REGS, _ALLOC_TRAMP = 1 << 2, 1 << 11


class CodeKind(enum.Enum):
    """What made it."""

    FTRACE = enum.auto()
    KPROBE = enum.auto()  # a copied instruction
    OPTPROBE = enum.auto()  # the detour of an optimised probe
    BPF = enum.auto()


class MadeCode(NamedTuple):
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


class MadeCodes:
    """The made code of one kernel."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux
        self.problems: list[str] = []

    @functools.cached_property
    def all(self) -> list[MadeCode]:
        """All of it, in order of address; a list that breaks off leaves a line in `problems`."""
        readers: tuple[tuple[str, Callable[[], Iterator[MadeCode]]], ...] = (
            ("ftrace_ops_list", self._trampolines),
            ("kprobe_table", self._slots),
            ("bpf_kallsyms", self._programs),
        )
        found: list[MadeCode] = []
        for name, read in readers:
            try:
                found.extend(one for one in read() if 0 < one.end - one.start <= MAX_SIZE and one.start >> 63)
            except OrcdbgError as error:
                self.problems.append(f"{name}: {error}")
        return sorted(found, key=lambda one: one.start)

    def at(self, address: int) -> MadeCode | None:
        """The made code that holds an address."""
        if not address >> 63:
            return None
        index = bisect.bisect_right(self._starts, address) - 1
        found = self.all[index] if index >= 0 else None
        return found if found is not None and address < found.end else None

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [one.start for one in self.all]

    def _trampolines(self) -> Iterator[MadeCode]:
        """The trampolines of ftrace's operations (create_trampoline)."""
        linux = self._linux
        first, end = linux.find_address("ftrace_ops_list"), linux.find_address("ftrace_list_end")
        if first is None or end is None or not linux.types.has("ftrace_ops", "trampoline_size"):
            return
        operation, seen = read_u64(linux.memory, first), set[int]()
        while operation not in (0, end):
            if operation in seen or len(seen) > MAX_ITEMS:
                raise Corrupt(f"the list of ftrace operations runs in a circle at {operation:#x}")
            seen.add(operation)
            flags = linux.member("ftrace_ops", "flags", operation)
            start = linux.member("ftrace_ops", "trampoline", operation)
            if start and flags & _ALLOC_TRAMP:
                size = linux.member("ftrace_ops", "trampoline_size", operation)
                template = "ftrace_regs_caller" if flags & _SAVE_REGS else "ftrace_caller"
                origin, copied = self._template(template)
                name = "ftrace_trampoline"
                yield MadeCode(CodeKind.FTRACE, start, start + size, name, "__builtin__ftrace", origin, copied)
            operation = linux.member("ftrace_ops", "next", operation)

    def _template(self, name: str) -> tuple[int, int]:
        start, end = self._linux.address(name), self._linux.address(f"{name}_end")
        return start, min(max(end - start, 0), PAGE)

    def _slots(self) -> Iterator[MadeCode]:
        """The slots of all probes in the table, armed or not: a CPU may still be in one."""
        linux = self._linux
        table = linux.find_address("kprobe_table")
        if table is None or not linux.types.has("kprobe", "ainsn.insn"):
            return
        pages = self._pages("kprobe_insn_slots"), self._pages("kprobe_optinsn_slots")
        for bucket in range(_BUCKETS):
            node, seen = read_u64(linux.memory, table + 8 * bucket), set[int]()
            while node:
                if node in seen or len(seen) > MAX_ITEMS:
                    raise Corrupt(f"the list of kprobes at {table + 8 * bucket:#x} runs in a circle")
                seen.add(node)
                yield from self._slots_of(node - linux.types.offset("kprobe", "hlist"), *pages)
                node = read_u64(linux.memory, node)

    def _pages(self, cache: str) -> tuple[frozenset[int], int]:
        """The pages of a cache of slots, and the size of one slot."""
        linux = self._linux
        address = linux.find_address(cache)
        if address is None:
            return frozenset(), 0
        head = address + linux.types.offset("kprobe_insn_cache", "pages")
        pages = linux.walk_list(head, "kprobe_insn_page", "list")
        size = linux.member("kprobe_insn_cache", "insn_size", address)
        return frozenset(linux.member("kprobe_insn_page", "insns", page) for page in pages), min(size, PAGE)

    def _slots_of(
        self, probe: int, plain: tuple[frozenset[int], int], detours: tuple[frozenset[int], int]
    ) -> Iterator[MadeCode]:
        linux, owner = self._linux, "__builtin__kprobes"
        address = linux.member("kprobe", "addr", probe)
        slot = linux.member("kprobe", "ainsn.insn", probe)
        if slot & -PAGE in plain[0]:
            size = linux.member("kprobe", "ainsn.size", probe)
            yield MadeCode(CodeKind.KPROBE, slot, slot + plain[1], "kprobe_insn_page", owner, address, 0, size)
        # Only a probe that stands for several, or was prepared to be optimised, is part of a larger structure.
        handler = linux.member("kprobe", "pre_handler", probe)
        if not detours[0] or handler != linux.find_address("aggr_pre_handler"):
            return
        slot = linux.member("optimized_kprobe", "optinsn.insn", probe)
        if slot & -PAGE in detours[0]:
            size = linux.member("optimized_kprobe", "optinsn.size", probe)
            head = linux.address("optprobe_template_end") - linux.address("optprobe_template_entry")
            end = slot + detours[1]
            yield MadeCode(CodeKind.OPTPROBE, slot, end, "kprobe_optinsn_page", owner, address, head, min(size, 64))

    def _programs(self) -> Iterator[MadeCode]:
        """BPF programs, trampolines and dispatchers, as far as the kernel has names for them."""
        linux = self._linux
        head = linux.find_address("bpf_kallsyms")
        if head is None or not linux.types.has("bpf_ksym", "lnode"):
            return
        for number, symbol in enumerate(linux.walk_list(head, "bpf_ksym", "lnode")):
            if number > MAX_ITEMS:
                raise Corrupt(f"more than {MAX_ITEMS} BPF symbols")
            start, end = linux.member("bpf_ksym", "start", symbol), linux.member("bpf_ksym", "end", symbol)
            yield MadeCode(CodeKind.BPF, start, end, linux.text_member("bpf_ksym", "name", symbol), "bpf")

"""How is a kernel variable or structure member read by its name?"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Container, Iterator

from orcdbg.base.errors import Corrupt, MemoryFault, NotFound
from orcdbg.base.reading import AddressSpace, read_cstring, read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Chain, WalkOutcome, WalkProblem, rest_of_list, unmet_from_the_end
from orcdbg.symbols.btf import StructIndex
from orcdbg.symbols.table import Symbol, SymbolTable


class Linux:
    """A kernel's memory with its names: the handle that everything in this layer takes.

    Args:
        memory: kernel virtual memory.
        symbols: the image's symbol table, at link addresses.
        types: the kernel's structures.
        slide: run-time address minus link address.
    """

    def __init__(self, memory: AddressSpace, symbols: SymbolTable, types: StructIndex, slide: int) -> None:
        self.memory = memory
        self.symbols = symbols
        self.types = types
        self.slide = slide

    def run_time(self, symbol: Symbol) -> int:
        """A symbol's run-time address; a zero-based per-CPU symbol stays what it is, an offset."""
        return symbol.address + self.slide & U64 if symbol.address >> 63 else symbol.address

    def find_address(self, name: str) -> int | None:
        """Run-time address of a symbol, None where the kernel has none of that name."""
        symbol = self.symbols.find(name)
        return None if symbol is None else self.run_time(symbol)

    def address(self, name: str) -> int:
        """Run-time address of a symbol; NotFound where there is none."""
        return self.run_time(self.symbols.get(name))

    def per_cpu(self, name: str, cpu: int) -> int | None:
        """Address of a CPU's instance of a per-CPU variable, None where there is no such variable."""
        address = self.find_address(name)
        return None if address is None else (address + self.per_cpu_offset(cpu)) & U64

    def per_cpu_offset(self, cpu: int) -> int:
        """What is added to a per-CPU symbol for a CPU: its kernel GS base, before 6.15."""
        if not 0 <= cpu < self.cpu_limit():
            raise NotFound("CPU", str(cpu))
        return read_u64(self.memory, self.address("__per_cpu_offset") + 8 * cpu)

    def cpu_limit(self) -> int:
        """One more than the highest possible CPU number."""
        address = self.find_address("nr_cpu_ids")
        if address is None:
            return 1
        count = int.from_bytes(self.memory.read(address, 4), "little")
        if not 0 < count <= 8192:
            raise Corrupt(f"nr_cpu_ids is {count}")
        return count

    def member(self, struct: str, path: str, address: int) -> int:
        """The number in a member of the structure at `address`; NotFound where there is no such member."""
        found = self.types.find(struct, path)
        if found is None:
            raise NotFound("member", f"{struct}.{path}")
        size = min(max(self.types.size_of_member(struct, path), 1), 8)
        value = int.from_bytes(self.memory.read(address + found.offset, size), "little")
        if found.bit_size:
            value = value >> found.bit_offset % 8 & (1 << found.bit_size) - 1
        return value

    def first_member(self, struct: str, paths: tuple[str, ...], address: int) -> int | None:
        """The number in the first of several members that this kernel has, None where it has none of them."""
        for path in paths:
            if self.types.has(struct, path):
                return self.member(struct, path, address)
        return None

    def text_member(self, struct: str, path: str, address: int) -> str:
        """A character array member up to its NUL, undecodable bytes as backslash escapes."""
        size = self.types.size_of_member(struct, path)
        return read_cstring(self.memory, address + self.types.offset(struct, path), min(size, 256)).decode(
            "utf-8", "backslashreplace"
        )

    def walk_list(self, head: int, struct: str, path: str, budget: Budget) -> Iterator[int]:
        """Addresses of the structures on a `list_head` list (include/linux/list.h); what ends it early is the budget's.

        A list that breaks off is walked from its end too, up to the break.

        Args:
            head: address of the list's head.
            struct: what is on the list.
            path: of its `list_head` member.
            budget: what the walk draws on.

        Raises:
            NotFound: the structure has no such member.
        """
        offset = self.types.offset(struct, path)
        for node in list_nodes(self.memory, head, budget, f"the list of {struct}.{path} at {head:#x}"):
            yield node - offset

    def chain(
        self, first: int, budget: Budget, what: str, ends: Container[int] = (0,), seen: set[int] | None = None
    ) -> Chain:
        """The nodes of a list each of which begins with the address of the next: `list_head`, `hlist_node`, `llist_node`."""
        return Chain(first, functools.partial(read_u64, self.memory), budget, what, ends, seen)


def list_nodes(memory: AddressSpace, head: int, budget: Budget, what: str) -> Iterator[int]:
    """Addresses of the nodes on a `list_head` list; as `Linux.walk_list`, which gives the structures that they are in.

    One changed link may lead past some nodes, or into another list, and still to the end: each node must lead back to the
    one before. Where one does not, the nodes that only the way back reaches follow last.
    """
    read_word = functools.partial(read_u64, memory)
    try:
        first = read_word(head)
    except MemoryFault as error:
        budget.note_error(what, head, error)
        return
    seen: set[int] = set()
    links = LinksBack(memory, head, budget, what)
    nodes = Chain(first, links.next_of, budget, what, ends=(head,), seen=seen)
    yield from nodes
    if nodes.end is not WalkOutcome.ENDED:
        yield from _from_the_end(rest_of_list, read_word, head, seen, budget)
        return
    links.end_at(head)
    if links.is_broken:
        yield from _from_the_end(unmet_from_the_end, read_word, head, seen, budget)


_LINKS = struct.Struct("<QQ")


class LinksBack:
    """Follows a list by `next`, and looks whether each node's second word leads back to where the walk came from.

    Args:
        memory: kernel virtual memory.
        head: where the walk begins, the address of a `list_head`, or of the pointer to the first node of an hlist.
        budget: which gets a problem, for the first node alone that does not lead back.
        what: is walked.
        next_offset: of the link that is followed.
    """

    def __init__(self, memory: AddressSpace, head: int | None, budget: Budget, what: str, next_offset: int = 0) -> None:
        self._memory = memory
        self._last = head
        self._budget = budget
        self._what = what
        self._next_offset = next_offset
        self.is_broken = False

    def next_of(self, node: int) -> int:
        """The next node; MemoryFault as of its read."""
        try:
            # Both words at once: a list of a million nodes costs no second read of each.
            data = self._memory.read(node, 16)
        except MemoryFault:
            return read_u64(self._memory, node + self._next_offset & U64)
        following, back = _LINKS.unpack(data) if not self._next_offset else _LINKS.unpack(data)[::-1]
        if back != self._last:
            self._compare(node, back)
        self._last = node
        return int(following)

    def end_at(self, head: int) -> None:
        """Looks whether a ring's head leads back to the last node."""
        try:
            back = read_u64(self._memory, head + (8 - self._next_offset) & U64)
        except MemoryFault:
            return
        self._compare(head, back)

    def _compare(self, node: int, back: int) -> None:
        if self._last is None or back == self._last or self.is_broken:
            return
        self.is_broken = True
        why = f"it leads back to {back:#x}, not to {self._last:#x}, which leads to it"
        self._budget.note(WalkProblem(self._what, WalkOutcome.CORRUPT, node, why=why))


WayBack = Callable[[int, Callable[[int], int], int, set[int], Budget], list[int]]


def _from_the_end(
    way_back: WayBack, read_word: Callable[[int], int], head: int, seen: set[int], budget: Budget
) -> list[int]:
    """What a way back from the end of a list reaches, by `prev`; nothing where the head cannot be read."""

    def previous_of(node: int) -> int:
        return read_word(node + 8)

    try:
        return way_back(previous_of(head), previous_of, head, seen, budget)
    except MemoryFault:
        return []

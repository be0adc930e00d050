"""Which bytes does a CPU find on a page that it has not touched yet?

Text as it ran, from memory or replayed; data from the snapshot alone. What no one can tell of a page's text is named, so
that nothing is run there.
"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, NotInSnapshot
from orcdbg.base.sizes import PAGE
from orcdbg.patches.code import Code
from orcdbg.snapshot.pagetables import KernelMemory


@dataclass(frozen=True, slots=True)
class Page:
    """A page's bytes, and what the page tables let a CPU do with it.

    `unknown` are the [start, end) addresses on it whose bytes nobody can tell. Pages with one `physical` address are one
    page by several names; None for a page that is not as memory has it.
    """

    data: bytes
    unknown: tuple[tuple[int, int], ...] = ()
    physical: int | None = None
    writable: bool = True
    executable: bool = True


class PageSource:
    """Pages of the stopped kernel.

    Args:
        memory: kernel memory, by its page tables.
        code: the kernel's code: text as it ran, also where memory is not in the snapshot.
    """

    def __init__(self, memory: KernelMemory, code: Code) -> None:
        self._memory = memory
        self._code = code

    def page(self, address: int) -> Page:
        """The page at `address`, a multiple of the page size; MemoryFault where none of it can be had."""
        try:
            data = self._memory.read(address, PAGE)
        except NotInSnapshot:
            if not self._code.is_text(address) and not self._code.is_text(address + PAGE - 1):
                raise
            return self._replayed(address)
        way = self._memory.explain(address)
        return Page(data, (), way.physical, way.is_writable, way.is_executable)

    def _replayed(self, address: int) -> Page:
        """A page of text that the snapshot lacks: replayed, in halves where a patch on it is not known."""
        out, unknown = bytearray(PAGE), list[tuple[int, int]]()
        pending = [(address, address + PAGE)]
        while pending:
            start, end = pending.pop()
            found = self._piece(start, end)
            if found is not None:
                out[start - address : end - address] = found
            elif end - start == 1:
                unknown.append((start, end))
            else:
                middle = (start + end) // 2
                pending += [(start, middle), (middle, end)]
        if len(unknown) == PAGE:
            raise NotInSnapshot("virtual", address, PAGE)
        return Page(bytes(out), _joined(unknown))

    def _piece(self, start: int, end: int) -> bytes | None:
        """Replayed text, read from a function's start, since operands are relocated instruction by instruction."""
        function = self._code.locate(start)
        first = start if function is None else min(function.start, start)
        first = first if start - first < 1 << 16 else start
        for begin in (first, start):
            try:
                return self._code.text.read(begin, end - begin)[start - begin :]
            except MemoryFault:
                continue
        return None


def _joined(bytes_: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Single bytes as stretches, by address."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(bytes_):
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return tuple(out)

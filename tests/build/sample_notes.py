"""The sample as a machine that wrote no register notes, with bytes laid over its memory."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.target.session import Session
from tests.build.memory import SparseMemory


class Overlaid:
    """Memory with pieces laid over it."""

    def __init__(self, memory: AddressSpace, pieces: SparseMemory) -> None:
        self._memory = memory
        self._pieces = pieces

    def read(self, address: int, size: int) -> bytes:
        """A piece's bytes where one holds them all, else those of the memory behind it."""
        try:
            return self._pieces.read(address, size)
        except MemoryFault:
            return self._memory.read(address, size)


def without_notes(sample: Session, **pieces: bytes) -> Session:
    """The sample without register notes, and with these bytes at these symbols' addresses."""
    overlay = SparseMemory()
    for name, data in pieces.items():
        overlay.put(sample.linux.address(name) if not name.startswith("at_") else int(name[3:], 16), data)
    snapshot = replace(sample.snapshot, cpus=())
    memory = cast(KernelMemory, Overlaid(sample.memory, overlay))  # of which walks only read
    return Session(sample.image, snapshot, mapped=(sample.placement, memory))

"""What bytes did the CPU run at this address?"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.reading import AddressSpace
from orcdbg.kernel.names import Names
from orcdbg.patches.image_code import ImageCode
from orcdbg.patches.ledger import Cluster, PatchLedger

if TYPE_CHECKING:
    from orcdbg.patches.journal import JournalLedger


class TextSource(enum.Enum):
    """Where bytes of text are from; the values are the JSON contract's words."""

    MEMORY = "memory"
    REPLAY = "replay"


class Ledgers(Protocol):
    """Where patches are recorded: `KernelPatches`, which makes each ledger when it is asked for."""

    @property
    def ledger(self) -> PatchLedger | JournalLedger:
        """All patch sites."""

    @property
    def stack_ledger(self) -> PatchLedger | JournalLedger:
        """The patch sites where the stack pointer may move otherwise than as built."""


class Places(Protocol):
    """Where code is."""

    def holds(self, address: int) -> bool:
        """True for an address in code."""


class CodePlaces:
    """Where code is in one stopped kernel.

    Args:
        image: the image's code.
        names: the modules, and code that the kernel made.
    """

    def __init__(self, image: ImageCode, names: Names) -> None:
        self._image = image
        self._names = names

    def holds(self, address: int) -> bool:
        """True for an address in code: the image's, a module's, or code that the kernel made."""
        if self._image.holds(address):
            return True
        if not address >> 63:
            return False
        return self._names.module_at(address) is not None or self._names.made.at(address) is not None


class PatchedText:
    """Text as it ran: memory, and where the snapshot lacks it the image with all recorded patches replayed.

    Args:
        memory: text as it is.
        ledgers: the patches, which are asked for only where memory is missing.
        built: text as built.
        places: which addresses are code.
    """

    def __init__(self, memory: AddressSpace, ledgers: Ledgers, built: AddressSpace, places: Places) -> None:
        self._memory = memory
        self._ledgers = ledgers
        self._built = built
        self._places = places

    def read_from(self, address: int, size: int) -> tuple[bytes, TextSource]:
        """The bytes, and where they are from."""
        try:
            return self._memory.read(address, size), TextSource.MEMORY
        except NotInSnapshot:
            if not self._places.holds(address):
                raise
        return self.replayed(address, size), TextSource.REPLAY

    def read(self, address: int, size: int) -> bytes:
        """The bytes; NotInSnapshot or BadAddress where there are none."""
        return self.read_from(address, size)[0]

    def _decided(self, cluster: Cluster) -> list[Cluster]:
        """A cluster, or what is known in its place: a branch or call that may be switched either way moves no stack."""
        if cluster.expected is not None:
            return [cluster]
        return self._ledgers.stack_ledger.between(cluster.address, cluster.end)

    def replayed(self, address: int, size: int) -> bytes:
        """The image's bytes with the recorded patches on them.

        Raises:
            MemoryFault: not image text, or a patch there cannot be replayed.
        """
        try:
            out = bytearray(self._built.read(address, size))
        except NotInSnapshot:
            return self._listed(address, size)
        known = [one for each in self._ledgers.ledger.between(address, address + size) for one in self._decided(each)]
        for cluster in known:
            if cluster.expected is None:
                raise NotInSnapshot("replayed text", cluster.address, len(cluster.image))
            start, end = max(cluster.address, address), min(cluster.end, address + size)
            out[start - address : end - address] = cluster.expected[start - cluster.address : end - cluster.address]
        return bytes(out)

    def _listed(self, address: int, size: int) -> bytes:
        """Bytes inside one place whose patches are known, where there is no text as built besides."""
        found = self._ledgers.ledger.find(address)
        if found is None or found.expected is None or address + size > found.end:
            raise NotInSnapshot("replayed text", address, size)
        return found.expected[address - found.address :][:size]

"""A kernel's code made by hand: what rules, walks and judges are given where there is no snapshot; and its branches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orcdbg.base.errors import BadAddress
from orcdbg.base.reading import AddressSpace, BytesSpace
from orcdbg.formats.call_frame_row import Row
from orcdbg.image.references import References
from orcdbg.kernel.exception_table import ExceptionTable
from orcdbg.kernel.generated_code import GeneratedCode
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Location
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.table import OrcEntry
from orcdbg.orc.tables import Rows
from orcdbg.patches.ledger import Cluster
from orcdbg.unwind.judge.evidence import Evidence
from orcdbg.unwind.registers.saves import FunctionSaves
from orcdbg.unwind.walker import Terrain
from tests.build.kernel import made_linux

# By this symbol SP_INDIRECT means (word at sp) + offset, as since 5.12.
SINCE_5_12 = {"hardirq_stack_inuse": (0xFFFFFFFF80000000, 8)}


def nothing(base: int = 0) -> BytesSpace:
    """A space with nothing in it."""
    return BytesSpace(base, b"", lambda address, size: BadAddress("made", address, size))


@dataclass
class MadeKernelCode:
    """Code as `orcdbg.patches.code.Code` describes it, of which nothing is known but what a test gives.

    `memory` is what all texts are read from that are not given; `find_symbol` and `find_cluster` answer for addresses.
    """

    memory: AddressSpace
    find_symbol: Callable[[int], Location | None]
    symbols: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    ran: AddressSpace | None = None
    was: AddressSpace | None = None
    slide: int = 0
    calls: bool | None = True
    are_patches_listed: bool = True
    made: tuple[GeneratedCode, ...] = ()
    described: Mapping[int, Row] = field(default_factory=dict)
    known_faults: ExceptionTable | None = None
    known_linux: Linux | None = None
    references: References | None = None
    find_cluster: Callable[[int], Cluster | None] = lambda address: None

    @functools.cached_property
    def linux(self) -> Linux:
        """The kernel given, or one of the symbols."""
        return self.known_linux or made_linux(self.memory, {}, {**SINCE_5_12, **self.symbols})

    @property
    def text(self) -> AddressSpace:
        """Text as it ran."""
        return self.ran or self.memory

    @property
    def as_run(self) -> AddressSpace:
        """Text as it ran."""
        return self.ran or self.memory

    @property
    def built(self) -> AddressSpace:
        """Text as built."""
        return self.was or self.text

    @property
    def as_linked(self) -> AddressSpace:
        """Text as built."""
        return self.was or self.text

    @property
    def faults(self) -> ExceptionTable:
        """Those given; else none."""
        return self.known_faults or ExceptionTable(self.linux, ())

    def locate(self, address: int) -> Location | None:
        """The symbol that the test says."""
        return self.find_symbol(address)

    def starts_of(self, name: str) -> list[int]:
        """The given symbols of a name."""
        return [address for symbol, (address, _) in self.symbols.items() if symbol == name]

    def is_text(self, address: int) -> bool:
        """True where there is a symbol."""
        return self.find_symbol(address) is not None

    def is_lasting(self, address: int) -> bool:
        """True where there is a symbol: the boot of a made kernel gives nothing back."""
        return self.is_text(address)

    def generated_at(self, address: int) -> GeneratedCode | None:
        """The generated code that holds an address."""
        return next((one for one in self.made if one.start <= address < one.end), None)

    def follows_call(self, address: int) -> bool | None:
        """What the test says of every address."""
        return self.calls

    def call_target(self, address: int) -> int | None:
        """No call is direct."""
        return None

    def cluster(self, address: int) -> Cluster | None:
        """The patch sites that the test says."""
        return self.find_cluster(address)

    def jumps_between(self, start: int, end: int) -> dict[int, int]:
        """No jump is patched in."""
        return {}

    def call_frame(self, address: int) -> Row | None:
        """The call frame information that the test says."""
        return self.described.get(address)


@dataclass
class MadeRows:
    """Rows that a function tells."""

    find_row: Callable[[int], OrcEntry | None]

    def find(self, address: int) -> OrcEntry | None:
        """The entry for an address."""
        return self.find_row(address)


def made_evidence(code: MadeKernelCode) -> Evidence:
    """What judges walks, with no rules to follow functions by."""
    return Evidence(code, FunctionSaves(code, OrcOverlay(code, MadeRows(lambda address: None))))


def made_terrain(code: MadeKernelCode, rows: Rows) -> Terrain:
    """What walks over generated code go over."""
    overlay = OrcOverlay(code, rows)
    return Terrain(code, overlay, Evidence(code, FunctionSaves(code, overlay)))


def branch(opcode: bytes, at: int, target: int) -> bytes:
    """A direct call or jump at `at`."""
    return opcode + (target - at - len(opcode) - 4).to_bytes(4, "little", signed=True)

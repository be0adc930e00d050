"""Which way do the static branches go: through, or to their target?

Mirrors kernel/jump_label.c and arch/x86/kernel/jump_label.c. Sites are in `__jump_table`, inside `.rodata` of a vmlinux and
therefore in memory too; the count in each `struct static_key` decides. The image's table is used: the kernel sorts its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from orcdbg.base.reading import self_relative
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, U8Array, U64Array, Undecidable, WorkingText, make_spans
from orcdbg.patches.state.nops import NopTable
from orcdbg.patches.sweep import IntArray, KeyedSweep, Written
from orcdbg.patches.tables import BoundedTable, built_bytes, displacement, repeated
from orcdbg.patches.variables import read_words

TABLE = BoundedTable("__jump_table", "__start___jump_table", "__stop___jump_table")
_ENTRY = 16
_ABSOLUTE_ENTRY = 24  # three whole addresses, to 4.19: 4.20 made them relative (9ae033aca8d6, 50ff18ab497a)
_BRANCH = 1  # bit 0 of the key's address; bit 1 is objtool's in the file (5.17), the kernel's in memory
_SHORT_JUMP = 0xEB
_SHORT_NOP = b"\x66\x90"


class JumpLabelsPass(KeyedSweep):
    """`jump_label_transform()` as a replay pass.

    Args:
        table: `__jump_table` as built, from run-time address `address` on.
        image: tells a site's length, by what the build put there.
        linux: the kernel.
        nops: its NOPs.
        absolute: for a table of whole addresses, what they still lack to be run-time addresses; else None.
    """

    mechanism = "jump-label"
    table = TABLE.section

    def __init__(
        self,
        table: bytes,
        address: int,
        image: Image,
        linux: Linux,
        nops: NopTable | None,
        absolute: int | None = None,
    ) -> None:
        if absolute is not None:
            sites, self._targets, keys = _absolute(table, absolute)
        else:
            sites = self_relative(table, address, _ENTRY)
            self._targets = self_relative(table, address, _ENTRY, 4)
            keys = _keys(table, address)
        self._branch = (keys & np.uint64(_BRANCH)).astype(np.bool_)
        self.keys = keys & ~np.uint64(3)
        self.places = make_spans(sites, _lengths(built_bytes(image, sites - np.uint64(linux.slide), 2)))
        self._linux = linux
        self._nops = nops

    def branches(self, start: int, end: int) -> dict[int, int]:
        """Where the branches at sites in [start, end) go when they are taken."""
        is_inside = (self.places.starts >= np.uint64(start)) & (self.places.starts < np.uint64(end))
        return dict(zip(self.places.starts[is_inside].tolist(), self._targets[is_inside].tolist(), strict=True))

    def versions(self, address: int) -> list[bytes]:
        """The instructions that may stand at a site, whatever its key says; none where there is no site."""
        if self._nops is None:
            return []
        found = []
        for row in np.flatnonzero(self.places.starts == np.uint64(address)):
            size = int(self.places.sizes[row])
            nop = _SHORT_NOP if size == len(_SHORT_NOP) else self._nops.atomic
            found += [nop, self._jumps(np.array([row]), size).tobytes()]
        return found

    def _taken(self, rows: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each branch is taken now; -1 is a key that is being switched on."""
        counts = read_words(self._linux.memory, self.keys[rows], 4).view("<i4").ravel()
        taken: npt.NDArray[np.bool_] = (counts != 0) ^ self._branch[rows]
        return taken

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """A jump, or a NOP of the same length."""
        if self._nops is None:
            raise Undecidable("ideal_nops is not in the snapshot")
        taken = self._taken(rows)
        for size, nop in ((2, _SHORT_NOP), (5, self._nops.atomic)):
            is_of_size = self.places.sizes[rows] == size
            through = rows[is_of_size & ~taken]
            jumps = rows[is_of_size & taken]
            yield Written(through, repeated(nop, len(through)))
            yield Written(jumps, self._jumps(jumps, size))

    def _jumps(self, rows: IntArray, size: int) -> U8Array:
        out = np.empty((len(rows), size), dtype=np.uint8)
        out[:, 0] = _SHORT_JUMP if size == 2 else 0xE9
        out[:, 1:] = displacement(self.places.starts[rows], size, self._targets[rows])[:, : size - 1]
        return out

    def describe(self, row: int) -> Applied:
        """The key and its state."""
        key = int(self.keys[row])
        variable = self._linux.symbols.at(key - self._linux.slide)
        name = variable.symbol.name if variable else hex(key)
        if variable and variable.symbol.address + self._linux.slide != key:
            name += f"+{key - self._linux.slide - variable.symbol.address:#x}"

        is_taken = bool(self._taken(np.array([row]))[0])
        is_enabled = is_taken != bool(self._branch[row])
        state = "enabled" if is_enabled else "disabled"
        way = "taken" if is_taken else "not taken"
        return Applied(name, f"{name} {state}, branch {way}")


def _is_absolute(linux: Linux) -> bool:
    """Whether the entries of this kernel hold whole addresses."""
    return linux.types.exists("jump_entry") and linux.types.size("jump_entry") == _ABSOLUTE_ENTRY


def _absolute(table: bytes, unmoved: int) -> tuple[U64Array, U64Array, U64Array]:
    """Sites, targets and keys of entries that hold whole addresses."""
    count = len(table) // _ABSOLUTE_ENTRY
    words = np.frombuffer(table[: count * _ABSOLUTE_ENTRY], dtype="<u8").reshape(-1, 3) + np.uint64(unmoved)
    sites, targets, keys = (np.ascontiguousarray(column) for column in words.T)
    return sites, targets, keys


def _keys(table: bytes, address: int) -> U64Array:
    """The third field, an eight-byte word counted from itself."""
    count = len(table) // _ENTRY
    words = np.frombuffer(table[: count * _ENTRY], dtype="<u8").reshape(-1, 2)[:, 1]
    return words + np.uint64(address + 8) + np.arange(count, dtype=np.uint64) * np.uint64(_ENTRY)


def _lengths(first: U8Array) -> npt.NDArray[np.int64]:
    """Two bytes where the assembler made a short jump or objtool a short NOP (since 5.17), else five."""
    is_nop = (first[:, 0] == _SHORT_NOP[0]) & (first[:, 1] == _SHORT_NOP[1])
    return np.where((first[:, 0] == _SHORT_JUMP) | is_nop, 2, 5)


def branches_between(passes: Iterable[PatchPass], start: int, end: int) -> dict[int, int]:
    """Where jumps go that the kernel may patch into [start, end), by where they are: those of all static branches there."""
    targets: dict[int, int] = {}
    for the_pass in passes:
        if isinstance(the_pass, JumpLabelsPass):
            targets |= the_pass.branches(start, end)
    return targets


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[JumpLabelsPass]:
    table, address = build.table(TABLE)
    absolute = build.unmoved if _is_absolute(build.linux) else None
    return [JumpLabelsPass(table, address, build.image, build.linux, build.nops, absolute)] if table else []


JUMP_LABEL = Mechanism(JumpLabelsPass.mechanism, _passes, (TABLE.section,))

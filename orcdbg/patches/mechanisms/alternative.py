"""What did the boot write at each alternative: .altinstructions, the CPU's feature bits, and the replacements?

Mirrors apply_alternatives() in arch/x86/kernel/alternative.c, from 5.10 to 7.2. The size of a table entry tells its
layout; what the kernel does with an entry changed together with the layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace, read_u64, signed
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.patches.alternative_replacements import PatchedReplacements
from orcdbg.patches.alternative_table import ALTERNATIVES, AltEntry, AlternativeTable
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.moved_instructions import moved, optimise_new_nops, optimise_old_nops
from orcdbg.patches.site import Applied, PatchPass, Spans, U64Array, Undecidable, WorkingText, make_spans
from orcdbg.patches.state.nops import NopTable
from orcdbg.patches.sweep import Sweep


class AlternativesPass:
    """`apply_alternatives()` as a replay pass.

    Args:
        linux: the kernel, for the pointers that direct calls go through.
        built: the replacements, at run-time addresses, as they were when they were copied.
        entries: the table; each entry is a place, and several may name one site.
        features: the feature bits that decide.
        nops: the NOPs that this kernel writes; None where the snapshot does not tell.
    """

    mechanism = "alternative"
    table = ALTERNATIVES

    def __init__(
        self, linux: Linux, built: AddressSpace, entries: AlternativeTable, features: Features, nops: NopTable | None
    ) -> None:
        self._linux = linux
        self._built = built
        self.entries = entries
        self._features = features
        self._nops = nops

    def spans(self) -> Spans:
        """Sites in table order; several entries may name one site."""
        return make_spans(self.entries.sites, self.entries.sizes)

    def decision(self, entry: AltEntry) -> tuple[bool, str]:
        """Whether an entry applies, and why in words."""
        has = self._features.has(entry.feature)
        if has is None:
            why = "out of range" if entry.feature >= self._features.count else "not in the snapshot"
            raise Undecidable(f"{ALTERNATIVES} entry for {entry.site:#x}: feature bit {entry.feature} is {why}")
        return has != entry.negated, f"{self._features.name(entry.feature)} {'set' if has else 'clear'}"

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Replays entry `index`; the NOPs of a site that is left as built are optimised too."""
        entry = self.entries.entry(index)
        if self._nops is None:
            raise Undecidable("ideal_nops is not in the snapshot")
        selected, why = self.decision(entry)
        if selected:
            text.write(entry.site, self._replacement(entry, text))
        data = text.read(entry.site, entry.size)
        better = self._optimised(entry, data, selected)
        if better != data:
            text.write(entry.site, better)
        return Applied(self._name(entry), why) if selected else None

    def variant(self, index: int, text: WorkingText) -> bytes:
        """The site as entry `index` leaves it where it applies, whatever this machine's features are.

        Args:
            index: number of the entry.
            text: the site as built; left as it is.

        Raises:
            Undecidable: the replacement, or the pointer of a direct call, is not to be had.
        """
        entry = self.entries.entry(index)
        return self._optimised(entry, self._replacement(entry, text), True)

    def untouched(self, index: int, text: WorkingText) -> bytes:
        """The site of entry `index` as it is left where no entry applies: as built, its NOPs optimised."""
        entry = self.entries.entry(index)
        return self._optimised(entry, text.read(entry.site, entry.size), False)

    def variant_name(self, index: int) -> str:
        """The condition under which entry `index` applies."""
        return self._name(self.entries.entry(index))

    def calls(self, others: U64Array) -> list[tuple[int, int]]:
        """The (address, target) pairs of the calls that sites hold once all entries were applied.

        Calls are looked for where a site begins, and at those of the addresses `others` (sorted) that sites cover.
        """
        return [call for rows in self._groups() for call in self._calls(rows, others)]

    def _groups(self) -> list[range]:
        """The entries of each site."""
        breaks = np.flatnonzero(np.concatenate(([True], self.entries.sites[1:] != self.entries.sites[:-1], [True])))
        return [range(low, high) for low, high in pairwise(breaks.tolist())] if len(self.entries) else []

    def _calls(self, rows: range, others: U64Array) -> Iterator[tuple[int, int]]:
        site, size = int(self.entries.sites[rows[0]]), int(self.entries.sizes[rows[0]])
        low, high = np.searchsorted(others, np.array([site, site + size], dtype=np.uint64)).tolist()
        try:
            text = WorkingText(site, self._built.read(site, size))
            for row in rows:
                self.apply(row, text)
        except (MemoryFault, Undecidable):
            return
        for address in sorted({site, *others[low:high].tolist()}):
            call = text.read(address, 5)
            if len(call) == 5 and call[0] == 0xE8:
                yield address, address + 5 + signed(int.from_bytes(call[1:], "little"), 32)

    def _name(self, entry: AltEntry) -> str:
        name = self._features.name(entry.feature)
        return f"not {name}" if entry.negated else name

    def _replacement(self, entry: AltEntry, text: WorkingText) -> bytes:
        """The bytes an entry writes, before NOPs are optimised."""
        try:
            data = self._built.read(entry.replacement, entry.replacement_size) if entry.replacement_size else b""
        except MemoryFault as error:
            raise Undecidable(str(error)) from error
        if entry.direct_call:
            data = self._direct_call(entry, text, data)
            return data.ljust(entry.size, b"\x90")
        if not self.entries.has_flags:
            return self._moved_5_10(data, entry).ljust(entry.size, b"\x90")
        return moved(data.ljust(entry.size, b"\x90"), entry.replacement - entry.site, entry.replacement_size)

    def _moved_5_10(self, data: bytes, entry: AltEntry) -> bytes:
        """Before 6.3 only a replacement that is one five-byte call or jump is relocated."""
        if len(data) != 5 or data[0] not in (0xE8, 0xE9, 0xEB) or self._nops is None:
            return data
        displacement = signed(int.from_bytes(data[1:], "little"), 32) + entry.replacement - entry.site
        if data[0] == 0xE8:
            return data[:1] + (displacement & 0xFFFF_FFFF).to_bytes(4, "little")
        distance = displacement + 5
        if 0 <= distance <= 129:
            return bytes((0xEB, distance - 2 & 0xFF)) + self._nops.fill(3)
        return b"\xe9" + (displacement & 0xFFFF_FFFF).to_bytes(4, "little")

    def _direct_call(self, entry: AltEntry, text: WorkingText, replacement: bytes) -> bytes:
        """`call *pv_ops+x(%rip)` becomes a call of what the pointer holds (alt_replace_call).

        The replacement is a call of BUG_func, to whose operand the kernel adds the distance from there to the target. Where
        calls were counted before, a module's went to the padding of BUG_func, and the new call goes as far before its target.
        """
        site = text.read(entry.site, 6)
        if site[:2] != b"\xff\x15":
            raise Undecidable(
                f"no indirect call at {entry.site:#x}, where an entry with ALT_FLAG_DIRECT_CALL names one"
            )
        pointer = entry.site + 6 + signed(int.from_bytes(site[2:6], "little"), 32)
        try:
            target = read_u64(self._linux.memory, pointer)
        except MemoryFault as error:
            raise Undecidable(str(error)) from error
        if target == self._linux.find_address("nop_func"):
            return b""
        stand_in = self._linux.find_address("BUG_func")
        if target == 0:
            target = self._linux.address("BUG_func")
        if stand_in is not None and len(replacement) == 5 and replacement[0] == 0xE8:
            built = entry.replacement + 5 + signed(int.from_bytes(replacement[1:], "little"), 32)
            target += built - stand_in
        return b"\xe8" + (target - entry.site - 5 & 0xFFFF_FFFF).to_bytes(4, "little")

    def _optimised(self, entry: AltEntry, data: bytes, is_selected: bool) -> bytes:
        """The site once the kernel has looked through it for NOPs."""
        if self._nops is None or (b"\x90" not in data and b"\x0f\x1f" not in data):
            return data
        if self.entries.has_padding:
            return _padded(entry, data, is_selected, self._nops)
        return optimise_new_nops(data, self._nops) if self.entries.has_flags else optimise_old_nops(data, self._nops)


def _padded(entry: AltEntry, data: bytes, is_selected: bool, nops: NopTable) -> bytes:
    """A site of 5.11 and earlier (before 23c1ad538f4f): only what fills it up is made of long NOPs.

    Where nothing is replaced, as many bytes as the build added must be NOPs at the site's begin (612e8e9350fd, 4.15): so
    nothing happens to a site that has an instruction there, and its padding stays as built.
    """
    if is_selected:
        kept = entry.replacement_size
    else:
        kept = entry.size - entry.padding
        if entry.padding <= 1 or data[: entry.padding] != b"\x90" * entry.padding:
            return data
    return data[:kept] + nops.fill(len(data) - kept)


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[AlternativesPass]:
    section, table = build.image.find_section(ALTERNATIVES), build.image.section_data(ALTERNATIVES)
    if section is None or not table:
        return []
    entries = AlternativeTable(table, section.address + build.linux.slide)
    replacements = PatchedReplacements(build.image, build.built, build.linux.slide, _in_replacements(build, earlier))
    return [AlternativesPass(build.linux, replacements, entries, build.features, build.nops)]


def _in_replacements(build: Build, earlier: Sequence[PatchPass]) -> list[Sweep]:
    """Those of the earlier passes that patch replacements too, before these are copied into the text."""
    if not earlier:
        return []  # as a walk asks, which needs none of these modules

    from orcdbg.patches.mechanisms.call_thunk import CountedCalls, calls_in_replacements
    from orcdbg.patches.mechanisms.retpoline import RetpolinePass
    from orcdbg.patches.mechanisms.return_thunk import ReturnsPass

    passes: list[Sweep] = [each for each in earlier if isinstance(each, RetpolinePass | ReturnsPass)]
    if any(isinstance(each, CountedCalls) for each in earlier):
        passes += calls_in_replacements(build)
    return passes


ALTERNATIVE = Mechanism(AlternativesPass.mechanism, _passes, (ALTERNATIVES,), moves_stack=True)

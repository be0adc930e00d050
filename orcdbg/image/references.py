"""Which code does the build refer to: whose address does it take, and where do its jumps go?

A pointer to a function has to come from somewhere: the image holds the address, or a distance to it, wherever the kernel or
a module could take it from. What is looked for are bytes, at every place that may be one. Bytes that only look like a
reference make a function look taken that is not, which costs a proof; a reference that is there is not missed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import U64Array, self_relative
from orcdbg.formats.elf import SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, Section
from orcdbg.image.vmlinux import Image

Bytes = npt.NDArray[np.uint8]
MAX_SECTION = 256 << 20  # bytes; kernels have up to 20 MB of text
_NOTHING: U64Array = np.empty(0, dtype=np.uint64)
# objtool lists here the ENDBR instructions that it proved to be needless, having checked every reference of the image.
# Only kernels built for indirect branch tracking (CONFIG_X86_KERNEL_IBT, ed53a0d97192, 5.18) have the list.
_SEALED = ".ibt_endbr_seal"
_ENDBR = b"\xf3\x0f\x1e\xfa"
# Tables that name places of the text to describe or to patch them; nothing calls through them. Most of their entries
# would be taken for pointers: there are rows and mcount entries for nearly all functions' first bytes.
_DESCRIPTIONS = (
    ".orc_",
    ".BTF",
    ".notes",
    ".smp_locks",
    ".altinstructions",
    ".parainstructions",
    ".retpoline_sites",
    ".return_sites",
    ".call_sites",
    ".cfi_sites",
    _SEALED,
    "__ex_table",
    "__bug_table",
)
_LEA, _RIP_MASK, _RIP = 0x8D, 0xC7, 0x05  # lea, with a ModRM byte that says disp32(%rip)
_JMP, _TWO_BYTES, _JCC, _JCC_MASK = 0xE9, 0x0F, 0x80, 0xF0
_FUNCTIONS = (".text", ".init.text", ".exit.text")
_AUXILIARY = ".altinstr_aux"
_HIGH = 0xFFFF_FFFF_0000_0000  # of every link address of an image
_LOW = 0xFFFF_FFFF


class References:
    """References of one image to its own code, at link addresses. Each kind is looked for when it is first asked about.

    Args:
        image: the image, with contents as built.
        descriptions: [start, end) of tables inside data sections that name text without calling it.
    """

    def __init__(self, image: Image, descriptions: Sequence[tuple[int, int]] = ()) -> None:
        self._image = image
        self._descriptions = descriptions
        sections = [s for s in image.sections if s.flags & SHF_ALLOC and s.type != SHT_NOBITS and s.size]
        self._sections = [s for s in sections if s.size <= MAX_SECTION]
        self._code = [s for s in self._sections if s.flags & SHF_EXECINSTR]
        self._is_whole = self._sections == sections

    def is_pointed_to(self, address: int) -> bool:
        """False only where nothing can hold a pointer to the function that begins at a link address."""
        if not self._is_whole or self._may_be_landed_on(address):
            return True
        if _holds(self._sealed, address):
            return False
        # Nearly all that is ever called through a pointer stands in a table of them, which costs a fraction of the rest.
        return _holds(self._tabled, address) or _holds(self._taken, address)

    def _may_be_landed_on(self, address: int) -> bool:
        """Whether the build left an ENDBR there, having found a pointer; False also where it does not say.

        That it left none proves nothing: start_secondary is called through a pointer before branches are tracked
        (__noendbr).
        """
        if not len(self._sealed) or _holds(self._sealed, address):
            return False
        try:
            return self._image.read(address, len(_ENDBR)) == _ENDBR
        except MemoryFault:
            return True

    def jumps_into(self, start: int, end: int) -> list[int]:
        """Where near jumps into [start, end) are, but those within: link addresses, each of a jump or what looks like one.

        Jumps of one byte's distance are left out: they come from the functions next door. A jump in a replacement of
        other code counts only where it enters at `start`, since its own function is not known; into the middle of a
        function only that function jumps.
        """
        targets, sources = self._jumps
        first, last = np.searchsorted(targets, np.array([start, end], dtype=np.uint64)).tolist()
        pairs = zip(targets[first:last].tolist(), sources[first:last].tolist(), strict=True)
        outside = [(target, source) for target, source in pairs if not start <= source < end]
        return [source for target, source in outside if target == start or self.is_in_function(source)]

    def is_in_function(self, address: int) -> bool:
        """True for code of functions, False for code that stands in for some of theirs, and for no code."""
        section = self._image.section_at(address)
        return section is not None and section.name in _FUNCTIONS

    def is_in_auxiliary(self, address: int) -> bool:
        """True for what functions ask until the boot has patched in the answer (_static_cpu_has): it jumps back to them."""
        section = self._image.section_at(address)
        return section is not None and section.name == _AUXILIARY

    @functools.cached_property
    def _sealed(self) -> U64Array:
        section = self._image.find_section(_SEALED)
        if section is None:
            return _NOTHING
        data = self._image.section_data(_SEALED)
        return np.unique(self_relative(data[: len(data) & ~3], section.address))

    @functools.cached_property
    def _tabled(self) -> U64Array:
        """Addresses in code that aligned words of data hold, in order."""
        found = [_NOTHING]
        for section in self._sections:
            if section not in self._code and not section.name.startswith(_DESCRIPTIONS):
                data = self._contents(section)
                skipped = -section.address % 8
                found.append(self._own(data[skipped : skipped + (len(data) - skipped & ~7)].view("<u8")))
        return np.unique(np.concatenate(found))

    @functools.cached_property
    def _taken(self) -> U64Array:
        """Addresses in code that something in the image holds, or that follow from a distance there, in order."""
        found = [_NOTHING]
        for section in self._sections:
            if section.name.startswith(_DESCRIPTIONS):
                continue
            data = self._contents(section)
            found += self._absolute(data)
            relative = _loaded if section in self._code else _distances
            found.append(self._own(relative(data, section.address)))
        return np.unique(np.concatenate(found))

    def _contents(self, section: Section) -> Bytes:
        """A section's bytes, with zeros where tables only describe."""
        data = np.frombuffer(self._image.elf.data(section), dtype=np.uint8).copy()
        for start, end in self._descriptions:
            data[max(start - section.address, 0) : max(end - section.address, 0)] = 0
        return data

    def _absolute(self, data: Bytes) -> Iterator[U64Array]:
        """Addresses in code that a section holds whole, or as a number of four bytes, as instructions do."""
        first = np.uint32(min(code.address for code in self._code) & _LOW)
        size = np.uint32(max(code.end for code in self._code) - 1 & _LOW) - first
        for phase in range(4):
            words = data[phase : phase + (len(data) - phase & ~3)].view("<u4")
            inside = words[words - first <= size]
            yield self._own(inside.astype(np.uint64) | np.uint64(_HIGH))

    def _own(self, addresses: U64Array) -> U64Array:
        """Those of the addresses that are in code."""
        is_code = np.zeros(len(addresses), dtype=bool)
        for code in self._code:
            is_code |= (addresses >= np.uint64(code.address)) & (addresses < np.uint64(code.end))
        return addresses[is_code]

    @functools.cached_property
    def _jumps(self) -> tuple[U64Array, U64Array]:
        """Targets in order, and where each jump is."""
        targets, sources = [_NOTHING], [_NOTHING]
        for section in self._code:
            data = np.frombuffer(self._image.elf.data(section), dtype=np.uint8)
            plain = np.flatnonzero(data[:-4] == _JMP)
            if_true = np.flatnonzero((data[:-5] == _TWO_BYTES) & (data[1:-4] & _JCC_MASK == _JCC))
            for places, opcode in ((plain, 1), (if_true, 2)):
                targets.append(_targets(data, section.address, places + opcode))
                sources.append(places.astype(np.uint64) + np.uint64(section.address))
        every: U64Array = np.concatenate(targets)
        places_of: U64Array = np.concatenate(sources)
        order = np.argsort(every, kind="stable")
        return every[order], places_of[order]


def _holds(addresses: U64Array, address: int) -> bool:
    index = int(np.searchsorted(addresses, np.uint64(address)))
    return index < len(addresses) and int(addresses[index]) == address


def _loaded(data: Bytes, address: int) -> U64Array:
    """What `lea` computes from rip, for all bytes of text that may be one."""
    places = np.flatnonzero((data[:-5] == _LEA) & (data[1:-4] & _RIP_MASK == _RIP))
    return _targets(data, address, places + 2)


def _distances(data: Bytes, address: int) -> U64Array:
    """What words of four bytes in data refer to, counted from where they are, as entries of __ksymtab do."""
    return self_relative(data[: len(data) & ~3].tobytes(), address)


def _targets(data: Bytes, address: int, places: npt.NDArray[np.intp]) -> U64Array:
    """Where the four bytes at each of the places lead, counted from behind them."""
    distances = np.zeros(len(places), dtype=np.uint32)
    for number in range(4):
        distances |= data[places + number].astype(np.uint32) << np.uint32(8 * number)
    ends = places.astype(np.int64) + 4 + distances.view(np.int32)
    found: U64Array = ends.view(np.uint64) + np.uint64(address)
    return found

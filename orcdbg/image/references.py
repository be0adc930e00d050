"""Which code does the build refer to: whose address does it take, and where do its jumps go?

A pointer to a function has to come from somewhere: the image holds the address, or a distance to it, wherever the kernel or
a module could take it from. What is looked for are bytes, at every place that may be one. Bytes that only look like a
reference make a function look taken that is not, which costs a proof; a reference that is there is not missed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import U64Array, self_relative
from orcdbg.formats.elf import SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, Section
from orcdbg.image.vmlinux import Image
from orcdbg.x86.branches import ENDBR64

Bytes = npt.NDArray[np.uint8]
MAX_SECTION = 256 << 20  # bytes; kernels have up to 20 MB of text
_NOTHING: U64Array = np.empty(0, dtype=np.uint64)
# objtool lists here the ENDBR instructions that it proved to be needless, having checked every reference of the image.
# Only kernels built for indirect branch tracking (CONFIG_X86_KERNEL_IBT, ed53a0d97192, 5.18) have the list.
_SEALED = ".ibt_endbr_seal"
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
_NEEDED = {".text", ".rodata", ".data"}
_TABLES = (".rodata", ".data")
_SEARCHES = 12  # for one function each; for more, all references are found at once
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
        self._searched: dict[tuple[int, int], bool] = {}
        sections = [s for s in image.sections if s.flags & SHF_ALLOC and s.type != SHT_NOBITS and s.size]
        self._sections = [s for s in sections if s.size <= MAX_SECTION]
        self._code = [s for s in self._sections if s.flags & SHF_EXECINSTR]
        # A file of debugging information alone has the sections, but not what is in them.
        names = {section.name for section in sections}
        self._is_whole = self._sections == sections and names >= _NEEDED and bool(self._code)

    def is_listed(self, address: int) -> bool:
        """Whether the function that begins at a link address plainly has pointers to it; False where that is to be sought.

        Nearly all that is ever called through a pointer stands in a table of them, or the build left it an ENDBR.
        """
        if len(self._sealed):
            return self._is_landing(address)
        return self._is_found(address, _TABLES)

    def is_pointed_to(self, address: int) -> bool:
        """False only where nothing can hold a pointer to the function that begins at a link address."""
        if not self._is_whole or self.is_listed(address):
            return True
        # That the build left no ENDBR proves nothing: start_secondary is called through a pointer before branches are
        # tracked (__noendbr). That it took one away again does: it would not have done so beside a pointer.
        if _holds(self._sealed, address):
            return False
        return self._is_found(address, (*_TABLES, ".text")) or _holds(self._taken, address)

    def _is_found(self, address: int, names: Sequence[str]) -> bool:
        """Whether sections hold an address: 1 to 20 ms for the first few, where all references take 140."""
        key = (address, len(names))
        if key not in self._searched:
            is_quicker = len(self._searched) < _SEARCHES and "_taken" not in self.__dict__
            self._searched[key] = self._search(address, names) if is_quicker else _holds(self._taken, address)
        return self._searched[key]

    def _search(self, address: int, names: Sequence[str]) -> bool:
        word, number = address.to_bytes(8, "little"), (address & _LOW).to_bytes(4, "little")
        sections = (self._image.find_section(name) for name in names)
        return any(
            (number if one in self._code else word) in self._contents(one) for one in sections if one is not None
        )

    def _is_landing(self, address: int) -> bool:
        """Whether the build left an ENDBR there, having found a pointer."""
        try:
            has_endbr = self._image.read(address, len(ENDBR64)) == ENDBR64
        except MemoryFault:
            return True
        return has_endbr and not _holds(self._sealed, address)

    def jumps_into(self, start: int, end: int, with_conditional: bool = True) -> list[int]:
        """Where near jumps into [start, end) are, but those within, by link addresses.

        Some are bytes that only look like a jump. Jumps of one byte's distance are left out: they come from the functions
        next door. A jump in a replacement of other code counts only where it enters at `start`, since its own function is
        not known; into the middle of a function only that function jumps.
        """
        found: list[tuple[int, int]] = []
        for targets, places, opcode in [*self._plain_jumps, *(self._conditional_jumps if with_conditional else [])]:
            chosen = np.flatnonzero((targets >= np.uint64(start)) & (targets < np.uint64(end)))
            ends = places[chosen]
            found += zip((ends - np.uint64(opcode)).tolist(), targets[chosen].tolist(), strict=True)
        outside = [(source, target) for source, target in found if not start <= source < end]
        return [source for source, target in outside if target == start or self.is_in_function(source)]

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
    def _taken(self) -> U64Array:
        """Addresses in code that something in the image holds, or that follow from a distance there, in order."""
        found = [_NOTHING]
        for section in self._sections:
            if section.name.startswith(_DESCRIPTIONS):
                continue
            data = np.frombuffer(self._contents(section), dtype=np.uint8)
            found += self._absolute(data)
            relative = _loaded if section in self._code else _distances
            found.append(self._own(relative(data, section.address)))
        return np.unique(np.concatenate(found))

    def _contents(self, section: Section) -> bytes:
        """A section's bytes, with zeros where tables only describe."""
        data = self._image.elf.data(section)
        inside = [(start, end) for start, end in self._descriptions if section.address <= start < end <= section.end]
        if not inside:
            return data
        cleared = bytearray(data)
        for start, end in inside:
            cleared[start - section.address : end - section.address] = bytes(end - start)
        return bytes(cleared)

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
        first, last = min(code.address for code in self._code), max(code.end for code in self._code)
        near = addresses[addresses - np.uint64(first) < np.uint64(last - first)]
        is_code = np.zeros(len(near), dtype=bool)
        for code in self._code:
            is_code |= (near >= np.uint64(code.address)) & (near < np.uint64(code.end))
        return near[is_code]

    @functools.cached_property
    def _plain_jumps(self) -> list[_Jumps]:
        """What may be unconditional jumps, for each section of code."""
        found = []
        for section in self._code:
            data = np.frombuffer(self._image.elf.data(section), dtype=np.uint8)
            found.append(_Jumps.at(data, section.address, np.flatnonzero(data[:-4] == _JMP) + 1, 1))
        return found

    @functools.cached_property
    def _conditional_jumps(self) -> list[_Jumps]:
        """What may be conditional jumps, for each section of code."""
        found = []
        for section in self._code:
            data = np.frombuffer(self._image.elf.data(section), dtype=np.uint8)
            two_bytes = np.flatnonzero(data[:-5] == _TWO_BYTES) + 1
            conditional = two_bytes[data[two_bytes] & _JCC_MASK == _JCC] + 1
            found.append(_Jumps.at(data, section.address, conditional, 2))
        return found


class _Jumps(NamedTuple):
    """Jumps of one section: where they go, where their distances are, and how many bytes stand before those."""

    targets: U64Array
    places: U64Array
    opcode_size: int

    @classmethod
    def at(cls, data: Bytes, address: int, places: npt.NDArray[np.intp], opcode_size: int) -> _Jumps:
        """Those whose distances are at these places of a section's bytes."""
        return cls(_targets(data, address, places), places.astype(np.uint64) + np.uint64(address), opcode_size)


def _holds(addresses: U64Array, address: int) -> bool:
    index = int(np.searchsorted(addresses, np.uint64(address)))
    return index < len(addresses) and int(addresses[index]) == address


def _loaded(data: Bytes, address: int) -> U64Array:
    """What `lea` computes from rip, for all bytes of text that may be one."""
    places = np.flatnonzero(data[:-5] == _LEA) + 1
    return _targets(data, address, places[data[places] & _RIP_MASK == _RIP] + 1)


def _distances(data: Bytes, address: int) -> U64Array:
    """What words of four bytes in data refer to, counted from where they are, as entries of __ksymtab do."""
    return self_relative(data[: len(data) & ~3].tobytes(), address)


def _targets(data: Bytes, address: int, places: npt.NDArray[np.intp]) -> U64Array:
    """Where the four bytes at each of the places lead, counted from behind them."""
    windows = np.ndarray((max(len(data) - 3, 0),), "<i4", data, strides=(1,))
    ends = places + 4 + windows[places]
    found: U64Array = ends.view(np.uint64) + np.uint64(address)
    return found

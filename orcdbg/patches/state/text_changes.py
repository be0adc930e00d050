"""Which instructions is the kernel changing at this moment, and what will they be?

Mirrors text_poke_bp_batch() in arch/x86/kernel/alternative.c, which 6.16 calls smp_text_poke_batch_finish(). It changes many
instructions at once, each in three steps: a breakpoint goes over the first byte, then the other bytes are written, then the
first one. Nobody keeps how far it has come.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import read_s32, read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux

# TP_VEC_MAX: a page of entries of 16 bytes. A false count must not make an audit read more.
MAX_CHANGES = 256
MAX_SIZE = 5  # POKE_MAX_OPCODE_SIZE, of the bytes that an entry keeps


class Change(NamedTuple):
    """One instruction that is being changed.

    Attributes:
        address: of its first byte.
        new: all bytes that it will have.
        first: the byte that stood at `address` before; of an entry whose turn has not come it may be of an earlier change.
    """

    address: int
    new: bytes
    first: int


class TextChanges:
    """The changes that are under way in one stopped kernel.

    Attributes:
        problems: why the list of them may not be whole, once it was asked for.
    """

    def __init__(self, linux: Linux) -> None:
        self._linux = linux
        self.problems: list[str] = []

    @functools.cached_property
    def under_way(self) -> dict[int, Change]:
        """The changes by address; none where nothing is being changed, or where this kernel keeps no list of them."""
        try:
            return {change.address: change for change in self._changes()}
        except OrcdbgError as error:
            self.problems.append(f"the list of changes under way: {error}")
            return {}

    @functools.cached_property
    def is_locked(self) -> bool:
        """Whether somebody holds text_mutex, without which no text is changed."""
        mutex = self._linux.find_address("text_mutex")
        if mutex is None or not self._linux.types.has("mutex", "owner"):
            return False
        try:
            return self._linux.member("mutex", "owner", mutex) != 0
        except OrcdbgError:
            return False

    def _changes(self) -> list[Change]:
        linux = self._linux
        # Since 6.16 (b6a25841c1e3) the list is one variable, and its entries have another name.
        array = linux.find_address("text_poke_array")
        if array is not None and linux.types.has("smp_text_poke_array", "vec"):
            count = linux.member("smp_text_poke_array", "nr_entries", array)
            return self._read("smp_text_poke_loc", array + linux.types.offset("smp_text_poke_array", "vec"), count)

        # Since 5.7 (c3d6324f841b) a description leads to it, which counts its users while it is in use.
        description = linux.find_address("bp_desc")
        if description is None or not linux.types.has("bp_patching_desc", "refs"):
            return []
        if self._is_pointer("bp_desc"):
            description = read_u64(linux.memory, description)
        if not description or not linux.member("bp_patching_desc", "refs", description) & 0xFFFF_FFFF:
            return []
        count = linux.member("bp_patching_desc", "nr_entries", description)
        return self._read("text_poke_loc", linux.member("bp_patching_desc", "vec", description), count)

    def _is_pointer(self, name: str) -> bool:
        """Whether a variable has room for no more than a pointer: until 6.0 (efd608fa7403), in stable kernels less long."""
        found = self._linux.symbols.find(name)
        holder = None if found is None else self._linux.symbols.at(found.address)
        return holder is not None and holder.size <= 8

    def _read(self, struct: str, first: int, count: int) -> list[Change]:
        linux = self._linux
        if not linux.types.has(struct, "rel_addr"):
            return []
        size = linux.types.size(struct)
        text = linux.address("_stext")
        budget = Budget(MAX_CHANGES)
        found = []
        for number in budget.entries(count & 0xFFFF_FFFF, first, "changes of text under way"):
            entry = first + size * number
            address = text + read_s32(linux.memory, entry + linux.types.offset(struct, "rel_addr")) & U64
            code = linux.memory.read(entry + linux.types.offset(struct, "text"), MAX_SIZE)
            length = linux.member(struct, "len", entry) if linux.types.has(struct, "len") else _length(code)
            # Of the six bytes of a conditional jump the first is always the same, and not kept.
            new = b"\x0f" + code if length > MAX_SIZE else code[:length]
            before = linux.member(struct, "old", entry) if linux.types.has(struct, "old") else new[0]
            found.append(Change(address, new, before))
        return found


def _length(code: bytes) -> int:
    """Bytes of an instruction, where an entry does not keep its length: until the 5.10 series got the fix for jumps of six."""
    return {0xCC: 1, 0xC3: 1, 0xEB: 2, 0x66: 2}.get(code[0], MAX_SIZE)

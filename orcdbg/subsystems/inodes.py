"""Which inodes does a file system have in memory, which of them are dirty, and which pages of one are in the page cache?

Mirrors include/linux/fs.h and mm/filemap.c.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.subsystems.containers import lists, xarray
from orcdbg.subsystems.files import INODE_TYPES
from orcdbg.subsystems.pages import PageFrame, Pages
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# Some 10^6 on large machines; each is a microsecond and more.
MAX_INODES = 1 << 18
MAX_CACHED_PAGES = 1 << 18

_DIRTY_NAMES = ("I_DIRTY_SYNC", "I_DIRTY_DATASYNC", "I_DIRTY_PAGES")


@dataclass(frozen=True, slots=True)
class DirtyInode:
    """An inode that has to be written: its address, number, type as in `files`, and the pages of it in the page cache."""

    inode: int
    number: int
    type: str
    pages: int


@dataclass(frozen=True, slots=True)
class CachedPage:
    """An entry of a file's page cache at an index.

    Attributes:
        index: in pages, of its first page.
        page: address of its first `struct page`; None where the entry is a number: a page of shared memory on swap, or the
            trace of one that was dropped.
        frame: what that says, None where it cannot be read, or where there is none.
    """

    index: int
    page: int | None
    frame: PageFrame | None


def _dirty_bits(program: Program) -> int:
    """The bits of i_state that say that something is to be written."""
    found = [program.catalog.enumerator(name) for name in _DIRTY_NAMES]
    known = [each[1] for each in found if each is not None]
    if len(known) == len(_DIRTY_NAMES):
        return known[0] | known[1] | known[2]
    # No enumeration says it up to 6.12. In 6.12 the bits moved up by three, and i_state became a word of 32 bits with it.
    state = program.object("inode", 0).member_("i_state")
    return 0b111 << 3 if state.size_ == 4 else 0b111


def dirty_inodes(superblock: Object, budget: Budget) -> list[DirtyInode]:
    """The inodes of a file system that have to be written.

    Args:
        superblock: the `super_block`, or a pointer to it.
        budget: what the walk draws on, and where problems go.
    """
    dirty = _dirty_bits(superblock.program_)
    found = []
    for inode in lists.entries(superblock.member_("s_inodes"), "inode", "i_sb_list", budget):
        try:
            # Behind 6.12 it became a structure that only helpers look into.
            state = inode.first_of_("i_state.__state", "i_state")
            if state is not None and int(state) & dirty:
                found.append(_dirty_inode(inode))
        except OrcdbgError as error:
            budget.note_error("an inode", inode.address_ or 0, error)
    return found


def _dirty_inode(inode: Object) -> DirtyInode:
    mapping = inode.member_("i_mapping")
    pages = int(mapping.member_("nrpages")) if int(mapping) else 0
    kind = INODE_TYPES.get(stat.S_IFMT(int(inode.member_("i_mode"))), "UNKN")
    return DirtyInode(inode.address_ or 0, int(inode.member_("i_ino")), kind, pages)


def cached_pages(inode: Object, pages: Pages, budget: Budget) -> list[CachedPage]:
    """What the page cache holds of a file, by index; pages that belong together by their first.

    Raises:
        MemoryFault: the inode cannot be read.
    """
    mapping = inode.member_("i_mapping")
    if not int(mapping):
        return []
    found = []
    for entry in xarray.entries(mapping.member_("i_pages"), budget):
        if xarray.is_value(entry.value):
            found.append(CachedPage(entry.index, None, None))
            continue
        frame = None
        try:
            frame = pages.read(entry.value)
        except OrcdbgError as error:
            budget.note_error("a page", entry.value, error)
        found.append(CachedPage(entry.index, entry.value, frame))
    return found

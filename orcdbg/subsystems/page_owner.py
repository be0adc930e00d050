"""Whose is a page of a file or of anonymous memory?

Mirrors dump_mapping() of fs/inode.c, and include/linux/rmap.h.
"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget, Chain
from orcdbg.subsystems.pages import PageFrame, PageUse
from orcdbg.subsystems.paths import name_of
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

_MAX_PARTS = 4096


@dataclass(frozen=True, slots=True)
class PageOwner:
    """Whose a page is.

    Attributes:
        mapping: address of the `address_space`, or of the `anon_vma`.
        is_anonymous: whether it is the latter.
        inode: address of the inode; 0 of anonymous memory.
        inode_number: its number.
        device: the name of the file system's device, s_id.
        file_system: the file system's type.
        path: from the file system's own root, by the inode's first name; None where it has no name in memory.
        offset: of the page in the file, in bytes; of anonymous memory by its area's numbering.
    """

    mapping: int
    is_anonymous: bool
    inode: int
    inode_number: int
    device: str
    file_system: str
    path: str | None
    offset: int


def owner_of(program: Program, page: PageFrame, budget: Budget) -> PageOwner | None:
    """Whose a page is; None where it has no mapping.

    Args:
        program: the kernel's typed data.
        page: the page.
        budget: what the walk up to the file system's root draws on, and where problems go.
    """
    if not page.mapping or page.use not in (PageUse.ANONYMOUS, PageUse.FILE):
        return None
    offset = page.index * PAGE
    if page.use is PageUse.ANONYMOUS:
        return PageOwner(page.mapping, True, 0, 0, "", "", None, offset)
    try:
        return _file_owner(program, page, budget, offset)
    except OrcdbgError as error:
        budget.note_error("the file of a page", page.mapping, error)
        return PageOwner(page.mapping, False, 0, 0, "", "", None, offset)


def _file_owner(program: Program, page: PageFrame, budget: Budget, offset: int) -> PageOwner:
    inode = program.object("address_space", page.mapping).member_("host")
    if not int(inode):
        return PageOwner(page.mapping, False, 0, 0, "", "", None, offset)
    superblock = inode.member_("i_sb")
    return PageOwner(
        page.mapping,
        False,
        int(inode),
        int(inode.member_("i_ino")),
        superblock.member_("s_id").string_(64),
        superblock.member_("s_type").member_("name").string_(64),
        inode_path(inode, budget),
        offset,
    )


def inode_path(inode: Object, budget: Budget) -> str | None:
    """A path of an inode from its file system's root, by the first of its names; None where it has none in memory."""
    program = inode.program_
    node = int(inode.member_("i_dentry.first"))
    if not node:
        return None
    alias = "d_u.d_alias" if program.linux.types.has("dentry", "d_u.d_alias") else "d_alias"
    dentry = program.value("struct hlist_node *", node).container_of_("dentry", alias)

    def parent_of(address: int) -> int:
        parent = int(program.object("dentry", address).member_("d_parent"))
        return 0 if parent == address else parent

    share = budget.share(_MAX_PARTS)
    parts = [
        name_of(program.value(dentry.type_, address))
        for address in Chain(int(dentry), parent_of, share, "the directories above a file")
    ]
    budget.settle(share)
    # A file system's root is its own parent, and named `/`; of pipes and memfds that is no folder.
    if parts and parts[-1] == "/":
        parts.pop()
        return "/" + "/".join(reversed(parts))
    return "/".join(reversed(parts))

"""What is the path of this file, across the mounts that it lies below?

Mirrors fs/d_path.c, prepend_path(), and the d_dname functions of file systems without a tree.
"""

from __future__ import annotations

from orcdbg.base.errors import MemoryFault
from orcdbg.base.walks import Budget, Chain, WalkOutcome
from orcdbg.typed.objects import Object

# A name's bytes are counted by a 32-bit number in memory; NAME_MAX is 255.
_LONGEST_NAME = 255
# Directories above each other, and mounts; Linux itself gives paths of a page at most.
MAX_PARTS = 4096

# File systems whose files have no place in a tree, by the name of their type: what their names look like.
_NAMES_BY_INODE = {"pipefs": "pipe:[{}]", "sockfs": "socket:[{}]"}


def name_of(dentry: Object) -> str:
    """A directory entry's own name, undecodable bytes as backslash escapes."""
    length = min(int(dentry.member_("d_name.len")), _LONGEST_NAME)
    data = dentry.program_.memory.read(int(dentry.member_("d_name.name")), length)
    return data.decode("utf-8", "backslashreplace")


def mount_of(vfsmount: Object) -> Object:
    """A pointer to the `struct mount` around what a pointer to `struct vfsmount` points to."""
    return vfsmount.container_of_("struct mount", "mnt")


def path_of(path: Object, budget: Budget) -> str:
    """The path of a `struct path`: of a file, a working directory, a root."""
    return path_text(path.member_("mnt"), path.member_("dentry"), budget)


def path_text(vfsmount: Object, dentry: Object, budget: Budget) -> str:
    """The path of a directory entry below a mount, as /proc shows it.

    Args:
        vfsmount: a pointer to the `struct vfsmount`.
        dentry: a pointer to the `struct dentry`.
        budget: what the walk draws on.
    """
    special = _without_tree(dentry)
    if special is not None:
        return special
    parts: list[str] = []
    where = dentry
    mount = mount_of(vfsmount)
    first = int(mount)

    def parent_of(address: int) -> int:
        parent = int(mount.member_("mnt_parent"))
        return 0 if parent == address else parent

    share = budget.share(MAX_PARTS)
    for address in Chain(first, parent_of, share, "the mounts above a file"):
        if address != first:
            where = mount.member_("mnt_mountpoint")
            mount = mount.member_("mnt_parent")
        is_whole = _names_below(where, int(mount.member_("mnt.mnt_root")), parts, share)
        if not is_whole:
            parts.append("(unreachable)")
            break
    budget.settle(share)
    text = "/" + "/".join(reversed(parts)) if not parts or parts[-1] != "(unreachable)" else "/".join(reversed(parts))
    return text + (" (deleted)" if _is_deleted(dentry) else "")


def _names_below(dentry: Object, root: int, parts: list[str], budget: Budget) -> bool:
    """Adds the names from an entry up to a mount's root; False where they end elsewhere."""
    entry = dentry

    def parent_of(address: int) -> int:
        parent = int(entry.member_("d_parent"))
        # A file system's own root is its own parent.
        return 0 if parent == address else parent

    chain = Chain(int(dentry), parent_of, budget, "the directories above a file", ends=(0, root))
    for address in chain:
        entry = dentry.program_.value(dentry.type_, address)
        parts.append(name_of(entry))
    if int(entry) == root or int(dentry) == root:
        return True
    # The last one met may be a root that this mount does not show.
    if chain.end is WalkOutcome.ENDED and int(entry.member_("d_parent")) != root:
        parts.pop()
        return False
    return chain.end is WalkOutcome.ENDED


def _is_deleted(dentry: Object) -> bool:
    """d_unlinked(): it hangs in no hash table, and is not a root."""
    try:
        return not int(dentry.member_("d_hash.pprev")) and int(dentry.member_("d_parent")) != int(dentry)
    except MemoryFault:
        return False


def _without_tree(dentry: Object) -> str | None:
    """The name of a pipe, socket or the like; None for a file in a tree."""
    operations = dentry.member_("d_op")
    if not int(operations) or not int(operations.member_("d_dname")):
        return None
    inode = dentry.member_("d_inode")
    number = int(inode.member_("i_ino")) if int(inode) else 0
    file_system = dentry.member_("d_sb").member_("s_type").member_("name").string_(64)
    if file_system in _NAMES_BY_INODE:
        return _NAMES_BY_INODE[file_system].format(number)
    if file_system == "anon_inodefs":
        return f"anon_inode:{name_of(dentry)}"
    if file_system == "nsfs":
        # ns_dname(): the kind of namespace is in its operations, which hang on the entry.
        operations = dentry.program_.value("struct proc_ns_operations *", int(dentry.member_("d_fsdata")))
        word = operations.member_("name").string_(32) if int(operations) else "ns"
        return f"{word}:[{number}]"
    # simple_dname(): a file without a name, as of memfd and shared memory.
    return f"/{name_of(dentry)} (deleted)"

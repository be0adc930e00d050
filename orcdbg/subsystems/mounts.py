"""Which file systems are mounted where?

Mirrors fs/mount.h, fs/namespace.c, fs/proc_namespace.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.subsystems.containers import lists, rbtree
from orcdbg.subsystems.kernel_variables import variable
from orcdbg.subsystems.paths import path_text
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# sysctl_mount_max is 100,000 in a namespace.
MAX_MOUNTS = 1 << 18
_LONGEST_NAME = 4096

# What /proc/mounts shows of a super block's and of a mount's flags (include/linux/fs.h, include/linux/mount.h).
_SB_RDONLY = 0x01
_SB_FLAGS = ((0x10, "sync"), (0x80, "dirsync"), (0x40, "mand"), (1 << 25, "lazytime"))
_MNT_READONLY = 0x40
_MNT_FLAGS = (
    (0x01, "nosuid"),
    (0x02, "nodev"),
    (0x04, "noexec"),
    (0x08, "noatime"),
    (0x10, "nodiratime"),
    (0x20, "relatime"),
    (0x80, "nosymfollow"),
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    Attributes:
        mount: address of the `struct mount`.
        superblock: address of the `struct super_block`.
        type: the file system's name.
        device: what was mounted.
        path: where, from the root of the mount tree; None where it cannot be read.
        options: those that belong to all file systems, such as `ro`, `nosuid`.
    """

    mount: int
    superblock: int
    type: str
    device: str
    path: str | None
    options: tuple[str, ...]


def namespace_of(program: Program, task: Object | None) -> Object:
    """The `mnt_namespace` of a task, or of the first process where none is given; a pointer."""
    task = variable(program, "init_task", "task_struct") if task is None else task
    proxy = task.member_("nsproxy")
    if not int(proxy):
        # A task that ended has none: its namespace is the one that everything began in.
        proxy = variable(program, "init_task", "task_struct").member_("nsproxy")
    return proxy.member_("mnt_ns")


def _mounts(namespace: Object, budget: Budget) -> Iterator[Object]:
    """The `struct mount`s of a namespace."""
    if namespace.has_member_("list"):
        return lists.entries(namespace.member_("list"), "struct mount", "mnt_list", budget)
    # Since 6.8 (2eea9ce4310d) they are in a tree by their number.
    return rbtree.entries(namespace.member_("mounts"), "struct mount", "mnt_node", budget)


def mounts(namespace: Object, budget: Budget) -> list[Mount]:
    """The mounts of a namespace.

    Args:
        namespace: a pointer to the `mnt_namespace`.
        budget: what the walk draws on, and where problems go.
    """
    found: list[Mount] = []
    for mount in _mounts(namespace, budget):
        # Before 6.8 readers of /proc/mounts left a cursor in the list: a mount without a file system.
        try:
            if int(mount.member_("mnt.mnt_sb")):
                found.append(_mount(mount, budget))
        except OrcdbgError as error:
            budget.note_error("a mount", mount.address_ or 0, error)
    return found


def _mount(mount: Object, budget: Budget) -> Mount:
    superblock = mount.member_("mnt.mnt_sb")
    kind = superblock.member_("s_type").member_("name").string_(64)
    subtype = superblock.member_("s_subtype")
    if int(subtype):
        kind += f".{subtype.string_(64)}"
    device = mount.member_("mnt_devname")
    try:
        path: str | None = path_text(mount.member_("mnt").address_of_(), mount.member_("mnt.mnt_root"), budget)
    except OrcdbgError as error:
        budget.note_error("a mount's path", mount.address_ or 0, error)
        path = None
    return Mount(
        mount.address_ or 0,
        int(superblock),
        kind,
        device.string_(_LONGEST_NAME) if int(device) else "none",
        path,
        _options(int(superblock.member_("s_flags")), int(mount.member_("mnt.mnt_flags"))),
    )


def _options(of_superblock: int, of_mount: int) -> tuple[str, ...]:
    """As show_vfsmnt() has them, without those of the file system itself."""
    is_read_only = of_superblock & _SB_RDONLY or of_mount & _MNT_READONLY
    words = ["ro" if is_read_only else "rw"]
    words += [word for bit, word in _SB_FLAGS if of_superblock & bit]
    words += [word for bit, word in _MNT_FLAGS if of_mount & bit]
    return tuple(words)

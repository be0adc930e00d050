"""Which files has a task open?

Mirrors include/linux/fdtable.h and fs/file.c.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.subsystems.kernel_variables import bits_of
from orcdbg.subsystems.paths import path_of
from orcdbg.typed.objects import Object

# sysctl_nr_open_max is far higher; a table of more is a count that lies.
MAX_DESCRIPTORS = 1 << 20
# Of all tasks that one answer shows.
MAX_FILES = 1 << 20

# As crash calls them.
INODE_TYPES = {
    stat.S_IFREG: "REG",
    stat.S_IFDIR: "DIR",
    stat.S_IFCHR: "CHR",
    stat.S_IFBLK: "BLK",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "SOCK",
    stat.S_IFLNK: "LNK",
}


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that a task has open.

    Attributes:
        descriptor: its number in the task.
        file: address of the `struct file`.
        dentry: address of the directory entry.
        inode: address of the inode.
        type: `REG`, `DIR`, `CHR`, `BLK`, `FIFO`, `SOCK`, `LNK`; `UNKN` where the inode has no type, as of epoll.
        path: from the root of the mount tree; `pipe:[INODE]` and the like for what has no path; None where it cannot be read.
        position: f_pos.
        flags: f_flags, those of open().
        mapping: address of the `address_space` that its pages are in, 0 without one.
        pages: how many pages of it the page cache holds; huge ones count as many.
    """

    descriptor: int
    file: int
    dentry: int
    inode: int
    type: str
    path: str | None
    position: int
    flags: int
    mapping: int
    pages: int


@dataclass(frozen=True, slots=True)
class FileTable:
    """A task's root, working directory and open files; what cannot be read is None."""

    root: str | None
    working_directory: str | None
    files: list[OpenFile]


def file_table(task: Object, budget: Budget) -> FileTable:
    """What a task has open; a kernel thread, and a task that ended, nothing.

    Args:
        task: its `task_struct`.
        budget: what the walk draws on, and where problems go.
    """
    inside = task.member_("fs")
    root = working = None
    if int(inside):
        root = _path_or_none(inside.member_("root"), budget)
        working = _path_or_none(inside.member_("pwd"), budget)
    return FileTable(root, working, list(open_files(task, budget)))


def open_files(task: Object, budget: Budget) -> list[OpenFile]:
    """The files of a task, by their descriptors."""
    table = task.member_("files")
    if not int(table):
        return []
    found: list[OpenFile] = []
    for descriptor, pointer in descriptors(table, budget):
        try:
            found.append(_open_file(descriptor, pointer.deref_(), budget))
        except OrcdbgError as error:
            budget.note_error(f"descriptor {descriptor}", int(pointer), error)
    return found


def descriptors(table: Object, budget: Budget) -> list[tuple[int, Object]]:
    """Numbers, and pointers to the `struct file`, of a `files_struct`."""
    inside = table.member_("fdt")
    address = int(inside)
    try:
        limit = int(inside.member_("max_fds"))
        if limit > MAX_DESCRIPTORS:
            budget.entries(limit, address, "file descriptors")
        numbers = bits_of(inside.member_("open_fds").deref_(), min(limit, MAX_DESCRIPTORS))
        pointers = inside.member_("fd")
        found = []
        for number in numbers:
            if not budget.take("open files", address):
                break
            pointer = pointers[number]
            # Between the bit's setting and fd_install() there is no file yet.
            if int(pointer):
                found.append((number, pointer))
        return found
    except OrcdbgError as error:
        budget.note_error("a table of file descriptors", address, error)
        return []


def _open_file(descriptor: int, file: Object, budget: Budget) -> OpenFile:
    inode = file.member_("f_inode")
    mode = int(inode.member_("i_mode")) if int(inode) else 0
    mapping = int(inode.member_("i_mapping")) if int(inode) else 0
    pages = int(inode.member_("i_mapping").member_("nrpages")) if mapping else 0
    return OpenFile(
        descriptor,
        file.address_ or 0,
        int(file.member_("f_path.dentry")),
        int(inode),
        INODE_TYPES.get(stat.S_IFMT(mode), "UNKN"),
        _path_or_none(file.member_("f_path"), budget),
        int(file.member_("f_pos")),
        int(file.member_("f_flags")),
        mapping,
        pages,
    )


def _path_or_none(path: Object, budget: Budget) -> str | None:
    try:
        return path_of(path, budget)
    except OrcdbgError as error:
        budget.note_error("a path", path.address_ or 0, error)
        return None

"""How do mounted file systems look?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orcdbg.commands.mount import MountFiles, MountInodes, Mounts
from orcdbg.subsystems.mounts import Mount
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.task_heading import task_json
from orcdbg.views.view import Json, Width, view

_FILE_ADDRESSES = ("file", "dentry", "inode", "mapping")
_UNREADABLE = "(unreadable)"


def _mount_lines(mounts: Sequence[Mount]) -> Iterator[Line]:
    rows = (
        (address(m.mount), address(m.superblock), m.type, m.device, m.path or _UNREADABLE, ",".join(m.options))
        for m in mounts
    )
    yield from columns(("MOUNT", "SUPERBLK", "TYPE", "DEVNAME", "DIRNAME", "OPTIONS"), rows, symbol=4)


def _lines(result: Mounts, width: Width) -> Iterator[Line]:
    yield from _mount_lines(result.mounts)
    yield from problem_lines(result.problems)


def _mount_json(mount: Mount) -> Json:
    return record(mount, ("mount", "superblock"))


def _json(result: Mounts) -> Json:
    return {"mounts": [_mount_json(mount) for mount in result.mounts], "problems": list(result.problems)}


def _file_lines(result: MountFiles, width: Width) -> Iterator[Line]:
    for number, (mount, files) in enumerate(result.mounts):
        if number:
            yield []
        yield from _mount_lines([mount])
        if not files:
            yield line(("No open files", "note"))
            continue
        rows = (
            (task.pid, file.descriptor, address(file.dentry), address(file.inode), file.type, file.path or _UNREADABLE)
            for task, file in files
        )
        yield from columns((">PID", ">FD", "DENTRY", "INODE", "TYPE", "PATH"), rows)
    yield from problem_lines(result.problems)


def _file_json(result: MountFiles) -> Json:
    mounts = [
        _mount_json(mount) | {"files": [task_json(task) | record(file, _FILE_ADDRESSES) for task, file in files]}
        for mount, files in result.mounts
    ]
    return {"mounts": mounts, "problems": list(result.problems)}


def _inode_lines(result: MountInodes, width: Width) -> Iterator[Line]:
    for number, (mount, inodes) in enumerate(result.mounts):
        if number:
            yield []
        yield from _mount_lines([mount])
        if not inodes:
            yield line(("No dirty inodes", "note"))
            continue
        rows = ((address(inode.inode), inode.number, inode.type, inode.pages) for inode in inodes)
        yield from columns(("INODE", ">I_INO", "TYPE", ">NRPAGES"), rows, symbol=0)
    yield from problem_lines(result.problems)


def _inode_json(result: MountInodes) -> Json:
    mounts = [
        _mount_json(mount) | {"inodes": [record(inode, ("inode",)) for inode in inodes]}
        for mount, inodes in result.mounts
    ]
    return {"mounts": mounts, "problems": list(result.problems)}


view(Mounts, text=_lines, json=_json)
view(MountFiles, text=_file_lines, json=_file_json)
view(MountInodes, text=_inode_lines, json=_inode_json)

"""What can a process that answers an assistant not do any more, whatever its commands say of themselves?

This is a net under what commands declare (`Effect`) and under the check of paths (`folders.py`), for a command that declares
too little, and for the files that a snapshot leads to by itself: the memory beside a VMware snapshot, debugging information
that was split off. Python asks the hook before it opens a file, starts a program or makes a socket. It is no sandbox: what
native code opens by itself is not asked about.
"""

from __future__ import annotations

import errno
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEW = os.O_CREAT | os.O_EXCL

_REFUSED = frozenset(
    (
        *(
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.spawn",
            "os.fork",
            "os.forkpty",
            "pty.spawn",
        ),
        *("os.rename", "os.link", "os.symlink", "os.truncate", "os.mkdir", "os.rmdir", "os.chmod", "os.chown"),
        *("os.utime", "os.setxattr", "os.removexattr", "os.kill", "os.killpg", "signal.pthread_kill"),
        *("socket.__new__", "socket.connect", "socket.bind"),
    )
)

# Split-off debugging information, and what Python and its libraries look at by themselves.
_ALWAYS_READABLE = (
    "/usr/lib/debug",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/proc/self",
    "/dev/null",
    "/dev/urandom",
)


def _of_python() -> list[str]:
    """Where modules are loaded from: they are, when a command is first asked for."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    places = [sysconfig.get_path(kind) for kind in kinds]
    return [*places, *(place for place in sys.path if place), str(Path(__file__).resolve().parents[1])]


class _Hook:
    """Python's audit hook, which raises where something is refused; it cannot be taken off again."""

    def __init__(self, readable: Iterable[str]) -> None:
        places = [*readable, *_ALWAYS_READABLE, *_of_python()]
        self._readable = tuple({os.path.realpath(place) for place in places})
        # Asked for now: the first time it tries out where a file can be made.
        self._temporary = os.path.realpath(tempfile.gettempdir())

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            self._check_open(path, flags)
        elif event == "os.remove":
            self._check_removal(arguments[0])
        elif event in _REFUSED:
            raise PermissionError(errno.EPERM, f"not done by a confined process ({event})")

    def _check_open(self, path: Any, flags: Any) -> None:
        if isinstance(path, int):
            return  # it is open already
        real = os.path.realpath(os.fsdecode(path))
        flags = flags if isinstance(flags, int) else 0

        if flags & _WRITES or flags & os.O_TMPFILE == os.O_TMPFILE:
            # What is unpacked may go through a file without a name, or one that is new and is removed at once.
            is_nameless = flags & os.O_TMPFILE == os.O_TMPFILE and real == self._temporary
            is_new = flags & _NEW == _NEW and Path(real).parent == Path(self._temporary)
            if not is_nameless and not is_new:
                raise PermissionError(errno.EPERM, "a confined process writes nothing", path)
        elif not any(Path(real).is_relative_to(place) for place in self._readable):
            raise PermissionError(errno.EPERM, "not below the folders that may be read", path)

    def _check_removal(self, path: Any) -> None:
        if Path(os.path.realpath(os.fsdecode(path))).parent != Path(self._temporary):
            raise PermissionError(errno.EPERM, "a confined process removes nothing", path)


def confine(readable: Iterable[str]) -> None:
    """From now on this process writes no file, starts no program, and reads files below these folders and its own alone.

    Args:
        readable: the folders, and single files.
    """
    sys.dont_write_bytecode = True
    sys.addaudithook(_Hook(readable))

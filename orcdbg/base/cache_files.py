"""Which of the files that earlier runs kept are this user's own, and how is one kept for the next run?

They lie in a folder below `$XDG_CACHE_HOME/orcdbg`, and are taken only where nobody else can have written them: what is in them
is believed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from orcdbg.base.errors import UnsupportedFormat, UsageError
from orcdbg.base.inputs import remember

_OTHERS_MAY_WRITE = 0o022


class CacheFiles:
    """The files of one kind.

    Args:
        kind: the folder's name.
        environment: where XDG_CACHE_HOME is from; a relative one counts for nothing, as its specification says.

    Attributes:
        folder: where they are.
    """

    def __init__(self, kind: str, environment: Mapping[str, str]) -> None:
        cache = Path(environment.get("XDG_CACHE_HOME", ""))
        self.folder = (cache if cache.is_absolute() else Path.home() / ".cache") / "orcdbg" / kind

    def read(self, name: str, limit: int) -> bytes | None:
        """At most `limit` bytes of a file; None where there is none.

        Raises:
            UsageError: what is there may be somebody else's.
            UnsupportedFormat: it is no regular file.
        """
        path = str(self.folder / name)
        try:
            within = self._open_folder()
        except OSError:
            return None
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=within)
        except OSError:
            return None
        finally:
            os.close(within)

        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(file.fileno())
            _refuse_others(info, path)
            if not stat.S_ISREG(info.st_mode):
                raise UnsupportedFormat(path, "not a regular file")
            remember(path)
            return file.read(limit)

    def write(self, name: str, data: bytes) -> None:
        """Keeps a file; one of that name is replaced as a whole.

        Raises:
            UsageError: it cannot be written, or the folder may be somebody else's.
        """
        temporary = f".{name}.{os.getpid()}"
        try:
            self.folder.parent.parent.mkdir(parents=True, exist_ok=True)
            for path in (self.folder.parent, self.folder):
                path.mkdir(mode=0o700, exist_ok=True)
            within = self._open_folder()
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=within), "wb") as file:
                    try:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                        os.rename(temporary, name, src_dir_fd=within, dst_dir_fd=within)
                    except BaseException:
                        os.unlink(temporary, dir_fd=within)
                        raise
            finally:
                os.close(within)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be written: {error.strerror}") from error

    def _open_folder(self) -> int:
        """A descriptor of the folder. All files in it are opened by that, so that nobody can put another one in its place.

        Raises:
            OSError: it is not there, or is a link, or the folder that it is in is one.
            UsageError: others own it, or may write there.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = os.open(self.folder.parent.parent, flags)
        try:
            for path in (self.folder.parent, self.folder):
                below = os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
                _refuse_others(os.fstat(descriptor), str(path))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _refuse_others(info: os.stat_result, path: str) -> None:
    if info.st_uid != os.geteuid() or info.st_mode & _OTHERS_MAY_WRITE:
        raise UsageError(f"{path}: not used: others own it or may write there", "remove it, or set XDG_CACHE_HOME")

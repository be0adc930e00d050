"""Which snapshots are open, by which handles, and which process answers for each?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.mcp.child import Child
from orcdbg.mcp.folders import Folders
from orcdbg.mcp.messages import Opening, Question, Reply

MAX_OPEN = 8
"""Snapshots at once: each is a process, of some 100 MB for a distribution's kernel."""
SAMPLE = "demo"


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What the user allows.

    Attributes:
        seconds: for a command.
        page: characters of a page.
        plugins: files of plug-ins to load.
        debug_folders: where split-off debugging information is looked for.
    """

    seconds: float
    page: int
    plugins: Sequence[str] = ()
    debug_folders: Sequence[str] = ()


@dataclass(slots=True)
class OpenSnapshot:
    """A snapshot that was opened, and its process; None where it has to be opened anew."""

    handle: str
    opening: Opening
    child: Child | None
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Snapshots:
    """The open ones.

    Args:
        folders: below which files may be opened.
        limits: what the user allows.
    """

    def __init__(self, folders: Folders, limits: CallLimits) -> None:
        self._folders = folders
        self._limits = limits
        self._open: dict[str, OpenSnapshot] = {}
        self._opened = 0  # handles are not used again: an old one must not mean another snapshot

    @property
    def all(self) -> list[OpenSnapshot]:
        """All of them, in the order in which they were opened."""
        return list(self._open.values())

    async def open(
        self, files: Sequence[str], modules: Sequence[str], sources: Sequence[str], btf: str | None
    ) -> tuple[OpenSnapshot, Reply]:
        """Opens a snapshot; with it comes what its first command says.

        Raises:
            UsageError: a path leads out of the folders, or there are too many snapshots.
            OrcdbgError: it takes too long.
        """
        if len(self._open) + 1 > MAX_OPEN:
            raise UsageError(f"{MAX_OPEN} snapshots are open", "close one first")
        folders = self._folders
        opening = Opening(
            files if list(files) == [SAMPLE] else [folders.file(name) for name in files],
            [folders.folder(name) for name in modules],
            [folders.folder(name) for name in sources],
            None if btf is None else folders.file_or_folder(btf),
            self._limits.debug_folders,
            self._limits.plugins,
            folders.paths,
        )
        child, reply = await self._begin(opening)
        self._opened += 1
        opened = OpenSnapshot(f"s{self._opened}", opening, child)
        if child is not None:
            self._open[opened.handle] = opened
        return opened, reply

    async def _begin(self, opening: Opening) -> tuple[Child | None, Reply]:
        """A process with that snapshot, None where it cannot be opened, and what it says."""
        child = await Child.start()
        try:
            reply = await child.ask(opening, self._limits.seconds)
        except BaseException:
            await child.end()
            raise
        if not reply.ok:
            await child.end()
            return None, reply
        return child, reply

    async def ask(self, handle: str, question: Question, seconds: float | None = None) -> tuple[Reply, bool]:
        """What a snapshot's process answers, and whether the snapshot was opened anew for that.

        Args:
            handle: which snapshot.
            question: the command.
            seconds: how long it may take, where that is less than the user allows.

        Raises:
            NotFound: no such handle.
            OrcdbgError: the command took too long, or its process ended.
        """
        opened = self._find(handle)
        async with opened.lock:
            is_new = opened.child is None or not opened.child.is_alive
            if opened.child is None or is_new:
                opened.child, reply = await self._begin(opened.opening)
                if opened.child is None:
                    return reply, True
            allowed = self._limits.seconds
            return await opened.child.ask(question, allowed if seconds is None else min(seconds, allowed)), is_new

    async def close(self, handle: str) -> None:
        """Closes a snapshot; NotFound for no such handle."""
        opened = self._find(handle)
        del self._open[handle]
        if opened.child is not None:
            await opened.child.end()

    def _find(self, handle: str) -> OpenSnapshot:
        if handle not in self._open:
            known = ", ".join(self._open) or "none is open"
            raise NotFound("snapshot", handle, f"open ones: {known}")
        return self._open[handle]

    @asynccontextmanager
    async def until_left(self) -> AsyncIterator[None]:
        """Ends all processes when it is left."""
        try:
            yield
        finally:
            for opened in self.all:
                if opened.child is not None:
                    await opened.child.end()

"""How does the server speak with the process of a snapshot, and end what takes too long?"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from orcdbg.base.errors import OrcdbgError
from orcdbg.mcp.messages import MAX_LINE, Opening, Question, Reply, encode, parse_reply

# How long a command may take to stop after Ctrl-C before its process is killed: what it reads is bounded between two looks.
GRACE = 3.0
SIGINT_EVERY = 0.25
WORKER = (sys.executable, "-P", "-m", "orcdbg.cli.mcp_worker")

_BROKEN = (
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    ValueError,
)


class TookTooLong(OrcdbgError):
    """A command was ended when its time was over; `is_alive` is whether the process lives on."""

    def __init__(self, seconds: float, is_alive: bool) -> None:
        after = "" if is_alive else " The snapshot is opened anew for the next one: selection and settings begin anew."
        super().__init__(
            f"the command was ended after {seconds:g} s.{after}",
            "ask for less: one task, one structure; or start orcdbg mcp with a larger --seconds",
        )
        self.is_alive = is_alive


class ProcessEnded(OrcdbgError):
    """The process of a snapshot is no more."""

    def __init__(self, status: int | None) -> None:
        how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        super().__init__(
            f"the process that had the snapshot ended ({how}). It is opened anew for the next command: "
            "selection and settings begin anew."
        )


class Child:
    """A process that answers for one snapshot; one question at a time.

    Args:
        process: with pipes at its standard streams.
    """

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._questions = process.stdin
        self._replies = BufferedByteReceiveStream(process.stdout)
        self.is_alive = True

    @classmethod
    async def start(cls, command: Sequence[str] = WORKER) -> Child:
        """A new process."""
        return cls(await anyio.open_process(list(command), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL))

    async def ask(self, message: Opening | Question, seconds: float) -> Reply:
        """The reply to a message.

        Raises:
            TookTooLong: the time was over.
            ProcessEnded: the process is no more, or said what is no reply.
        """
        try:
            with anyio.fail_after(seconds):
                await self._questions.send(encode(message))
                return await self._receive()
        except TimeoutError:
            await self._stop()
            raise TookTooLong(seconds, self.is_alive) from None
        except anyio.get_cancelled_exc_class():
            # Whoever asked no longer waits; the next question must not get this one's answer.
            with anyio.CancelScope(shield=True):
                await self._stop()
            raise
        except _BROKEN:
            await self.end()
            raise ProcessEnded(self._process.returncode) from None

    async def _receive(self) -> Reply:
        return parse_reply(await self._replies.receive_until(b"\n", MAX_LINE))

    async def _stop(self) -> None:
        """Has the command end as Ctrl-C does, and its process where that does not help."""
        try:
            with anyio.fail_after(GRACE):
                await self._interrupted()
        except (TimeoutError, ProcessLookupError, *_BROKEN):
            await self.end()

    async def _interrupted(self) -> None:
        """Waits for the reply, with a SIGINT again and again: on a busy machine the command may not have begun at the first."""
        while True:
            self._process.send_signal(signal.SIGINT)
            with anyio.move_on_after(SIGINT_EVERY):
                await self._receive()
                return

    async def end(self) -> None:
        """Ends the process."""
        self.is_alive = False
        with anyio.CancelScope(shield=True):
            try:
                self._process.kill()
            except ProcessLookupError:
                pass  # it is over already
            await self._process.aclose()

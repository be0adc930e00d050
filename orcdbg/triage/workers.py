"""Who works on a dump, and what becomes of a worker that hangs, takes too much memory, or dies?

Each dump has a process of its own. Native code that falls over hostile data, or does not return, takes no other dump with it,
and what a dump took is given back. Nothing that a worker says is unpickled: it writes JSON into a file without a name, and how
it ended is seen from outside.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orcdbg.base.errors import OrcdbgError
from orcdbg.triage.jobs import DumpLimits, Job, encode_job
from orcdbg.triage.records import Cost, Failure, LimitKind

# How often it is looked whether a worker is done, or takes too much.
POLL = 0.02
# A page has some 100 KB; a log of 64 MiB is the longest thing that may be in one.
MAX_ANSWER = 192 << 20
# A worker that died is begun anew once: the system may have been out of memory for a moment.
MAX_ATTEMPTS = 2
_MAX_MESSAGE = 256
_MORE = "allow more with --seconds or --memory"
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a job.

    Attributes:
        job: the job.
        answer: what the worker said; None where it did not.
        failure: why it said nothing.
        cost: what it took.
        attempts: how many workers began on it.
    """

    job: Job
    answer: dict[str, Any] | None
    failure: Failure | None
    cost: Cost
    attempts: int = 1


class DumpWorker:
    """A process that works on jobs, one at a time: a server that forks a process for each (`fork_server.py`).

    Args:
        command: what to run; its last word becomes the number of the socket's descriptor.
        limits: what a job may take.

    Raises:
        OrcdbgError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], limits: DumpLimits) -> None:
        self._limits = limits
        self._current: _Current | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise OrcdbgError(f"a worker cannot be started: {error.strerror}") from error
        ours.setblocking(False)
        self._socket = ours

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a job."""
        return self._current is None

    @property
    def worker_pid(self) -> int:
        """The process that was forked for the job; 0 while it is not known."""
        return 0 if self._current is None else self._current.pid

    def begin(self, job: Job, attempt: int) -> None:
        """Gives it a job; `attempt` counts from 1 who has begun on that."""
        current = _Current(job, attempt)
        self._current = current
        with tempfile.TemporaryFile() as question:
            question.write(encode_job(job, self._limits))
            question.seek(0)
            try:
                socket.send_fds(self._socket, [b"j"], [question.fileno(), current.answer.fileno()])
            except OSError:
                pass  # it has died, which `poll` finds

    def poll(self) -> Ended | None:
        """What became of the job, None while it runs; who takes too much is ended here, and so is the worker."""
        current = self._current
        assert current is not None
        try:
            for message in self._messages():
                current.pid = message.get("pid", current.pid)
                if "status" in message:
                    self._current = None
                    return current.ended(int(message["status"]), float(message["cpu"]))
        except _Gone:
            return self._stopped(LimitKind.ENDED, "the worker died", None)
        if current.seconds > self._limits.seconds:
            return self._stopped(LimitKind.TIME, f"ended after {self._limits.seconds:g} s", _MORE)
        current.look()
        if current.peak > self._limits.memory:
            return self._stopped(LimitKind.MEMORY, f"ended at {current.peak >> 20} MiB of memory", _MORE)
        return None

    def _messages(self) -> Iterator[dict[str, Any]]:
        """What the server has said."""
        while True:
            try:
                data = self._socket.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError as error:
                raise _Gone from error
            if not data:
                raise _Gone
            yield json.loads(data)

    def _stopped(self, kind: LimitKind, message: str, hint: str | None) -> Ended:
        current = self._current
        assert current is not None
        self.close()
        cost = Cost(round(current.seconds, 3), None, current.peak or None)
        return Ended(current.job, None, Failure(kind.value, message, hint), cost, current.attempt)

    @property
    def is_closed(self) -> bool:
        """Whether it takes no jobs any more."""
        return self._process.returncode is not None

    def close(self) -> None:
        """Ends the worker and what it forked."""
        if self._process.returncode is None:
            # Nobody has waited for it yet, so that its number is still its own.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._socket.close()
        if self._current is not None:
            self._current.answer.close()
            self._current = None


class _Gone(Exception):
    """The server is no more."""


class _Current:
    """The job that a worker is at.

    Args:
        job: the job.
        attempt: how many have begun on it.

    Attributes:
        answer: the file that the answer is written to. A file, and no pipe: neither side ever waits for the other.
        pid: the process that works; 0 while that is not known.
        peak: the most bytes of memory that it was seen to have.
    """

    def __init__(self, job: Job, attempt: int) -> None:
        self.job = job
        self.attempt = attempt
        self.answer: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed when it was read, or with the worker
        self.pid = 0
        self.peak = 0
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return time.monotonic() - self._begun

    def look(self) -> None:
        """Looks how much memory it has now."""
        if not self.pid:
            return
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_bytes().split()[1])
        except (OSError, IndexError, ValueError):
            return  # it has just ended
        self.peak = max(self.peak, pages * _PAGE)

    def ended(self, status: int, cpu_seconds: float) -> Ended:
        """What a process that ended has said."""
        cost = Cost(round(self.seconds, 3), round(cpu_seconds, 3), self.peak or None)
        with self.answer as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            data = file.read() if size < MAX_ANSWER else b""
        if size >= MAX_ANSWER or status == -signal.SIGXFSZ:
            failure = Failure(LimitKind.SIZE.value, f"an answer of more than {MAX_ANSWER >> 20} MiB")
            return Ended(self.job, None, failure, cost, self.attempt)
        try:
            answer = json.loads(data)
            if status == 0 and isinstance(answer, dict):
                return Ended(self.job, answer, None, cost, self.attempt)
        except (ValueError, RecursionError):
            pass  # it died while it wrote, or before
        how = f"signal {-status}" if status < 0 else f"status {status}"
        failure = Failure(LimitKind.ENDED.value, f"the worker died ({how})")
        return Ended(self.job, None, failure, cost, self.attempt)


class Crew:
    """Workers, so many at once.

    Args:
        command: what a worker runs.
        limits: what a job may take.
        size: how many workers there are at most.
    """

    def __init__(self, command: Sequence[str], limits: DumpLimits, size: int) -> None:
        self._command = command
        self._limits = limits
        self._size = size

    def run(self, jobs: Iterable[Job]) -> Iterator[Ended]:
        """What became of each job, in the order in which they end. Whoever stops listening ends the workers.

        The jobs are asked for one by one, when there is a worker for the next.
        """
        waiting = iter(jobs)
        again: deque[Job] = deque()
        workers: list[DumpWorker] = []
        try:
            while True:
                while sum(not worker.is_idle for worker in workers) < self._size:
                    attempt = MAX_ATTEMPTS if again else 1
                    job = again.popleft() if again else next(waiting, None)
                    if job is None:
                        break
                    self._idle(workers).begin(job, attempt)
                if all(worker.is_idle for worker in workers):
                    return
                time.sleep(POLL)
                for ended in self._polled(workers):
                    if is_worth_another(ended):
                        again.append(ended.job)
                    else:
                        yield ended
        finally:
            for worker in workers:
                worker.close()

    def _idle(self, workers: list[DumpWorker]) -> DumpWorker:
        """A worker that waits for a job; a new one where all are at work."""
        worker = next((worker for worker in workers if worker.is_idle), None)
        if worker is None:
            worker = DumpWorker(self._command, self._limits)
            workers.append(worker)
        return worker

    def _polled(self, workers: list[DumpWorker]) -> list[Ended]:
        """The jobs that have ended; workers that ended with them are dropped."""
        found = [worker.poll() for worker in workers if not worker.is_idle]
        workers[:] = [worker for worker in workers if not worker.is_closed]
        return [ended for ended in found if ended is not None]


def is_worth_another(ended: Ended) -> bool:
    """Whether a job is begun anew: where its worker died, and this was the first."""
    died = ended.failure is not None and ended.failure.kind == LimitKind.ENDED.value
    return died and ended.attempts < MAX_ATTEMPTS

"""Who works on dumps where one machine is not enough: a Dask cluster, whose scheduler and workers somebody else runs.

Each of its workers has, for each dump at a time, such a process as `workers.py` describes, with the same limits. Dumps and
images must have the same paths on all machines. Whoever runs the scheduler can run anything here and on the workers
(docs/security.md).
"""

from __future__ import annotations

import ipaddress
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orcdbg.base.errors import RemoteError, UsageError
from orcdbg.triage.jobs import DumpLimits, Job, encode_job, parse_job
from orcdbg.triage.records import Cost, Failure, LimitKind
from orcdbg.triage.workers import MAX_ATTEMPTS, POLL, DumpWorker, Ended, is_worth_another

if TYPE_CHECKING:
    from distributed import Client, Future

INSTALL = "pip install 'orcdbg[dask]'"
_GO_ON = "with -o FILE, the same line with --resume goes on"
# Seconds: of connecting; between two looks at who is there; until nobody is expected any more.
_CONNECTING = 30
_LOOK_EVERY = 2.0
_ALONE = 60.0
# Dumps that are with the cluster, for each that it looks at: nobody waits for this side.
_AHEAD = 2


def check_address(address: str, is_consented: bool) -> None:
    """Refuses an address at which others could listen or take part, unless somebody consents.

    Args:
        address: of the scheduler: `tls://HOST:PORT`, or `tcp://HOST:PORT`.
        is_consented: whether the user accepts a connection that nothing protects.

    Raises:
        UsageError: it is none, or goes elsewhere unprotected.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.scheme not in ("tls", "tcp"):
        raise UsageError(
            f"{address}: not the address of a scheduler", "--dask tls://HOST:PORT, or tcp://127.0.0.1:PORT"
        )
    if parts.scheme == "tcp" and not _is_loopback(host) and not is_consented:
        raise UsageError(
            f"{address}: nothing protects this connection, and whoever can write to it runs code here",
            "use tls:// with certificates; --insecure takes the risk",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DaskCluster:
    """The cluster, as who works on jobs.

    Args:
        address: of its scheduler.
        command: what a worker runs for a dump: words behind the path of its own Python.
        limits: what a dump may take.

    Raises:
        UsageError: Dask is not installed.
        RemoteError: from `run`, when nobody is there, or nobody is left.
    """

    def __init__(self, address: str, command: Sequence[str], limits: DumpLimits) -> None:
        try:
            import distributed
        except ImportError as error:
            raise UsageError("--dask: Dask is not installed", INSTALL) from error
        # What goes wrong is told once, in words of ours. Each of its loggers has a handler of its own.
        for name in list(logging.root.manager.loggerDict):
            if name.partition(".")[0] == "distributed":
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._distributed = distributed
        self._address = address
        self._command = tuple(command)
        self._limits = limits

    def run(self, jobs: Iterable[Job]) -> Iterator[Ended]:
        """As `Crew.run`: what became of each job, in the order in which they end."""
        with self._connected() as client:
            presence = _Presence(client, self._address)
            waiting = iter(jobs)
            pending: dict[Future, tuple[Job, float]] = {}
            try:
                while True:
                    while len(pending) < _AHEAD * presence.threads:
                        job = next(waiting, None)
                        if job is None:
                            break
                        pending[self._submitted(client, job)] = job, time.monotonic()
                    if not pending:
                        return
                    time.sleep(POLL)
                    presence.look()
                    for future in [each for each in pending if each.done()]:
                        job, begun = pending.pop(future)
                        yield _ended(future, job, time.monotonic() - begun)
            finally:
                client.cancel(list(pending))

    def _connected(self) -> Client:
        try:
            return self._distributed.Client(self._address, timeout=_CONNECTING, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            hint = (
                "are its certificates in Dask's configuration (distributed.comm.tls)?"
                if "tls" in self._address
                else None
            )
            raise RemoteError(f"{self._address}: no scheduler is reached: {error}", hint) from error

    def _submitted(self, client: Client, job: Job) -> Future:
        # Not pure: the same dump may be another one the next time.
        return client.submit(look_at, encode_job(job, self._limits), self._command, pure=False, key=None)


class _Presence:
    """Who is there: the threads of all workers; nobody waits for ever where there are none."""

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self._address = address
        self.threads = sum(client.nthreads().values())
        self._looked = self._seen = time.monotonic()
        if not self.threads:
            raise RemoteError(f"{address}: the scheduler has no workers", "dask worker ADDRESS starts one")

    def look(self) -> None:
        """Looks who is there, not too often."""
        if self._client.status != "running":
            raise RemoteError(f"{self._address}: the scheduler is gone", _GO_ON)
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        threads = sum(self._client.nthreads().values())
        if threads:
            self.threads, self._seen = threads, now
        elif now - self._seen > _ALONE:
            raise RemoteError(f"{self._address}: all workers are gone", _GO_ON)


def _ended(future: Future, job: Job, seconds: float) -> Ended:
    """What became of a job; a worker that was lost with it was begun anew by the scheduler, as often as that does."""
    error = None if future.cancelled() else future.exception()
    if error is not None or future.cancelled():
        what = "it was cancelled" if error is None else f"{type(error).__name__}: {error}"
        failure = Failure(LimitKind.ENDED.value, f"the cluster has no answer: {what}")
        return Ended(job, None, failure, Cost(round(seconds, 3)), MAX_ATTEMPTS)
    return _parsed(future.result(), job)


def _parsed(data: str, job: Job) -> Ended:
    fields: dict[str, Any] = json.loads(data)
    failure = fields["failure"]
    return Ended(
        job,
        fields["answer"],
        None if failure is None else Failure(**failure),
        Cost(**fields["cost"]),
        fields["attempts"],
    )


# On the cluster's workers

_IDLE: list[tuple[tuple[str, ...], DumpLimits, DumpWorker]] = []


def look_at(data: bytes, command: tuple[str, ...]) -> str:
    """Does a job, in a process that is ended where it takes too much: what a worker of the cluster runs.

    Args:
        data: the job, by `encode_job`.
        command: what to run, without Python itself, which lies elsewhere on each machine.

    Returns:
        JSON of an `Ended` without its job.
    """
    job, limits = parse_job(data)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        ended = _looked_at(job, limits, command, attempt)
        if not is_worth_another(ended):
            break
    fields = {
        "answer": ended.answer,
        "failure": None if ended.failure is None else asdict(ended.failure),
        "cost": asdict(ended.cost),
        "attempts": ended.attempts,
    }
    return json.dumps(fields, ensure_ascii=True)


def _looked_at(job: Job, limits: DumpLimits, command: tuple[str, ...], attempt: int) -> Ended:
    """One attempt, by a process that has the program loaded already where there is one."""
    worker = _taken(command, limits)
    try:
        worker.begin(job, attempt)
        while (ended := worker.poll()) is None:
            time.sleep(POLL)
    except BaseException:
        worker.close()
        raise
    if not worker.is_closed:
        _IDLE.append((command, limits, worker))
    return ended


def _taken(command: tuple[str, ...], limits: DumpLimits) -> DumpWorker:
    """An idle process that was started for the same; several threads ask at once."""
    while _IDLE:
        try:
            their_command, their_limits, worker = _IDLE.pop()
        except IndexError:
            break
        if (their_command, their_limits) == (command, limits):
            return worker
        worker.close()
    return DumpWorker((sys.executable, *command), limits)

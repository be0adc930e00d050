"""The cluster: the same ends as on one machine, whoever dies; and no unprotected connection without consent.

Scheduler and workers are processes of their own on loopback, as a user starts them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orcdbg.base.errors import RemoteError, UsageError
from orcdbg.triage.cluster import DaskCluster, check_address
from orcdbg.triage.jobs import DumpLimits, Setting
from orcdbg.triage.records import DumpRecord, Outcome
from orcdbg.triage.rounds import Rounds

ROOT = Path(__file__).parents[2]
_RUN = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_module('tests.triage.fake_worker', run_name='__main__')"
FAKE = ("-P", "-c", _RUN, str(ROOT))
LIMITS = DumpLimits(120, 1 << 30)
_DASK = (sys.executable, "-m", "dask")


class Started:
    """A cluster on loopback.

    Args:
        folder: for its files.
        workers: how many.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        while not file.exists() or not file.read_text().endswith("}"):
            assert self._processes[0].poll() is None
            time.sleep(0.05)
        self.address: str = json.loads(file.read_text())["address"]
        for number in range(workers):
            self._start(
                *("worker", self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny"),
                *("--local-directory", str(folder / str(number))),
            )

    def _start(self, *words: str) -> None:
        self._processes.append(
            subprocess.Popen([*_DASK, *words], cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    def kill(self, number: int) -> None:
        """Kills the scheduler (0), or a worker."""
        os.kill(self._processes[number].pid, signal.SIGKILL)

    def end(self) -> None:
        """Ends all of it."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """A cluster of two workers."""
    (tmp_path / "cluster").mkdir()
    cluster = Started(tmp_path / "cluster", 2)
    try:
        yield cluster
    finally:
        cluster.end()


def waited_for(address: str) -> None:
    """Waits until both workers are there."""
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)


def test_a_cluster_gives_the_ends_that_one_machine_gives(started: Started, tmp_path: Path) -> None:
    """Of dumps whose processes die or babble too, and when a worker of the cluster is killed midway."""
    waited_for(started.address)
    names = ["once-1", "die-1", "half-1", *(str(number) for number in range(20))]
    for name in names:
        (tmp_path / name).write_text(name)
    rounds = Rounds([str(tmp_path / name) for name in names], [], Setting())
    records: dict[str, DumpRecord] = {}
    for record in rounds.run(DaskCluster(started.address, FAKE, LIMITS)):
        records[Path(record.dump).name] = record
        if len(records) == 5:
            started.kill(2)
    assert sorted(records) == sorted(names)
    failed = {name: record.failure.message for name, record in records.items() if record.failure is not None}
    assert failed == {"die-1": "the worker died (signal 9)", "half-1": "the worker died (status 0)"}
    assert records["once-1"].outcome is Outcome.ANALYZED


def test_a_scheduler_without_workers_is_an_error(tmp_path: Path) -> None:
    """Nobody would ever look at a dump."""
    cluster = Started(tmp_path, 0)
    try:
        rounds = Rounds([str(tmp_path / "scheduler.json")], [], Setting())
        with pytest.raises(RemoteError, match="the scheduler has no workers"):
            list(rounds.run(DaskCluster(cluster.address, FAKE, LIMITS)))
    finally:
        cluster.end()


@pytest.mark.parametrize(
    "address", ["tls://10.0.0.1:8786", "tcp://127.0.0.1:8786", "tcp://[::1]:8786", "tcp://localhost:8786"]
)
def test_a_protected_connection_needs_no_word(address: str) -> None:
    """By certificates, or because it does not leave the machine."""
    check_address(address, False)


def test_an_unprotected_connection_needs_consent() -> None:
    """Whoever can write to it runs code here."""
    for address in ("tcp://10.0.0.1:8786", "tcp://scheduler:8786", "tcp://[fe80::1]:8786", "tcp://localhost.evil:1"):
        with pytest.raises(UsageError, match="nothing protects this connection"):
            check_address(address, False)
        check_address(address, True)


@pytest.mark.parametrize(
    "address",
    ["", "10.0.0.1:8786", "inproc://1", "ws://127.0.0.1:1", "tcp://127.0.0.1", "tcp://:1", "tcp://[", "tls://a:x"],
)
def test_what_is_no_schedulers_address_is_refused(address: str) -> None:
    """Also other ways that Dask knows: `inproc:` would look at the dumps in this process."""
    with pytest.raises(UsageError, match="not the address of a scheduler"):
        check_address(address, True)

"""A worker that does to itself what the dump's name says: `python -m tests.triage.fake_worker DESCRIPTOR`."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orcdbg.triage.fork_server import serve
from orcdbg.triage.jobs import Job, parse_job
from orcdbg.triage.records import DumpRecord, Outcome, to_json

_LONG = 600


def _hang(job: Job) -> None:
    """Nothing but SIGKILL ends it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(_LONG)


def _spin(job: Job) -> None:
    while True:
        pass


def _die(job: Job) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_once(job: Job) -> None:
    """The first time it dies, and leaves a sign."""
    try:
        Path(f"{job.dump}.was-here").touch(exist_ok=False)
    except FileExistsError:
        return
    _die(job)


def _end_server(job: Job) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(_LONG)


def _leave(job: Job) -> None:
    os._exit(3)


def _bomb(job: Job) -> None:
    """Memory that is written to, not faster than anybody looks."""
    kept = []
    while True:
        kept.append(bytearray(b"x") * (4 << 20))
        time.sleep(0.005)


_HABITS: Mapping[str, Callable[[Job], None]] = {
    "hang": _hang,
    "spin": _spin,
    "die": _die,
    "once": _die_once,
    "server": _end_server,
    "leave": _leave,
    "bomb": _bomb,
}


def _answer(job: Job, habit: str) -> Any:
    if habit == "babble":
        return "no answer"
    if habit == "lie":
        return {"answer": {**to_json(DumpRecord("/another", Outcome.ANALYZED)), "title": 5}, "memory": "much"}
    return {"answer": to_json(DumpRecord("/another", Outcome.ANALYZED, title=str(os.getpid()))), "memory": 5}


def _work() -> None:
    with os.fdopen(os.dup(0), "rb") as question:
        job, _ = parse_job(question.read())
    habit = Path(job.dump).name.partition("-")[0]
    if habit in _HABITS:
        _HABITS[habit](job)
    data = json.dumps(_answer(job, habit)).encode()
    os.write(1, data[: len(data) // 2] if habit == "half" else data)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[-1])) as connection:
        serve(connection, _work)

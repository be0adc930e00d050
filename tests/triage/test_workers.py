"""Workers: whatever one of them does, its dump has an end, and the others have theirs.

The worker is one that does to itself what the dump's name says. Time passes here, since limits of time are the subject; none is
judged by how long it took.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from orcdbg.base.errors import OrcdbgError
from orcdbg.triage.jobs import DumpLimits, Job, JobKind, Setting, encode_job, parse_job
from orcdbg.triage.records import DumpRecord, Outcome
from orcdbg.triage.rounds import Rounds
from orcdbg.triage.workers import Crew, DumpWorker

ROOT = Path(__file__).parents[2]
_RUN = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_module('tests.triage.fake_worker', run_name='__main__')"
FAKE = (sys.executable, "-P", "-c", _RUN, str(ROOT))
ROOMY = DumpLimits(120, 1 << 30)


def triaged(folder: Path, *names: str, limits: DumpLimits = ROOMY, size: int = 2) -> dict[str, DumpRecord]:
    """The records of dumps of these names, by name."""
    paths = []
    for name in names:
        path = folder / name
        path.write_text(name)
        paths.append(str(path))
    records = list(Rounds(paths, [], Setting()).run(Crew(FAKE, limits, size)))
    assert sorted(record.dump for record in records) == sorted(paths)
    return {Path(record.dump).name: record for record in records}


def failure(record: DumpRecord) -> tuple[str, str]:
    """Kind and message of a failure."""
    assert record.outcome is Outcome.FAILED and record.failure is not None
    return record.failure.kind, record.failure.message


def test_each_dump_has_a_process_of_its_own(tmp_path: Path) -> None:
    """What a worker says of another dump is not believed."""
    records = triaged(tmp_path, "a", "b", "c", size=1)
    assert len({record.title for record in records.values()}) == 3
    for record in records.values():
        assert (record.outcome, record.attempts, record.cost.memory) == (Outcome.ANALYZED, 1, 5)
        assert record.cost.cpu_seconds is not None


@pytest.mark.parametrize(
    ("habit", "how"),
    [
        ("die", "the worker died (signal 9)"),
        ("leave", "the worker died (status 3)"),
        ("half", "the worker died (status 0)"),
        ("babble", "the worker died (status 0)"),
        ("server", "the worker died"),
    ],
)
def test_a_worker_that_dies_is_a_failure_of_its_dump_alone(tmp_path: Path, habit: str, how: str) -> None:
    """After a second one has begun on it, which dies too. Its file's state is known all the same."""
    records = triaged(tmp_path, "a", f"{habit}-1", "b")
    assert failure(records[f"{habit}-1"]) == ("worker-ended", how)
    assert records[f"{habit}-1"].attempts == 2
    assert records[f"{habit}-1"].file is not None
    assert [records[name].outcome for name in "ab"] == [Outcome.ANALYZED] * 2


def test_a_dump_whose_worker_was_killed_is_done_again_once(tmp_path: Path) -> None:
    """As by a machine that was out of memory for a moment."""
    record = triaged(tmp_path, "once-1")["once-1"]
    assert (record.outcome, record.attempts) == (Outcome.ANALYZED, 2)


def test_an_answer_that_is_no_record_is_a_failure(tmp_path: Path) -> None:
    """It comes from a process that has read hostile bytes."""
    kind, message = failure(triaged(tmp_path, "lie-1")["lie-1"])
    assert kind == "worker-ended" and message.startswith("not a record")


def test_who_takes_too_long_is_killed(tmp_path: Path) -> None:
    """Also where no other signal would end it. It is not tried again: it would take as long."""
    records = triaged(tmp_path, "hang-1", "spin-1", "a", "b", limits=DumpLimits(8, 1 << 30))
    for name in ("hang-1", "spin-1"):
        assert failure(records[name]) == ("time-limit", "ended after 8 s")
        assert records[name].attempts == 1
    assert [records[name].outcome for name in "ab"] == [Outcome.ANALYZED] * 2


def test_who_takes_too_much_memory_is_killed(tmp_path: Path) -> None:
    """By what it has in memory; the others go on."""
    records = triaged(tmp_path, "bomb-1", "a", limits=DumpLimits(120, 200 << 20))
    kind, message = failure(records["bomb-1"])
    assert kind == "memory-limit" and message.endswith("MiB of memory")
    assert records["a"].outcome is Outcome.ANALYZED


def test_nobody_is_left_when_somebody_stops_listening(tmp_path: Path) -> None:
    """Ctrl-C, an error, or a reader that goes: the server and what it forked are ended."""
    (tmp_path / "hang-1").touch()
    worker = DumpWorker(FAKE, ROOMY)
    worker.begin(Job(JobKind.RECORD, str(tmp_path / "hang-1"), Setting()), 1)
    while worker.worker_pid == 0:
        assert worker.poll() is None
        time.sleep(0.01)
    pid = worker.worker_pid
    os.kill(pid, 0)
    worker.close()
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)


def test_a_command_that_is_no_worker_fails_every_dump(tmp_path: Path) -> None:
    """Nothing waits for it; one that cannot be run at all is an error."""
    (tmp_path / "a").touch()
    rounds = Rounds([str(tmp_path / "a")], [], Setting())
    assert [failure(record) for record in rounds.run(Crew(("/bin/false",), ROOMY, 1))] == [
        ("worker-ended", "the worker died")
    ]
    with pytest.raises(OrcdbgError, match="cannot be started"):
        list(rounds.run(Crew(("/no/such/program",), ROOMY, 1)))


def test_a_job_is_read_as_it_was_sent() -> None:
    """`parse_job(encode_job(job)) == job`, whatever bytes are in a name."""
    setting = Setting({"ab": "/i/\udcff"}, ["/m"], ["/d"], "/b")
    job = Job(JobKind.PAGE, "/d/\udcff\n", setting, ["/c"], ["orcdbg", "triage"])
    assert parse_job(encode_job(job, ROOMY)) == (job, ROOMY)

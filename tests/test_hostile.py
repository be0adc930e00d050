"""A snapshot that was made on purpose costs no more than 10 s of CPU time and 1 GB, and its answer says what is missing.

The seconds are those of tests/speed.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from orcdbg.target.session import Session
from tests.hostile import CHANGES, is_within_bounds

# The words that some answer to a case must have; the sample has no BPF, and no ftrace operation but the list's end.
SAID = {
    "kprobe-circle": "runs in a circle",
    "kprobe-nodes": "more than 65536",
    "ftrace-page-circle": "runs in a circle",
    "ftrace-page-nodes": "more than 16384",
    "ftrace-page-index": "more than 524288",
    "ftrace-ops-circle": "runs in a circle",
    "ftrace-ops-nodes": "more than 32768",
    "ftrace-hash-22-bits": "2^22 buckets",
    "ftrace-hash-nodes": "more than 262144",
    "task-nodes": "more than 131072",
    "task-circle": "runs in a circle",
    "thread-nodes": "more than",
    "module-nodes": "more than 8192",
    "module-circle": "runs in a circle",
    "log-nodes": "the 786432 oldest are left out",
}


def answers(name: str) -> dict[str, Any]:
    """What a case says, by command; in a process of its own."""
    words = [sys.executable, "-m", "tests.hostile", name, "--whole"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["command"] for line in lines] == list(CHANGES[name][1])
    assert all(map(is_within_bounds, lines))
    return {line["command"]: line["answer"] for line in lines}


@pytest.mark.parametrize("name", [name for name in CHANGES if not name.startswith(("task", "thread"))])
def test_a_hostile_snapshot_ends_within_bounds_and_its_answer_says_what_is_missing(name: str) -> None:
    """Time and memory are looked at in the process itself; no answer is an error."""
    found = answers(name)
    assert not any("error" in answer for answer in found.values())
    if name in SAID:
        assert SAID[name] in json.dumps(found)


@pytest.mark.parametrize("name", ["task-nodes", "task-circle", "thread-nodes"])
def test_tasks_behind_a_false_list_are_shown(name: str, sample: Session) -> None:
    """By the list's other end, and by how many threads a group says it has."""
    found = answers(name)
    shown = {int(task["task"], 16) for task in found["ps"]["answer"]["tasks"]}
    assert {task.address for task in sample.tasks} <= shown
    assert SAID[name] in json.dumps(found["ps"])
    assert not any("error" in answer["answer"] for answer in found.values())

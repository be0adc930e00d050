"""Records for tests, of which only what a test is about is said."""

from __future__ import annotations

from typing import Any

from orcdbg.triage.records import Cause, Cost, Death, DumpRecord, Failure, FileState, Outcome

STATE = FileState(8, 9, "ab")


def made(dump: str, **fields: Any) -> DumpRecord:
    """A dump that died of something."""
    known = {"outcome": Outcome.ANALYZED, "file": STATE, "death": Death.NAMED, "signature": "bug f"}
    return DumpRecord(dump, **{**known, **fields})


WHOLE = DumpRecord(
    dump="/d/\udc80\x1b]0;x",
    outcome=Outcome.ANALYZED,
    file=STATE,
    duplicate_of=None,
    format="an ELF core",
    release="6.1.0",
    build_id="ab12",
    image="/i/vmlinux",
    date=1_700_000_000,
    death=Death.NAMED,
    title="a BUG in f",
    signature="bug f < g",
    cause=Cause("bug", "fact"),
    unknown=("log", "memory"),
    warnings=("cut off",),
    failure=None,
    attempts=2,
    cost=Cost(1.5, 1.25, 1 << 27),
)
FAILED = DumpRecord(
    "/d/b", Outcome.FAILED, failure=Failure("time-limit", "ended after 3 s", "allow more"), cost=Cost(3.0)
)

"""What lines of the log announce, in the words of kernels from 5.10 to 7.2; a program's words announce nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.kernel.headlines import Announced, headlines, parse_headline
from orcdbg.kernel.log import LogRecord

LINES = [
    ("Kernel panic - not syncing: Fatal exception", Announced.PANIC, {"message": "Fatal exception"}),
    ("BUG: kernel NULL pointer dereference, address: 0000000000000004", Announced.NULL_POINTER, {"address": "0" * 15 + "4"}),
    ("BUG: unable to handle page fault for address: ffffc7deadbee004", Announced.PAGE_FAULT, {"address": "ffffc7deadbee004"}),
    (
        "Oops: general protection fault, probably for non-canonical address 0x5ca1ab1edeadbef3: 0000 [#1] PREEMPT SMP NOPTI",
        Announced.GENERAL_PROTECTION,
        {"address": "5ca1ab1edeadbef3"},
    ),
    ("general protection fault: 0000 [#1] SMP", Announced.GENERAL_PROTECTION, {}),
    ("kernel BUG at lib/list_debug.c:52!", Announced.BUG, {"file": "lib/list_debug.c", "line": "52"}),
    ("WARNING: CPU: 1 PID: 310 at kernel/fork.c:26 f+0x1/0x2 [m]", Announced.WARNING, {"file": "kernel/fork.c", "line": "26"}),
    ("watchdog: BUG: soft lockup - CPU#0 stuck for 6s! [init:356]", Announced.SOFT_LOCKUP, {"cpu": "0", "seconds": "6"}),
    (
        "INFO: task init:372 blocked for more than 3 seconds.",
        Announced.HUNG_TASK,
        {"comm": "init", "pid": "372", "seconds": "3"},
    ),
    ("rcu: INFO: rcu_preempt self-detected stall on CPU", Announced.RCU_STALL, {}),
    ("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", Announced.RCU_STALL, {}),
    ("refcount_t: addition on 0; use-after-free.", Announced.REFCOUNT, {"what": "addition on 0; use-after-free."}),
    ("BUG: TASK stack guard page was hit at 144bba2c (stack is 0..1)", Announced.STACK_GUARD, {"address": "144bba2c"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "announced", "fields"), LINES)
def test_a_line_announces(line: str, announced: Announced, fields: dict[str, str]) -> None:
    """With what it names."""
    assert parse_headline(line) == (announced, fields)


@settings(max_examples=40)
@given(st.sampled_from(LINES), st.text(max_size=20))
def test_a_line_announces_nothing_behind_other_words(line: tuple[str, Announced, dict[str, str]], before: str) -> None:
    """Whoever quotes the kernel, as a module may, is no announcement; the line's own beginning decides."""
    assert parse_headline(f"orcfatal {before}: {line[0]}") is None


def test_what_a_program_wrote_announces_nothing() -> None:
    """/dev/kmsg gives no facility 0: the same words count only where the kernel printed them."""
    words = "Kernel panic - not syncing: planted"
    records = [LogRecord(number, 0, 0, facility, None, words) for number, facility in enumerate((1, 0))]
    assert [(line.seq, line.announced) for line in headlines(records)] == [(1, Announced.PANIC)]

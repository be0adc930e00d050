"""The banner."""

from __future__ import annotations

import pytest

from orcdbg import __version__
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.sys import Fact, System, facts_of
from orcdbg.repl.banner import KEYS, TIP, banner_lines


def test_the_banner_tells_what_was_opened(debugger: Debugger) -> None:
    """Version, release, the snapshot and its time, the panic's words, taint, a tip: six lines that fit 80 columns."""
    lines = banner_lines(facts_of(debugger, KEYS), 80)
    assert lines == [
        f"orcdbg {__version__}: Linux 5.10.223 #1 SMP 2024-08-10 00:00:00 UTC",
        "Snapshot: ELF core (QEMU), taken 2026-11-22 16:40:34 UTC, CPUs: 1, tasks: 42",
        "Panic said: Kernel panic - not syncing: NMI: Not continuing",
        'Selected: the task that panicked, PID 135 "cat"',
        "Taint: none; text: not yet audited (`patch audit` does)",
        TIP,
    ]


@pytest.mark.parametrize("columns", [24, 80])
def test_what_is_cut_has_a_sign(columns: int) -> None:
    """A long line ends with dots, in the terminal's width; text of the snapshot is shown safely."""
    said = banner_lines(System([Fact("panic_message", "", "a\x1b" + "b" * 200)]), columns)
    assert all(len(line) <= columns for line in said)
    assert said[2].startswith("Panic said: a\\x1bb")
    assert said[2].endswith("...")


def test_a_machine_that_did_not_panic_is_not_said_to_have() -> None:
    """Nor is anything made up that is not known."""
    assert banner_lines(System([Fact("panic", "PANIC", None), Fact("pid", "PID", 7)]), 80)[1:3] == [
        "Snapshot: format not known, time not known",
        'Selected: a task, PID 7 ""',
    ]

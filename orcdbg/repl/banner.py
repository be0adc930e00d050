"""What does the user see before the first prompt?"""

from __future__ import annotations

from orcdbg.commands.sys import System
from orcdbg.views.page import safe

# crash's labels, in its order. What cannot be told is left out here: `sys` says why it is absent.
KEYS = ("kernel", "dumpfile", "cpus", "date", "tasks", "release", "memory", "panic", "pid", "command", "task")
HELP_LINE = "`help` lists the commands, Tab completes, Ctrl-D leaves."


def known_facts(system: System) -> System:
    """The part of `sys` that the banner shows."""
    by_key = {fact.key: fact for fact in system.facts if fact.value is not None}
    return System([by_key[key] for key in KEYS if key in by_key])


def find_fact(system: System, key: str) -> str | None:
    """A fact's value as text, None where it is not known."""
    return next((str(fact.value) for fact in system.facts if fact.key == key and fact.value is not None), None)


def closing_lines(system: System) -> list[str]:
    """What follows the facts: why this task is selected, for a machine that panicked, and where to go from here."""
    pid, command, panic = (find_fact(system, key) for key in ("pid", "command", "panic"))
    chosen = f'Selected: the task that panicked, PID {pid} "{safe(command or "")}".'
    return ["", *([chosen] if panic and pid else []), HELP_LINE]

"""What does the user see before the first prompt?

At most six lines, on standard error: what orcdbg is, which kernel, what the snapshot is and when it was taken, what the panic
said, what was found out of the kernel's state, and where to go from here.
"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg import __version__
from orcdbg.commands.sys import System
from orcdbg.views.page import safe

# What the banner asks of `sys`; the others would keep the prompt waiting.
KEYS = ("format", "cpus", "date", "tasks", "release", "version", "panic", "panic_message", "taint", "pid", "command")
TIP = "`help` lists the commands, Tab completes, Ctrl-D leaves."
CUT = "..."  # at the end of a line that does not fit


def find_fact(system: System, key: str) -> str | None:
    """A fact's value as text, None where it is not known."""
    return next((str(fact.value) for fact in system.facts if fact.key == key and fact.value is not None), None)


def banner_lines(system: System, columns: int) -> list[str]:
    """The lines, none longer than the terminal is wide; one that is cut says so.

    Args:
        system: the facts of `KEYS`.
        columns: of the terminal.
    """
    lines = [safe(text) for text in _lines(system)]
    return [text if len(text) <= columns else text[: max(columns - len(CUT), 0)] + CUT for text in lines]


def _lines(system: System) -> Iterator[str]:
    known = {key: find_fact(system, key) for key in KEYS}
    kernel = " ".join(part for part in (known["release"] or "release not known", known["version"]) if part)
    yield f"orcdbg {__version__}: Linux {kernel}"

    when = f", taken {known['date']}" if known["date"] else ", time not known"
    size = "".join(f", {label} {known[key]}" for key, label in (("cpus", "CPUs:"), ("tasks", "tasks:")) if known[key])
    yield f"Snapshot: {known['format'] or 'format not known'}{when}{size}"

    if known["panic_message"]:
        yield f"Panic said: {known['panic_message']}"
    elif known["panic"]:
        yield f"Panic: {known['panic']}; its words are not in the log"

    if known["pid"] is not None:
        why = "the task that panicked" if known["panic"] else "a task"
        yield f'Selected: {why}, PID {known["pid"]} "{known["command"] or ""}"'

    is_untainted = any(fact.key == "taint" and fact.value is None and fact.why is None for fact in system.facts)
    taint = known["taint"] or ("none" if is_untainted else "not known")
    # The audit takes seconds; nothing is said of the text that was not looked into.
    yield f"Taint: {taint}; text: not yet audited (`patch audit` does)"
    yield TIP

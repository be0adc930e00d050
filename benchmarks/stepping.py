"""How long does an emulated instruction take, with everything said about it, and in a long run?"""

from __future__ import annotations

import statistics
import time

import orcdbg
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.standard import standard_commands
from orcdbg.commands.steps import Steps
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.lab.scenes import Scene

# A search through all symbols: varied code, and longer than any run here.
START = "step 0 --at kallsyms_lookup_name --args rdi=linux_banner --zero"
LINES, LONG, ROUNDS = 200, 100_000, 5
LINE_SECONDS, LONG_SECONDS = 0.002, 2.0


def timed(registry: Registry, debugger: Debugger, line: str) -> tuple[float, int]:
    """Seconds of one command with its text, and how many instructions it ran."""
    begin = time.perf_counter()
    steps = registry.run(debugger, line)
    plain(lines_of(steps, None))
    seconds = time.perf_counter() - begin
    assert isinstance(steps, Steps)
    return seconds, abs(steps.instructions)


def rounds(registry: Registry, debugger: Debugger, line: str) -> tuple[float, int]:
    """The median of some rounds, each from the same start; the first, which fetches pages, is not counted."""
    found = []
    for _ in range(ROUNDS + 1):
        seconds, count = timed(registry, debugger, line)
        timed(registry, debugger, f"rsi {count}")
        found.append(seconds)
    return statistics.median(found[1:]), count


def report(scene: Scene, kernel: str) -> None:
    """Three lines: a traced instruction, a long run, and the way back."""
    debugger = Debugger(orcdbg.open(str(scene.vmlinux), str(scene.snapshot)))
    registry = standard_commands()
    debugger.select(next(task for task in debugger.session.tasks if task.pid == 1))
    timed(registry, debugger, START)
    seconds, count = rounds(registry, debugger, f"step {LINES} --trace")
    one = seconds / count
    words = f"ratio to {LINE_SECONDS * 1e3:g} ms {one / LINE_SECONDS:.2f}"
    print(f"{kernel + ': an emulated step with its line':<42} {one * 1e3:6.3f} ms   {words}")
    seconds, count = rounds(registry, debugger, f"step {LONG}")
    words = f"ratio to {LONG_SECONDS:g} s {seconds / LONG_SECONDS:.3f}"
    print(f"{kernel + f': {count} steps unprinted':<42} {seconds:6.3f} s    {words}")
    timed(registry, debugger, f"step {LONG}")
    back, count = timed(registry, debugger, f"rsi {LONG // 2}")
    print(f"{kernel + f': {count} steps back':<42} {back:6.3f} s    ratio to the way there {back / seconds:.2f}")

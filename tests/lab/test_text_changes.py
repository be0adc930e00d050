"""Truth by stopping in the middle: while the kernel changes its text, every byte is explained and every stack is whole.

Static keys, static calls, tracers and probes are switched on and off all the time. The guest is stopped at the functions that
write text, before, between and after the steps of a change.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from orcdbg.patches.audit.account import AuditReport
from orcdbg.patches.audit.core_text import audit_kernel
from orcdbg.patches.build import Build
from orcdbg.patches.kernel_patches import KernelPatches
from orcdbg.unwind.frame import End, StackTrace
from tests.lab import scripts
from tests.lab.boots import KPROBES, TRACING
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.draw import kernels_of
from tests.lab.live import open_live
from tests.lab.stops import StoppedGuest

pytestmark = pytest.mark.lab

WAIT = 30.0
STOPS_VARIABLE = "ORCDBG_LAB_TEXT_STOPS"
STOPS = int(os.environ.get(STOPS_VARIABLE) or 8)  # an audit of all text follows each
# What each step of a change calls: the first two write, the others see to it that all CPUs have seen it.
STEPS = ("text_poke", "__text_poke", "text_poke_sync", "smp_text_poke_sync_each_cpu")
# How many of the stops are gone past before one is looked at: the next step, the next change, or one of another kind.
PASSED = (0, 0, 1, 2, 5, 30, 200)
WORK = "\n".join(scripts.WORKLOADS[name] for name in ("pipe", "timer", "signal", "copy"))
CHANGES = f"""{TRACING}{KPROBES}
(while :; do
    for one in sched timer syscalls irq; do echo 1 > events/$one/enable; echo 0 > events/$one/enable; done
    echo 1 > /proc/sys/kernel/sched_schedstats; echo 0 > /proc/sys/kernel/sched_schedstats
    for one in events/kprobes/*/enable; do echo 1 > $one; done
    usleep 300000
    for one in events/kprobes/*/enable; do echo 0 > $one; done
    for tracer in function function_graph; do
        echo 'vfs_*' > set_ftrace_filter; echo '*sleep*' >> set_ftrace_filter
        echo $tracer > current_tracer; echo nop > current_tracer; echo > set_ftrace_filter
    done
done) 2>/dev/null &
cd /
"""
INIT = scripts.write_symbols(["_text"]) + CHANGES + f"(while :; do :; done) &\necho {scripts.BUSY}\n" + (
    f"while :; do\n{WORK}\ndone\n"
)  # fmt: skip


def audit(live: StoppedGuest) -> AuditReport:
    """The account of the kernel's text as it is now."""
    build = live.session.patches.build
    return audit_kernel(KernelPatches(Build(build.image, build.linux, build.built, build.features)))


def stop_at_a_step(live: StoppedGuest, places: list[int], passed: int) -> None:
    """Lets the guest run until it has come to one of the places so many times and once more."""
    stub = live.stub
    for place in places:
        stub.set_breakpoint(place)
    try:
        for _ in range(passed + 1):
            assert stub.resume(WAIT), "the guest changes no text any more"
            here = stub.read_registers()["rip"]
            if here in places:
                stub.skip_breakpoint(here)
    finally:
        for place in places:
            stub.clear_breakpoint(place)


def doubts(trace: StackTrace) -> list[str]:
    """What a trace says against itself."""
    return [f"{frame.ip:#x}: {frame.doubt}" for frame in trace.frames if frame.doubt is not None]


@pytest.mark.parametrize("kernel", kernels_of("text in the middle of a change"))
@on_a_living_guest
def test_text_in_the_middle_of_a_change_is_explained(kernel: str, seed: int, tmp_path: Path) -> None:
    """No byte contradicts what is known of it, and whoever writes it has a stack without a doubt."""
    random, seen = Random(f"{kernel} text changes {seed}"), Counter[str]()
    with busy_guest(kernel, random, tmp_path, smp=2, init=INIT) as (guest, found, console), guest.stub() as stub:
        opened = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        live = StoppedGuest(opened.stub, opened.session, 2)
        places = [place for name in STEPS for place in live.session.names.starts_of(name)]
        assert len(places) >= 3
        for _ in range(STOPS):
            stop_at_a_step(live, places, random.choice(PASSED))
            trace = live.trace()
            where = " < ".join(live.session.names.describe(frame.ip) or hex(frame.ip) for frame in trace.frames[:4])

            report = audit(live)
            wrong = [
                f"{live.session.names.describe(one.address)}: {one.mechanism}, {one.expected.hex()} and {one.memory.hex()}"
                for one in (*report.mismatched_ranges, *report.unexplained_ranges)
            ]
            assert not wrong, f"{where}: {wrong}"
            assert not report.problems, f"{where}: {report.problems}"
            assert not doubts(trace), f"{where}: {doubts(trace)}"
            assert trace.end in (End.USER, End.KTHREAD, End.IDLE), f"{where}: {trace.end}"
            count = report.mechanisms.get("text-change")
            seen["in the middle" if count is not None and count.bytes else "between changes"] += 1
            seen["bytes of text on their way"] += count.bytes if count is not None else 0
    print(f"{kernel} text changes: {dict(seen)}")
    assert seen["in the middle"]

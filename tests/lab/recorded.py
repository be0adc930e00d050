"""How does a guest record traces, and print them itself before its snapshot is taken?"""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from tests.lab import scenes, scripts
from tests.lab.boots import TRACING
from tests.lab.fetch import Kernel
from tests.lab.scenes import Scene

# Small buffers, so that records are overwritten; a trace of its own for function_graph; a kprobe and a kretprobe.
SETTING = """
echo 64 > buffer_size_kb
echo "p:placed do_nanosleep" > kprobe_events; echo "r:came vfs_read" >> kprobe_events
echo "*sleep*" > set_ftrace_filter; echo "vfs_*" >> set_ftrace_filter
mkdir instances/other instances/small
echo 8 > instances/small/buffer_size_kb
echo function > current_tracer
for event in sched/sched_switch sched/sched_wakeup syscalls/sys_enter_openat syscalls/sys_exit_openat timer/timer_start \\
    timer/hrtimer_start irq/softirq_entry irq/irq_handler_entry kmem/mm_page_alloc kprobes/placed kprobes/came \\
    sched/sched_process_fork sched/sched_process_exec signal/signal_generate; do
    echo 1 > events/$event/enable
done
echo 1 > instances/small/events/kmem/enable
echo 1 > instances/other/events/sched/enable
for round in 1 2 3; do
    usleep 20000; cat /proc/loadavg; echo "marked $round" > trace_marker; sh -c 'kill -0 $$'
done > /dev/null
echo stack > trace_marker
for one in . instances/other instances/small; do echo 0 > $one/tracing_on; done
"""
SHOW = """
for one in . instances/other instances/small; do
    echo "TRACEBEGIN $one"; cat $one/trace; echo TRACEEND
    for cpu in 0 1; do echo "STATSBEGIN $one $cpu"; cat $one/per_cpu/cpu$cpu/stats; echo STATSEND; done
done
cd /
"""
END = f"\nsleep 1; show_stacks 1; sleep 1; show_stacks 2; echo {scripts.READY}; sleep 5; show_stacks 3; echo {scripts.DONE}\n"


def recorded(kernel: str, seed: int = 0) -> Scene:
    """Return a scene whose guest recorded traces, stopped that, and printed them.

    Raises:
        Unavailable: the kernel or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    return scenes.cached(kernel, "recorded", seed, _make)


def _make(home: Path, kernel: Kernel, random: Random) -> Scene:
    init = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + scripts.write_tasks(random)
    init += TRACING + SETTING + SHOW + END + "while :; do sleep 100000; done\n"
    initrd = scenes.write_initrd(home, kernel, init, random)
    return scenes.dump_when_ready(home, kernel, "recorded", initrd, random)


def traces(scene: Scene) -> dict[str, list[str]]:
    """The lines of each trace that the guest printed, by its place below tracefs."""
    text = scene.serial.read_text("utf-8", "replace").replace("\r", "")
    found = re.findall(r"(?ms)^TRACEBEGIN (\S+)\n(.*?)^TRACEEND$", text)
    return {name: [line for line in body.splitlines() if line and not line.startswith("#")] for name, body in found}


def stats(scene: Scene) -> dict[tuple[str, int], dict[str, int]]:
    """What the guest printed of each buffer's counts, by the trace's place and the CPU."""
    text = scene.serial.read_text("utf-8", "replace").replace("\r", "")
    found: dict[tuple[str, int], dict[str, int]] = {}
    for name, cpu, body in re.findall(r"(?ms)^STATSBEGIN (\S+) (\d+)\n(.*?)^STATSEND$", text):
        found[name, int(cpu)] = {key: int(value) for key, value in re.findall(r"(?m)^([\w ]+): (\d+)$", body)}
    return found

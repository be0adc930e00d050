"""What the guests of the lab do: the shell text of their init, varied by a seed, and how its output is read back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.lab.program import SLEEPERS

SYMBOLS_MARK, READY, BUSY, DONE = "SYMBOL", "READY", "BUSY", "DONE"
COMMON_MODULES = ["qemu_fw_cfg", "loop", "pktgen"]
OTHER_MODULES = ["dummy", "veth", "tun", "ext4", "xfs", "nf_conntrack", "bridge", "virtio_net", "kvm", "aesni_intel"]

# Each puts one task, or a few, to sleep in its own part of the kernel.
TASKS = {
    "nanosleep": "sleep 100000",
    "fifo open": "mkfifo /tmp/open; cat /tmp/open",
    "fifo read": "mkfifo /tmp/read; cat 0<>/tmp/read",
    "pipe read": "sleep 100000 | cat",
    "pipe write": "yes | sleep 100000",
    "wait": "sh -c 'sleep 100000 & wait'",
    "flock": "flock /tmp/lock sleep 100000 & usleep 300000; flock /tmp/lock true",
    "accept": "ifconfig lo 127.0.0.1; nc -l -p 7000",
    "datagram": "nc -u -l -p 7001",
    "unix socket": "syslogd -n",
    "kernel log": "klogd -n",
    "tty": "cat /dev/ttyS0",
    "netlink": "mdev -df",
    "poll": "mkfifo /tmp/poll; sh -c 'read -t 90000 word' 0<>/tmp/poll",
    "select": "telnetd -F -p 7002",
    "stopped": "sh -c 'kill -STOP $$'",
    "timeout": "timeout 90000 sleep 100000",
    "loop device": "dd if=/dev/zero of=/tmp/disk bs=64k count=4 2>/dev/null; losetup /dev/loop0 /tmp/disk",
}
WORKLOADS = {
    "fork": "busybox true; (true); busybox true & wait",
    "pipe": "echo words | cat | cat > /dev/null",
    "signal": "sh -c 'trap : USR1; kill -USR1 $$; kill -USR1 $$'; kill -0 1",
    "timer": "usleep 1000; usleep 100",
    "copy": "dd if=/dev/zero of=/tmp/copy bs=4096 count=50 2>/dev/null; rm /tmp/copy",
    "fifo": "[ -p /tmp/work ] || mkfifo /tmp/work; echo x > /tmp/work & cat /tmp/work > /dev/null; wait",
    "proc": "cat /proc/*/stat > /dev/null 2>&1",
}

SHOW_STACKS = """
show_stacks() {
    echo "ROUND $1"
    for task in /proc/[0-9]*/task/[0-9]*; do
        pid=${task#/proc/}
        read -r comm < $task/comm && echo "STACKBEGIN ${pid%%/*} ${task##*/} $comm" && cat $task/stack && echo STACKEND
    done 2>/dev/null
    echo "ROUNDEND"
}
"""
# Symbols come first: a scene may need them while the guest is still busy.
SHOW_SYMBOLS = "grep -E ' [Tt] ({names})$' /proc/kallsyms | while read -r line; do echo \"{mark} $line\"; done\n"
# The last round is printed after the snapshot: a task that stood still through all three stood there when it was taken.
IDLE_END = f"""
show_stacks 1; sleep 1; show_stacks 2; sleep 1
echo {READY}; sleep 5; show_stacks 3; echo {DONE}
while :; do sleep 100000; done
"""


_FRAME = "[<0>] "  # how a line of /proc/PID/stack begins


@dataclass(frozen=True, slots=True)
class Trace:
    """One task's stack as the guest's kernel printed it, innermost frame first, or its history of several."""

    pid: int
    tid: int
    comm: str
    frames: tuple[str, ...]


def choose_modules(random: Random) -> list[str]:
    """Return the modules to load, in an order that the seed chose."""
    names = COMMON_MODULES + random.sample(OTHER_MODULES, random.randint(0, 4))
    random.shuffle(names)
    return names


def write_tasks(random: Random) -> str:
    """Return shell text that starts sleeping tasks which the seed chose."""
    lines = [f"({TASKS[name]}) &" for name in random.sample(list(TASKS), random.randint(6, len(TASKS)))]
    lines += [f"{name} &" for name in random.sample(list(SLEEPERS), random.randint(4, len(SLEEPERS)))]
    lines += ["sleep 100000 &"] * random.randint(14, 24)  # with a kernel's own, no scene has fewer than 70 tasks
    random.shuffle(lines)
    return "\n".join([*lines, "usleep 700000", ""])


def write_symbols(names: list[str]) -> str:
    """Return shell text that prints where the running kernel has the functions `names`."""
    return SHOW_SYMBOLS.format(names="|".join(names), mark=SYMBOLS_MARK)


def write_idle(random: Random) -> str:
    """Return an init for a guest in which nothing runs when it is stopped."""
    return SHOW_STACKS + write_symbols(["_text"]) + write_tasks(random) + IDLE_END


def write_busy(random: Random, symbol: str) -> str:
    """Return an init for a guest that keeps making system calls."""
    loop = random.sample(list(WORKLOADS), random.randint(1, 3))
    work = "\n".join(WORKLOADS[name] for name in loop)
    rounds = "show_stacks 1; sleep 1; show_stacks 2"
    head = SHOW_STACKS + write_symbols(["_text", symbol]) + write_tasks(random)
    return head + f"{rounds}\necho {BUSY}\nwhile :; do\n{work}\ndone\n"


def parse_symbols(console: str) -> dict[str, int]:
    """Return the addresses printed by `write_symbols`."""
    found = re.findall(rf"(?m)^{SYMBOLS_MARK} ([0-9a-f]+) \w (\w+)", console)
    return {name: int(address, 16) for address, name in found}


def parse_rounds(console: str) -> list[dict[int, Trace]]:
    """Return each complete round of stacks, by thread id."""
    text = console.replace("\r", "")
    return [_parse_round(body) for body in re.findall(r"(?ms)^ROUND \d+\n(.*?)^ROUNDEND$", text)]


def _parse_round(body: str) -> dict[int, Trace]:
    blocks = re.findall(r"(?ms)^STACKBEGIN (\d+) (\d+) (.*?)\n(.*?)^STACKEND$", body)
    return {int(tid): Trace(int(pid), int(tid), comm, _parse_frames(text)) for pid, tid, comm, text in blocks}


def _parse_frames(text: str) -> tuple[str, ...]:
    """The lines that /proc has; among them on the console may be some of the guest's own log."""
    return tuple(line.removeprefix(_FRAME) for line in text.splitlines() if line.startswith(_FRAME))


def stays_while_idle(comm: str) -> bool:
    """Tell whether a task that was seen standing still stays so once the guest falls silent.

    RCU's grace-period thread does not: printing is work, and whenever somebody prints it waits elsewhere.
    """
    return comm not in ("rcu_sched", "rcu_preempt")


def stays_while_busy(comm: str) -> bool:
    """Tell whether a task that was seen standing still stays so whatever the workload does."""
    return comm in ("sleep", "cat", "yes", "nc", *SLEEPERS)


def still_and_moved(
    rounds: list[dict[int, Trace]], stays: Callable[[str], bool]
) -> tuple[dict[int, Trace], dict[int, Trace]]:
    """Split the tasks of the last round into those that no round saw elsewhere and that stay, and the others."""
    last = rounds[-1]
    still = {tid: trace for tid, trace in last.items() if all(one.get(tid) == trace for one in rounds)}
    still = {tid: trace for tid, trace in still.items() if stays(trace.comm)}
    return still, {tid: trace for tid, trace in last.items() if tid not in still}

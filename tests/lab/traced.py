"""How does a guest come to have probes and tracers on functions in which its tasks sleep, and on those that it runs?"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.lab import scripts
from tests.lab.boots import ENABLE, TRACING
from tests.lab.bpf_program import NAME
from tests.lab.program import SLEEPERS

SLEEPS = ("do_nanosleep", "hrtimer_nanosleep")
PROBED = (
    "vfs_read",
    "ksys_read",
    "do_wait",
    "schedule_timeout",
    "ksys_write",
    "do_sys_poll",
    "kernel_wait4",
    "vfs_write",
)
TASKS = ("nanosleep", "fifo read", "pipe read", "tty", "wait", "poll", "pipe write")
# None of those that wait for all children: some of them sleep for good.
WORKLOADS = ("pipe", "timer", "signal", "copy")
FILTERS = ("*sleep*", "*read*", "*wait*", "schedule*", "ksys_*", "vfs_*", "do_*", "__x64_sys_*", "pipe_*", "*poll*")
STEPPED = "STEPPED"  # printed before the work that is stepped through begins


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed chose: functions with kretprobes and places with kprobes, and which tracer runs when."""

    returns: tuple[str, ...]
    places: tuple[str, ...]
    filters: tuple[str, ...]
    graph_first: bool
    later: str

    @property
    def functions(self) -> list[str]:
        """Every function that is probed."""
        return sorted({*self.returns, *(place.partition("+")[0] for place in self.places)})


def choose(random: Random) -> Plan:
    """A plan in which some tasks sleep below kretprobes and function_graph at once."""
    returns = [*SLEEPS, *random.sample(PROBED, random.randint(2, 4))]
    returns += random.sample(returns, 2)  # a second probe on the same function
    random.shuffle(returns)
    places = [f"{name}+{random.randint(0, 12)}" for name in random.sample(PROBED, 5) for _ in range(4)]
    # Of all functions at once the emulator is too slow, and a guest of 6.12 died of flags that no instruction had set.
    filters = random.sample(FILTERS, 6)
    later = random.choice(("function_graph", "function", "nop"))
    return Plan(tuple(returns), tuple(places), tuple(filters), random.random() < 0.5, later)


def write_traced(random: Random, plan: Plan) -> str:
    """An init whose tasks sleep twice: before anything is traced, and under everything that is."""
    probes = [f'echo "r:from_{number} {name}" >> kprobe_events' for number, name in enumerate(plan.returns)]
    # Most offsets are no instruction's start, and the kernel refuses those.
    probes += [f'echo "p:at_{number} {place}" >> kprobe_events 2>/dev/null' for number, place in enumerate(plan.places)]
    only = [f'echo "{pattern}" >> set_ftrace_filter' for pattern in plan.filters]
    graph = "\n".join([*only, "echo function_graph > current_tracer"])
    both = [graph, "\n".join([*probes, ENABLE])]
    setup = "\n".join(both if plan.graph_first else both[::-1])
    started = [f"({scripts.TASKS[name]}) &" for name in TASKS] + [f"{name} &" for name in SLEEPERS]
    random.shuffle(started)
    tasks = "\n".join(started) + "\nusleep 900000\n"
    work = "\n".join(scripts.WORKLOADS[name] for name in WORKLOADS)
    return "\n".join(
        [
            scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + tasks,
            "show_stacks 0",
            f"{TRACING}{setup}\ncd /; {tasks}",
            "show_stacks 1; sleep 1; show_stacks 2; sleep 1",
            f"echo {scripts.READY}; sleep 3; show_stacks 3; echo {scripts.DONE}",
            "cd /sys/kernel/tracing; [ -f current_tracer ] || cd /sys/kernel/debug/tracing",
            f"echo {plan.later} > current_tracer; cd /; {NAME} & usleep 500000; echo {STEPPED}",
            f"while :; do\n{work}\ndone\n",
        ]
    )

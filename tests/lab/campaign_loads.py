"""What do guests of the campaign do, and on which CPUs and with which options were they booted?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from tests.lab import scripts
from tests.lab.boots import BOOTS, DEADLY, ENABLE, KPROBES, KRETPROBES, TRACING
from tests.lab.bpf_program import NAME, filter_program
from tests.lab.fetch import RELEASES
from tests.lab.guest import CPU
from tests.lab.traced import FILTERS

# None of those that wait for all children: some of these never end.
WORK = ("pipe", "timer", "signal", "copy", "proc")
GRAPH = """
for one in {filters}; do echo "$one" >> set_ftrace_filter; done 2>/dev/null
echo function_graph > current_tracer
"""
UNOPTIMISED = "echo 0 > /proc/sys/debug/kprobes-optimization\n"
# A CPU that goes off and comes back, a module that is loaded and unloaded, tracers and probes that are put on and off.
HOTPLUG = (
    "(while :; do for on in 0 1; do echo $on > /sys/devices/system/cpu/cpu1/online; usleep 100000; done; done) &\n"
)
MODULES = "(while :; do insmod /modules/loop.ko; usleep 50000; rmmod loop; usleep 50000; done 2>/dev/null) &\n"
STORM = (
    TRACING
    + KPROBES
    + KRETPROBES
    + """
(while :; do
    for one in events/kprobes/*/enable; do echo 1 > $one; done
    echo function_graph > current_tracer; usleep 200000; echo function > current_tracer; usleep 100000
    for one in events/kprobes/*/enable; do echo 0 > $one; done
    echo nop > current_tracer
done) &
"""
)


@dataclass(frozen=True)
class Load:
    """A machine, and what its init does before the work begins.

    Attributes:
        setup: shell text; `{filters}` stands for patterns of functions that a seed chooses.
        commands: of QEMU's monitor, one of which is given now and then while the guest runs.
        changes: True where code, modules or CPUs change all the time.
        kernels: those that have it.
    """

    setup: str = ""
    append: str = ""
    cpu: str = CPU
    smp: int = 1
    files: Mapping[str, bytes] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    changes: bool = False
    kernels: tuple[str, ...] = tuple(RELEASES)


LOADS: dict[str, Load] = {
    "plain": Load(),
    "two CPUs": Load(smp=2),
    "preempt and threads": Load(append="preempt=full threadirqs", smp=2),
    "page tables apart": Load(append="pti=on"),
    "NMIs": Load(commands=("nmi",)),
    "function": Load(TRACING + "echo function > current_tracer\n"),
    "graph": Load(TRACING + GRAPH),
    "int3 probes": Load(UNOPTIMISED + TRACING + KPROBES + ENABLE),
    "detours": Load(TRACING + KPROBES + ENABLE),
    "kretprobes": Load(TRACING + KRETPROBES + ENABLE),
    "all tracers": Load(TRACING + KPROBES + KRETPROBES + ENABLE + GRAPH),
    "hotplug": Load(HOTPLUG, smp=2, changes=True),
    "modules": Load(MODULES, smp=2, changes=True),
    "storm": Load(STORM, changes=True),
    "bpf": Load(f"{NAME} &\n", files={f"bin/{NAME}": filter_program()}),
}
# Mitigations, as far as the emulated CPUs and each kernel have them.
MITIGATIONS = ("rome", "off", "retpoline", "lfence", "stuff", "its", "qemu64")
LOADS |= {
    f"boot {how}": Load(
        append=BOOTS[how].append,
        cpu=BOOTS[how].cpu,
        kernels=tuple(kernel for kernel in RELEASES if (kernel, how) not in DEADLY),
    )
    for how in MITIGATIONS
}


def loads_of(kernel: str) -> list[str]:
    """The loads that a kernel has."""
    return [name for name, load in LOADS.items() if kernel in load.kernels]


def write_init(load: Load, random: Random) -> str:
    """The init of a guest with this load."""
    filters = " ".join(f"'{pattern}'" for pattern in random.sample(FILTERS, 6))
    work = "\n".join(scripts.WORKLOADS[name] for name in random.sample(WORK, 4))
    head = scripts.write_symbols(["_text"]) + load.setup.replace("{filters}", filters) + "\ncd /\n"
    return head + f"(while :; do :; done) &\necho {scripts.BUSY}\nwhile :; do\n{work}\ndone\n"

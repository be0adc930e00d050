"""What do guests of the campaign do, and on which CPUs and with which options were they booted?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from tests.lab import scripts
from tests.lab.boots import BOOTS, DEADLY, ENABLE, KPROBES, KRETPROBES, PROBED, TRACING
from tests.lab.bpf_program import NAME, filter_program
from tests.lab.bpf_tracing import NAME as TRACING_NAME
from tests.lab.bpf_tracing import tracing_program
from tests.lab.draw import CAMPAIGN_SECONDS, KERNELS, draw
from tests.lab.fetch import RELEASES, Kernel
from tests.lab.guest import CPU, WITHOUT_CX16
from tests.lab.rare_programs import CALLED_OFFSET, PROGRAMS
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
COMPAT = ("p_int80", "p_int80_32", "p_vdso_32")
UPROBES = f"""
echo "p:u1 /bin/p_calls:{CALLED_OFFSET:#x}" >> uprobe_events
echo "r:u2 /bin/p_calls:{CALLED_OFFSET:#x}" >> uprobe_events
for one in events/uprobes/*/enable; do echo 1 > $one; done
"""
MACHINE_CHECK = "mce 0 4 0xb200000000000000 0x5 0x0 0x0"
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


def _no_files(kernel: Kernel) -> Mapping[str, bytes]:
    return {}


def _programs(*names: str) -> Callable[[Kernel], Mapping[str, bytes]]:
    return lambda kernel: {f"bin/{name}": PROGRAMS[name] for name in names}


@dataclass(frozen=True)
class Load:
    """A machine, and what its init does before the work begins.

    Attributes:
        setup: shell text; `{filters}` stands for patterns of functions that a seed chooses.
        files: what it needs, by path, of each kernel.
        commands: of QEMU's monitor, one of which is given now and then while the guest runs.
        changes: True where code, modules or CPUs change all the time.
        kernels: those that have it.
    """

    setup: str = ""
    append: str = ""
    cpu: str = CPU
    smp: int = 1
    files: Callable[[Kernel], Mapping[str, bytes]] = _no_files
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
    "bpf": Load(f"{NAME} &\n", files=lambda kernel: {f"bin/{NAME}": filter_program()}),
    "fentry and fexit": Load(
        f"{TRACING_NAME} &\nusleep 300000\n",
        files=lambda kernel: {f"bin/{TRACING_NAME}": tracing_program(kernel.vmlinux, PROBED.split())},
    ),
    "fentry, fexit and probes": Load(
        f"{TRACING_NAME} &\nusleep 300000\n{UNOPTIMISED}{TRACING}{KPROBES}{KRETPROBES}{ENABLE}",
        files=lambda kernel: {f"bin/{TRACING_NAME}": tracing_program(kernel.vmlinux, PROBED.split())},
    ),
    "32-bit calls": Load(
        "".join(f"{name} &\n" for name in COMPAT), append="ia32_emulation=on", files=_programs(*COMPAT)
    ),
    "32-bit calls by sysenter": Load(
        "p_vdso_32 &\n", append="ia32_emulation=on", cpu=f"Haswell-v1{WITHOUT_CX16}", files=_programs("p_vdso_32")
    ),
    "single steps": Load("p_traps &\n", files=_programs("p_traps")),
    "bad iret": Load(
        "(while :; do p_bad_iret; p_bad_iret; usleep 1000; done 2>/dev/null) &\n", files=_programs("p_bad_iret")
    ),
    "espfix": Load("p_small_stack &\n", files=_programs("p_small_stack")),
    "uprobes": Load(f"p_calls &\n{TRACING}{UPROBES}", files=_programs("p_calls")),
    "worker": Load("p_worker &\n", smp=2, files=_programs("p_worker")),
    # To 5.18 a machine check is survived on demand. Bank 4 is none that the kernel leaves alone.
    "machine checks": Load(append="mce=3", commands=(MACHINE_CHECK,), kernels=("5.10",)),
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


LOADS_PER_KERNEL = 2
DRAWN_LOADS = [
    (kernel, load)
    for kernel in KERNELS
    for load in (
        loads_of(kernel) if CAMPAIGN_SECONDS else draw(f"campaign {kernel}", loads_of(kernel), LOADS_PER_KERNEL)
    )
]


def account_of_drawn_loads() -> Iterator[str]:
    """The line for the run's head."""
    drawn = ", ".join(f"{kernel} {load}" for kernel, load in DRAWN_LOADS)
    yield f"lab campaign: {drawn} (all {sum(len(loads_of(kernel)) for kernel in KERNELS)} by make campaign)"


def write_init(load: Load, random: Random) -> str:
    """The init of a guest with this load."""
    filters = " ".join(f"'{pattern}'" for pattern in random.sample(FILTERS, 6))
    work = "\n".join(scripts.WORKLOADS[name] for name in random.sample(WORK, 4))
    head = scripts.write_symbols(["_text"]) + load.setup.replace("{filters}", filters) + "\ncd /\n"
    return head + f"(while :; do :; done) &\necho {scripts.BUSY}\nwhile :; do\n{work}\ndone\n"

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
        aims: functions that it is about, in which the guest is stopped more often; with them, all code that the kernel made.
        commands: of QEMU's monitor, one of which is given now and then while the guest runs.
        changes: True where code, modules or CPUs change all the time.
        kernels: those that have it.
    """

    setup: str = ""
    append: str = ""
    cpu: str = CPU
    smp: int = 1
    files: Callable[[Kernel], Mapping[str, bytes]] = _no_files
    aims: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    changes: bool = False
    kernels: tuple[str, ...] = tuple(RELEASES)


# Of each load, as any of the kernels calls it.
NMIS = ("asm_exc_nmi", "exc_nmi", "default_do_nmi", "end_repeat_nmi", "first_nmi", "repeat_nmi")
FTRACE = (
    *("ftrace_caller", "ftrace_regs_caller", "ftrace_graph_caller", "return_to_handler", "ftrace_return_to_handler"),
    *("prepare_ftrace_return", "function_graph_enter", "function_graph_enter_regs", "ftrace_graph_func"),
)
PROBES = ("asm_exc_int3", "exc_int3", "kprobe_int3_handler", "optimized_callback", "setup_detour_execution")
RETURNS = (
    *("kretprobe_trampoline", "__kretprobe_trampoline", "arch_rethook_trampoline", "arch_rethook_trampoline_callback"),
    *("trampoline_handler", "__kretprobe_trampoline_handler", "rethook_trampoline_handler", "pre_handler_kretprobe"),
)
HOTPLUGS = ("take_cpu_down", "cpuhp_thread_fun", "play_dead_common", "start_secondary", "cpu_stopper_thread")
LOADING = ("load_module", "free_module", "do_init_module", "loop_init", "loop_exit")
BPF = ("__bpf_prog_enter", "__bpf_prog_exit", "__bpf_prog_enter_recur", "__bpf_prog_exit_recur", "sk_filter_trim_cap")
CALLS_32 = (
    *("entry_INT80_compat", "asm_int80_emulation", "int80_emulation", "do_int80_syscall_32", "do_int80_emulation"),
    *("entry_SYSENTER_compat", "entry_SYSCALL_compat", "do_fast_syscall_32", "do_SYSENTER_32"),
)
STEPS = ("asm_exc_debug", "exc_debug", "notify_debug", "send_sigtrap")
BAD_IRETS = ("native_irq_return_iret", "fixup_bad_iret", "asm_exc_general_protection", "exc_general_protection")
UPROBED = (
    "uprobe_notify_resume",
    "uprobe_pre_sstep_notifier",
    "arch_uprobe_pre_xol",
    "handle_swbp",
    "prepare_uretprobe",
)
WORKERS = ("io_sq_thread", "io_sq_offload_create", "__io_sq_thread")
THUNKS = (
    *("srso_return_thunk", "srso_safe_ret", "srso_alias_return_thunk", "srso_alias_safe_ret", "zen_untrain_ret"),
    *(
        "__x86_return_thunk",
        "retbleed_return_thunk",
        "retbleed_untrain_ret",
        "its_return_thunk",
        "call_depth_return_thunk",
    ),
    *("__x86_indirect_thunk_rax", "__x86_indirect_thunk_r11", "__x86_indirect_call_thunk_rax", "entry_untrain_ret"),
)

LOADS: dict[str, Load] = {
    "plain": Load(),
    "two CPUs": Load(smp=2),
    "preempt and threads": Load(append="preempt=full threadirqs", smp=2),
    "page tables apart": Load(append="pti=on"),
    "NMIs": Load(commands=("nmi",), aims=NMIS),
    "function": Load(TRACING + "echo function > current_tracer\n", aims=FTRACE),
    "graph": Load(TRACING + GRAPH, aims=FTRACE),
    "int3 probes": Load(UNOPTIMISED + TRACING + KPROBES + ENABLE, aims=PROBES),
    "detours": Load(TRACING + KPROBES + ENABLE, aims=PROBES),
    "kretprobes": Load(TRACING + KRETPROBES + ENABLE, aims=RETURNS),
    "all tracers": Load(TRACING + KPROBES + KRETPROBES + ENABLE + GRAPH, aims=FTRACE + PROBES + RETURNS),
    "hotplug": Load(HOTPLUG, smp=2, changes=True, aims=HOTPLUGS),
    "modules": Load(MODULES, smp=2, changes=True, aims=LOADING),
    "storm": Load(STORM, changes=True, aims=FTRACE + PROBES + RETURNS),
    "bpf": Load(f"{NAME} &\n", files=lambda kernel: {f"bin/{NAME}": filter_program()}, aims=BPF),
    "fentry and fexit": Load(
        f"{TRACING_NAME} &\nusleep 300000\n",
        files=lambda kernel: {f"bin/{TRACING_NAME}": tracing_program(kernel.vmlinux, PROBED.split())},
        aims=BPF,
    ),
    "fentry, fexit and probes": Load(
        f"{TRACING_NAME} &\nusleep 300000\n{UNOPTIMISED}{TRACING}{KPROBES}{KRETPROBES}{ENABLE}",
        files=lambda kernel: {f"bin/{TRACING_NAME}": tracing_program(kernel.vmlinux, PROBED.split())},
        aims=BPF + PROBES,
    ),
    "32-bit calls": Load(
        "".join(f"{name} &\n" for name in COMPAT), append="ia32_emulation=on", files=_programs(*COMPAT), aims=CALLS_32
    ),
    "32-bit calls by sysenter": Load(
        "p_vdso_32 &\n",
        append="ia32_emulation=on",
        cpu=f"Haswell-v1{WITHOUT_CX16}",
        files=_programs("p_vdso_32"),
        aims=CALLS_32,
    ),
    "single steps": Load("p_traps &\n", files=_programs("p_traps"), aims=STEPS),
    "bad iret": Load(
        "(while :; do p_bad_iret; p_bad_iret; usleep 1000; done 2>/dev/null) &\n",
        files=_programs("p_bad_iret"),
        aims=BAD_IRETS,
    ),
    "uprobes": Load(f"p_calls &\n{TRACING}{UPROBES}", files=_programs("p_calls"), aims=UPROBED),
    "worker": Load("p_worker &\n", smp=2, files=_programs("p_worker"), aims=WORKERS),
}
# Mitigations, as far as the emulated CPUs and each kernel have them.
MITIGATIONS = ("rome", "off", "retpoline", "lfence", "stuff", "its", "qemu64")
LOADS |= {
    f"boot {how}": Load(
        append=BOOTS[how].append,
        cpu=BOOTS[how].cpu,
        aims=THUNKS,
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

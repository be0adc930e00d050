"""Which kinds of machines does an audit have to account for: other CPUs, boot options, tracers and probes?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.lab import scenes, scripts
from tests.lab.fetch import Kernel
from tests.lab.guest import CPU, WITHOUT_CX16, Guest, Machine
from tests.lab.scenes import Scene

TRACING = """
mount -t tracefs tracing /sys/kernel/tracing 2>/dev/null || mount -t debugfs debug /sys/kernel/debug
cd /sys/kernel/tracing; [ -f current_tracer ] || cd /sys/kernel/debug/tracing
"""
PROBED = "do_nanosleep vfs_read do_wait schedule_timeout ksys_write"
ENABLE = "for one in events/kprobes/*/enable; do echo 1 > $one; done\n"
# Most offsets are no instruction's start, and the kernel refuses those.
KPROBES = f"""
for place in {PROBED}; do
    offset=0
    while [ $offset -lt 25 ]; do
        echo "p:at_${{place}}_$offset $place+$offset" >> kprobe_events
        offset=$((offset + 1))
    done
done 2>/dev/null
"""
KRETPROBES = f'for place in {PROBED}; do echo "r:from_$place $place" >> kprobe_events; done 2>/dev/null\n'


@dataclass(frozen=True, slots=True)
class Boot:
    """A machine whose kernel patches itself otherwise: its CPU, options, CPUs, and what its init does besides."""

    cpu: str = CPU
    append: str = ""
    smp: int = 2
    setup: str = ""


# Three keep CMPXCHG16B, which replaces calls then. With call depth tracking 6.12 does not come up without it: the return thunk
# spoils the flag that this_cpu_cmpxchg16b_emu returns.
BOOTS = {
    "one-cpu": Boot(smp=1),
    "qemu64": Boot(cpu="qemu64", smp=1),
    "rome": Boot(cpu="EPYC-Rome"),
    "off": Boot(cpu="EPYC" + WITHOUT_CX16, append="mitigations=off"),
    "retpoline": Boot(cpu="Haswell-v1" + WITHOUT_CX16, append="spectre_v2=retpoline,generic retbleed=unret"),
    "lfence": Boot(cpu="Haswell-v1" + WITHOUT_CX16, append="spectre_v2=retpoline,lfence"),
    "stuff": Boot(cpu="Skylake-Server-v1", append="spectre_v2=retpoline retbleed=stuff"),
    "its": Boot(cpu="Skylake-Server-v1" + WITHOUT_CX16, append="spectre_v2=retpoline indirect_target_selection=force"),
    "function": Boot(setup=TRACING + "echo function > current_tracer\n"),
    "graph": Boot(setup=TRACING + "echo function_graph > current_tracer\n"),
    "kprobes": Boot(setup=TRACING + KPROBES + ENABLE),
    "kretprobes": Boot(setup=TRACING + KRETPROBES + ENABLE),
}

# Known to kill its guest, and so never drawn; not the emulator's fault. Rust code, in 7.2 alone of our kernels, jumps to the
# thunk of r11 in five bytes, and `lfence; jmp *%r11` takes six: apply_retpolines warns, and the guest dies (docs/facts.md).
DEADLY = {("7.2", "lfence"): "dies early: Rust's jumps to the thunk of r11 have no room for an LFENCE (docs/facts.md)"}


def boot(kernel: str, how: str, seed: int, home: Path) -> Scene:
    """Return a scene of an idle machine that was booted as `BOOTS[how]` says, made in the folder `home`.

    It is not kept: there are too many kinds, of 280 MB each.

    Raises:
        Unavailable: the kernel or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    return scenes.fresh(kernel, how, seed, lambda found, random: _make(home, found, random, how))


def _init(random: Random, setup: str) -> str:
    """An init that starts a few tasks, does `setup` and then nothing."""
    names = random.sample(list(scripts.TASKS), 4)
    tasks = "\n".join(f"({scripts.TASKS[name]}) &" for name in names)
    head = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + tasks
    end = f"show_stacks 1\nsleep 1; echo {scripts.READY}\nwhile :; do sleep 100000; done\n"
    return f"{head}\nusleep 300000\n{setup}\n{end}"


def _make(home: Path, kernel: Kernel, random: Random, how: str) -> Scene:
    chosen = BOOTS[how]
    initrd = scenes.write_initrd(home, kernel, _init(random, chosen.setup), random)
    machine = Machine(kernel.vmlinuz, initrd, chosen.append, cpu=chosen.cpu, smp=chosen.smp)
    with Guest(machine, home / "serial.log") as guest:
        console = guest.wait_for(scripts.READY, scenes.BOOT_SECONDS)
        time.sleep(1)  # optimised probes are written some time after they were asked for
        guest.dump(home / "core")
    return scenes.describe(home, kernel, f"boot-{how}", console, kaslr=True)

"""What is a kernel like that died of something known? The lab's fatal module does the deed, having said which and to what."""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import Random

from tests.lab import scenes, scripts
from tests.lab.fetch import Kernel
from tests.lab.guest import Guest, Machine
from tests.lab.kbuild import ModuleSource, built_driver
from tests.lab.scenes import Scene
from tests.lab.strike import LOOP_SECONDS, PANIC_MARK

FATAL = ModuleSource(Path(__file__).parent / "fatal", "orcfatal")
DIE = "/sys/module/orcfatal/parameters/die"

# What each kind of death adds to the kernel's command line.
KINDS = {
    "null": "oops=panic",
    "wild": "oops=panic",
    "gp": "oops=panic",
    "callnull": "oops=panic",
    "callwild": "oops=panic",
    "uaf": "oops=panic",
    "poisoned": "oops=panic slub_debug=FPU slab_debug=FPU",
    "doublefree": "oops=panic",
    "overrun": "oops=panic",
    "listdel": "oops=panic",
    "listadd": "oops=panic",
    "bug": "oops=panic",
    "warn": "panic_on_warn=1",
    "refcount": "panic_on_warn=1",
    "overflow": "oops=panic",
    "smash": "",
    "divide": "oops=panic",
    "softlockup": "softlockup_panic=1 watchdog_thresh=2",
    "stall": "sysctl.kernel.panic_on_rcu_stall=1 rcupdate.rcu_cpu_stall_timeout=3 watchdog_thresh=30",
    "hung": "sysctl.kernel.hung_task_panic=1 sysctl.kernel.hung_task_timeout_secs=3",
    "panic": "",
    "oom": "sysctl.vm.panic_on_oom=1",
    "timer": "",
    "text": "oops=panic",
    "sysrq": "",
    "survived": "",
}
# What a kernel does not notice, so that it does not die of it.
UNNOTICED = {("7.2", "doublefree"): "sheaves take an object twice without a look at it; seen to run on"}
# The kinds whose word for the module is another's: the same deed on another machine, or none of the module's.
_DEEDS = {"poisoned": "uaf", "survived": "null"}
_WAIT = {"survived": scripts.READY}


def fatal(kernel: str, how: str, seed: int, home: Path) -> Scene:
    """A scene of one of `KINDS`, made in the folder `home`. It is not kept.

    Raises:
        Unavailable: the kernel, its headers, their tools or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    built_driver(kernel, FATAL)
    return scenes.fresh(kernel, f"fatal-{how}", seed, lambda found, random: _make(home, found, random, how))


def _init(random: Random, how: str) -> str:
    rounds = "show_stacks 1; show_stacks 2\n"
    load = f"mkdir -p /sys; mount -t sysfs sysfs /sys 2>/dev/null; insmod /fatal/{FATAL.name}.ko\n"
    deed = f"echo {_DEEDS.get(how, how)} > {DIE}\n" if how != "sysrq" else "echo c > /proc/sysrq-trigger\n"
    end = f"sleep 1; echo {scripts.READY}\nwhile :; do sleep 1000; done\n"
    # No task that reads the log: the console would not have it.
    tasks = "sleep 100000 &\n" * random.randint(3, 9) + "sleep 100000 | cat &\n"
    head = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + tasks
    return head + rounds + load + f"echo {scripts.BUSY}\n({deed})\n" + end


def _make(home: Path, kernel: Kernel, random: Random, how: str) -> Scene:
    file = built_driver(kernel.name, FATAL).file
    initrd = scenes.write_initrd(
        home, kernel, _init(random, how), random, {f"fatal/{FATAL.name}.ko": file.read_bytes()}
    )
    append = f"panic=0 ignore_loglevel {KINDS[how]}"
    with Guest(Machine(kernel.vmlinuz, initrd, append, smp=2), home / "serial.log") as guest:
        guest.wait_for(scripts.BUSY, scenes.BOOT_SECONDS)
        console = guest.wait_for(_WAIT.get(how, PANIC_MARK), scenes.BOOT_SECONDS)
        time.sleep(LOOP_SECONDS)
        guest.dump(home / "core")
    return scenes.describe(home, kernel, f"fatal-{how}", console, kaslr=True)


def told(scene: Scene) -> dict[str, str]:
    """What the module said before it died, by its keys; an address is sixteen digits."""
    text = scene.serial.read_text("utf-8", "replace")
    return {key: words.strip() for key, words in re.findall(rf"{FATAL.name}: (\w+) ([^\r\n]*)", text)}

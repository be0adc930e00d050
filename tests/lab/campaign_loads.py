"""What do guests of the campaign do, and on which CPUs and with which options were they booted?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.lab import scripts
from tests.lab.boots import BOOTS, ENABLE, KPROBES, KRETPROBES, TRACING
from tests.lab.bpf_program import NAME, filter_program
from tests.lab.guest import CPU, WITHOUT_CX16
from tests.lab.test_user_entries import LOOP_BY_VDSO
from tests.lab.program import executable, executable_32

# None of those that wait for all children: some of these never end.
WORK = "\n".join(scripts.WORKLOADS[name] for name in ("pipe", "timer", "signal", "copy", "proc"))


@dataclass(frozen=True)
class Load:
    """A machine, and what its init does before the work begins.

    Attributes:
        changes: True where code, modules or CPUs change all the time.
        kernels: those that have it; all where empty.
    """

    setup: str = ""
    append: str = ""
    cpu: str = CPU
    smp: int = 1
    files: Mapping[str, bytes] = field(default_factory=dict)
    changes: bool = False
    kernels: tuple[str, ...] = ()


LOADS: dict[str, Load] = {
    "plain": Load(),
    "two CPUs": Load(smp=2),
    "preempt and threads": Load(append="preempt=full threadirqs", smp=2),
}


def write_init(load: Load) -> str:
    """The init of a guest with this load."""
    head = scripts.write_symbols(["_text"]) + load.setup + "\ncd /\n"
    return head + f"(while :; do :; done) &\necho {scripts.BUSY}\nwhile :; do\n{WORK}\ndone\n"

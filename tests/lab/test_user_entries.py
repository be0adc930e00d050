"""Tasks that came from user mode by rare ways, or never were there: what is said of the program's side is right or left out.

One guest a kernel: 32-bit calls by three instructions, a code segment of the program's own, a worker of io_uring, a program
that sets its GS base to an address of the kernel, and a CPU that is possible and never started.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

import orcdbg
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind, StackTrace
from orcdbg.unwind.system_calls import name_of_call
from tests.lab import scripts
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.conftest import KERNELS
from tests.lab.guest import WITHOUT_CX16
from tests.lab.live import open_live
from tests.lab.program import executable, executable_32
from tests.lab.rare_programs import LOOP_BY_VDSO, WORKER
from tests.lab.shadow import user_place

pytestmark = pytest.mark.lab

DUMPS = 20  # until one finds the program in user mode

# Each is what `as` makes of the lines above it.
PAUSE_32 = bytes.fromhex("b81d000000 cd80 ebf7")  # 1: mov $29,%eax; int $0x80; jmp 1b
# The vDSO's entry, from the auxiliary vector: sysenter or syscall, or int $0x80 where the CPU has neither.
PAUSE_BY_VDSO = bytes.fromhex("89e6 ad 8d748604 ad 85c0 75fb ad 89c2 ad 83fa20 75f7 89c7 b81d000000 ffd7 ebf7")
# modify_ldt(1, {1, 0, 0xfffff, code of 32 bits}); a far jump to 0xf, then PAUSE_32. QEMU 7.2 reads the stack of a far return
# as the kernel would, which SMAP forbids.
OWN_SEGMENT = bytes.fromhex(
    "be00104000 c70601000000 c7460400000000 c74608ffff0f00 c7460c55000000 bf01000000 ba10000000 b89a000000 0f05"
    "488d050d000000 894610 c746140f000000 ff6e10 b81d000000 cd80 ebf7"
)
# wrgsbase of 0xffff888000001000; 1: jmp 1b
OWN_BASE = bytes.fromhex("48b8001000008088ffff f3480faed8 ebfe")
PROGRAMS = {
    "p_int80": executable(PAUSE_32),
    "p_int80_32": executable_32(PAUSE_32),
    "p_vdso_32": executable_32(PAUSE_BY_VDSO),
    "p_segment": executable(OWN_SEGMENT),
    "p_worker": executable(WORKER),
    "p_base": executable(OWN_BASE),
}
# Its vDSO calls by sysenter, as on every CPU of this vendor; the emulator's own CPU is of the other.
SYSENTER_CPU = "Haswell-v1" + WITHOUT_CX16
STEPS = 200
# The last one never sleeps: on the one CPU there is, it runs when the guest is stopped.
INIT = (
    "\n".join(f"{name} &" for name in list(PROGRAMS)[:-1]) + f"\nsleep 3\np_base &\necho {scripts.BUSY}\nsleep 100000\n"
)


def user_frame(trace: StackTrace) -> tuple[int, int]:
    """Where the program is, and its code segment."""
    user = trace.frames[-1]
    assert (user.kind, user.doubt) == (FrameKind.USER, None), trace
    return user.ip, user.registers["cs"].value


def check_calls(session: Session, traces: dict[str, StackTrace]) -> None:
    """All 32-bit calls are `pause`, which is 29; among 64-bit calls that would be shmget."""
    for name, cs in (("p_int80", 0x33), ("p_int80_32", 0x23), ("p_vdso_32", 0x23), ("p_segment", 0xF)):
        trace = traces[name]
        assert trace.end is End.USER, (name, trace.end_reason)
        assert not [frame for frame in trace.frames if frame.doubt], name
        ip, segment = user_frame(trace)
        assert (segment, ip != 0) == (cs, True), name
        assert name_of_call(session.linux, trace) == "pause", name
    assert name_of_call(session.linux, traces["p_worker"]) == "pause"


def check_worker(session: Session) -> None:
    """io_uring's thread ends where it began, whether it is a kernel thread (to 5.11) or a process's."""
    workers = [task for task in session.tasks if task.comm.startswith(("iou-sqp", "io_uring-sq"))]
    assert workers
    for trace in session.unwinder.traces(workers):
        assert trace.end is End.KTHREAD, trace.end_reason
        assert not [frame for frame in trace.frames if frame.doubt or frame.kind is FrameKind.USER]


def check_cpus(session: Session) -> None:
    """One CPU runs: the program, in user mode, with its own registers. The other one runs nothing."""
    (note, *_) = session.snapshot.cpus
    ((address, (cpu, state)),) = session.unwinder.running.items()
    task = session.task(address)
    assert (task.comm, cpu) == ("p_base", 0)
    assert state is not None
    assert state.gs_base == 0xFFFF_8880_0000_1000
    assert state.kernel_gs_base == session.linux.per_cpu_offset(0)
    trace = session.unwinder.trace(task)
    assert (trace.end, len(trace.frames), trace.frames[0].ip) == (End.USER, 1, note.registers["rip"])
    assert name_of_call(session.linux, trace) is None
    assert session.linux.cpu_limit() == 2


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_what_is_said_of_user_mode_is_right(kernel: str, seed: int, tmp_path: Path) -> None:
    """The call's name by its own table, the program's ip, and nobody's registers where there is no program."""
    random = Random(f"{seed} {kernel} user entries")
    append = "maxcpus=1 ia32_emulation=on " + "pti=on" * (random.random() < 0.5)
    with busy_guest(kernel, random, tmp_path, append, smp=2, init=INIT, files=files()) as (guest, found, _):
        for _ in range(DUMPS):
            time.sleep(2 + random.random())
            guest.dump(tmp_path / "core")
            session = orcdbg.open(found.vmlinux, tmp_path / "core")
            # On a busy host the timer's interrupt takes a good part of the guest's time: then the CPU is in the kernel.
            if session.snapshot.cpus[0].registers["cs"] & 3:
                break
    traces = {task.comm: session.unwinder.trace(task) for task in session.tasks if task.comm in PROGRAMS}
    places = {name: trace.frames[-2].location for name, trace in traces.items() if len(trace.frames) > 1}
    entries = {name: place.symbol for name, place in places.items() if place is not None}
    print(f"{kernel} {append}: {entries}")
    assert sorted(traces) == sorted(PROGRAMS)
    check_cpus(session)
    check_calls(session, traces)
    check_worker(session)


def files() -> dict[str, bytes]:
    """The programs by their paths."""
    return {f"bin/{name}": data for name, data in PROGRAMS.items()}


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_sysenters_placeholder_is_never_the_users(kernel: str, seed: int, tmp_path: Path) -> None:
    """At every instruction until the kernel has filled it in, and behind that: the same place, or none."""
    random = Random(f"{seed} {kernel} sysenter")
    init = scripts.write_symbols(["_text"]) + f"p_loop &\necho {scripts.BUSY}\nsleep 100000\n"
    programs = {"bin/p_loop": executable_32(LOOP_BY_VDSO)}
    append = "ia32_emulation=on " + "pti=on" * (random.random() < 0.5)
    guest = busy_guest(kernel, random, tmp_path, append, init=init, files=programs, cpu=SYSENTER_CPU)
    with guest as (running, found, console), running.stub() as stub:
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        entry = live.session.linux.address("entry_SYSENTER_compat_after_hwframe")
        stub.set_breakpoint(entry)
        assert stub.resume(20.0)
        stub.clear_breakpoint(entry)
        user_sp = stub.read_registers()["rbp"]

        shown: dict[bool, set[tuple[int, int]]] = {False: set(), True: set()}
        for _ in range(STEPS):
            stub.step()
            ip, _ = user_place(live)
            trace = live.trace()
            if trace.frames[-1].kind is FrameKind.USER:
                shown[ip != 0].add((trace.frames[-1].ip, trace.frames[-1].sp))
    print(f"{kernel} {append}: before it is filled in {shown[False]}, then {shown[True]}")
    assert shown[True] == {(ip, user_sp)}
    assert shown[False] == shown[True]

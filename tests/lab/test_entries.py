"""Truth by stepping: through the code by which a CPU enters the kernel and leaves it, also where entries nest.

System calls, faults, timer interrupts, breakpoints, NMIs, NMIs in NMIs, new tasks and softirqs: at every instruction the
frames must be the calls that were made since, and below them what the entry interrupted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from orcdbg.kernel.stacks import task_stack
from orcdbg.kernel.tasks import current_task
from tests.lab import scripts
from tests.lab.boots import TRACING
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.conftest import KERNELS
from tests.lab.deaths import note_death
from tests.lab.gdbstub import StubError
from tests.lab.guest import Guest
from tests.lab.live import LiveKernel, open_live
from tests.lab.shadow import Place, Shadow, Values, read_words, user_place

pytestmark = pytest.mark.lab

WAIT, ATTEMPTS = 20.0, 60
ELSEWHERE = 40  # stops in other code that entry code called
INSIDE = 120  # most instructions of its handler at which an NMI is interrupted
ENOUGH = 8  # scenes, of all fourteen
SWITCH = 40  # instructions on the next task's stack before `current` names it, at least
DEATHS = ("Kernel panic", "Oops:", "double fault")
# None of those that wait for all children: some of these never end.
WORK = "\n".join(scripts.WORKLOADS[name] for name in ("pipe", "timer", "signal", "copy"))
PROBES = (
    "echo 0 > /proc/sys/debug/kprobes-optimization\n"
    + TRACING
    + """
for name in ksys_read hrtimer_nanosleep; do
    for offset in $(seq 1 24); do echo "p:${name}_$offset $name+$offset" >> kprobe_events; done 2>/dev/null
done
for one in events/kprobes/*/enable; do echo 1 > $one; done
cd /
"""
)
INIT = scripts.write_symbols(["_text"]) + PROBES + f"(while :; do :; done) &\necho {scripts.BUSY}\n" + (
    f"while :; do\n{WORK}\ndone\n"
)  # fmt: skip
PROBED = 25  # bytes of each function whose instructions are probed, the first left out
INT3, ONE_BYTE_PUSHES = 0xCC, range(0x50, 0x58)
SOFTIRQ = ("handle_softirqs", "__do_softirq")


@dataclass
class Lab:
    """A stopped guest, and what the seed says."""

    guest: Guest
    live: LiveKernel
    random: Random

    def address(self, *names: str) -> int:
        """Where the first of these functions is that the kernel has."""
        found = [self.live.session.linux.find_address(name) for name in names]
        return next(address for address in found if address is not None)

    def stop(self, address: int) -> Values:
        """Runs the guest to an address."""
        stub = self.live.stub
        stub.set_breakpoint(address)
        is_hit = stub.resume(WAIT)
        stub.clear_breakpoint(address)
        registers = stub.read_registers()
        if not is_hit or registers["rip"] != address:
            raise StubError(f"the guest did not come to {address:#x}")
        return registers

    def places(self) -> list[Place]:
        """The frames here, all of them sure."""
        trace = self.live.trace()
        assert (trace.end_reason, {frame.doubt for frame in trace.frames}) == (None, {None}), trace
        return [(frame.ip, frame.sp) for frame in trace.frames]

    def entered(self, name: str, words: int, mode: str) -> list[Place]:
        """Runs to an exception's first instruction: what it interrupted, by the words that the CPU pushed."""
        for _ in range(ATTEMPTS):
            registers = self.stop(self.address(name))
            ip, cs, _, sp, _ = read_words(self.live, registers["rsp"] + 8 * words, 5)
            if (mode == "user") == (cs & 3 == 3):
                break
            self.live.stub.step()
        else:
            raise StubError(f"no {name} from {mode} mode")
        known = [(ip, sp)] if mode == "user" else self.places()[1:]
        assert known[0] == (ip, sp)
        return known


def syscall(lab: Lab) -> Shadow:
    """From the first instruction, where the user's registers are all still there, to user mode."""
    registers = lab.stop(lab.address("entry_SYSCALL_64"))
    shadow = Shadow(lab.live, [(registers["rcx"], registers["rsp"])])
    end = shadow.follow(ELSEWHERE)
    assert (end["rip"], end["rsp"]) == shadow.known[0]
    return shadow


def exception(name: str, words: int, mode: str) -> Callable[[Lab], Shadow]:
    """From an exception's first instruction to where it returns."""

    def scene(lab: Lab) -> Shadow:
        shadow = Shadow(lab.live, lab.entered(name, words, mode))
        end = shadow.follow(ELSEWHERE)
        assert (end["rip"], end["rsp"]) == shadow.known[0]
        return shadow

    return scene


def probed_push(lab: Lab) -> Shadow:
    """A probe in place of a one-byte push, from the int3 on to where its handler returns: to a copy of the push.

    What the CPU saves is one past the int3, where the row already counts the push that has not been run. The truth is taken
    from before the int3.
    """
    live = lab.live
    places = list[int]()
    for start in (lab.address("ksys_read"), lab.address("hrtimer_nanosleep")):
        now, built = (text.read(start, PROBED) for text in (live.session.memory, live.session.built))
        places += [start + at for at in range(1, PROBED) if now[at] == INT3 and built[at] in ONE_BYTE_PUSHES]
    assert places, "no push is probed"
    place = lab.random.choice(places)

    registers = lab.stop(place)
    callers = lab.places()[1:]
    live.stub.step()
    assert live.stub.read_registers()["rip"] == lab.address("asm_exc_int3")
    shadow = Shadow(live, [(place + 1, registers["rsp"]), *callers])
    shadow.follow(ELSEWHERE)
    return shadow


def new_task(lab: Lab) -> Shadow:
    """From a new task's first instruction to user mode."""
    lab.stop(lab.address("ret_from_fork_asm", "ret_from_fork"))
    while lab.live.stub.read_registers()["rbx"]:  # a kernel thread's function
        lab.live.stub.step()
        lab.stop(lab.address("ret_from_fork_asm", "ret_from_fork"))
    shadow = Shadow(lab.live, [user_place(lab.live)])
    end = shadow.follow(ELSEWHERE)
    assert (end["rip"], end["rsp"]) == shadow.known[0]
    return shadow


def nmi(mode: str) -> Callable[[Lab], Shadow]:
    """An NMI from a known place, to its return there."""

    def scene(lab: Lab) -> Shadow:
        known = interrupted(lab, mode)
        lab.guest.qmp("inject-nmi")
        lab.stop(lab.address("asm_exc_nmi"))
        shadow = Shadow(lab.live, known, [lab.address("repeat_nmi")])
        end = shadow.follow(ELSEWHERE)
        assert (end["rip"], end["rsp"]) == known[0]
        return shadow

    return scene


def interrupted(lab: Lab, mode: str) -> list[Place]:
    """The frames of a place in the kernel, in user mode, or between them."""
    if mode == "kernel":
        lab.stop(lab.address("vfs_read"))
        return lab.places()
    if mode == "switch":
        return inside_switch(lab)
    if mode == "entry":
        lab.stop(lab.address("entry_SYSCALL_64"))
        for _ in range(lab.random.randrange(30)):
            lab.live.stub.step()
        return lab.places()
    for _ in range(ATTEMPTS):
        lab.live.stub.resume(0.02 * lab.random.random())
        registers = lab.live.stub.read_registers()
        if registers["cs"] & 3:
            return [(registers["rip"], registers["rsp"])]
    raise StubError("the guest was never in user mode")


def inside_switch(lab: Lab) -> list[Place]:
    """The frames of a CPU that is on the next task's stack, while `current` still names the last one."""
    linux, stub = lab.live.session.linux, lab.live.stub
    lab.stop(lab.address("__switch_to_asm"))
    incoming = stub.read_registers()["rsi"]
    stack = task_stack(linux, incoming)
    assert stack is not None
    while not stack.holds(stub.read_registers()["rsp"]):
        stub.step()
    for _ in range(lab.random.randrange(SWITCH)):
        stub.step()

    lab.live.session.memory.forget()
    assert current_task(linux, 0) != incoming
    places = lab.places()
    assert list(lab.live.unwinder().running) == [incoming]
    return places


def nmi_in_nmi(lab: Lab) -> Shadow:
    """A second NMI somewhere in the first one's handler, after an iret has let NMIs in again, as one of an exception would.

    The second one returns, the first one does, is repeated, and returns to what it interrupted.
    """
    known = interrupted(lab, "kernel")
    repeat, entry = lab.address("repeat_nmi"), lab.address("asm_exc_nmi")
    lab.guest.qmp("inject-nmi")
    lab.stop(entry)
    first = Shadow(lab.live, known, [repeat])
    handler, count = lab.address("exc_nmi"), lab.random.randrange(INSIDE)
    while first.step()["rip"] != handler:
        pass
    for _ in range(count):
        first.step()
    inner = lab.places()
    return_to_here(lab)
    lab.guest.qmp("inject-nmi")
    lab.stop(entry)
    second = Shadow(lab.live, inner)
    end = second.follow(ELSEWHERE)
    assert (end["rip"], end["rsp"]) == inner[0]
    end = first.follow(ELSEWHERE)
    assert (end["rip"], end["rsp"]) == known[0]
    first.stops += second.stops
    first.unsure += second.unsure
    return first


def return_to_here(lab: Lab) -> None:
    """Has the CPU execute an iret that leads to where it is."""
    stub, memory = lab.live.stub, lab.live.session.memory
    registers = stub.read_registers()
    ip, sp = registers["rip"], registers["rsp"]
    frame = (ip, registers["cs"], registers["eflags"], sp, registers["ss"])
    at = (sp & ~15) - 64
    stub.write_memory(memory.translate(at), b"".join(word.to_bytes(8, "little") for word in frame))
    iret = lab.address("native_irq_return_iret")
    iret += memory.read(iret, 16).index(b"\x48\xcf")
    stub.write_register("rsp", at)
    stub.write_register("rip", iret)
    stub.step()
    after = stub.read_registers()
    assert (after["rip"], after["rsp"]) == (ip, sp)


def softirq(lab: Lab) -> Shadow:
    """A softirq after a timer interrupt of a task, and the next timer interrupt in that softirq."""
    for _ in range(ATTEMPTS):
        known = lab.entered("asm_sysvec_apic_timer_interrupt", 0, "kernel")
        lab.stop(lab.address(*SOFTIRQ))
        inside = lab.places()
        if inside[-len(known) :] == known:
            break
    else:
        raise StubError("no softirq after a timer interrupt")
    shadow = Shadow(lab.live, inside[1:])
    shadow.watch(INSIDE)
    for _ in range(ATTEMPTS):
        nested = lab.entered("asm_sysvec_apic_timer_interrupt", 0, "kernel")
        if nested[-len(inside) + 1 :] == inside[1:]:
            print("an interrupt in a softirq on an interrupt's stack")
            break
        lab.live.stub.step()
    again = Shadow(lab.live, nested)
    again.follow(ELSEWHERE)
    shadow.stops += again.stops
    shadow.unsure += again.unsure
    return shadow


SCENES: dict[str, Callable[[Lab], Shadow]] = {
    "system call": syscall,
    "page fault from user mode": exception("asm_exc_page_fault", 1, "user"),
    "page fault in the kernel": exception("asm_exc_page_fault", 1, "kernel"),
    "timer in user mode": exception("asm_sysvec_apic_timer_interrupt", 0, "user"),
    "timer in the kernel": exception("asm_sysvec_apic_timer_interrupt", 0, "kernel"),
    "breakpoint": exception("asm_exc_int3", 0, "kernel"),
    "probe in place of a push": probed_push,
    "NMI in user mode": nmi("user"),
    "NMI in the kernel": nmi("kernel"),
    "NMI in a system call's entry": nmi("entry"),
    "NMI in a switch of tasks": nmi("switch"),
    "NMI in an NMI": nmi_in_nmi,
    "new task": new_task,
    "softirq": softirq,
}


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_callers_are_known_or_said_not_to_be_at_every_instruction_of_entry_code(
    kernel: str, seed: int, tmp_path: Path
) -> None:
    """No sure frame is wrong, none is left out in silence, and user mode is where it was."""
    random = Random(f"{seed} {kernel}")
    names, stops = random.sample(list(SCENES), len(SCENES)), Counter[str]()
    append, unsure = "pti=on" * (random.random() < 0.5), list[str]()
    with busy_guest(kernel, random, tmp_path, append, init=INIT) as (guest, found, console), guest.stub() as stub:
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        for name in names:
            try:
                shadow = SCENES[name](Lab(guest, live, random))
            except StubError as error:
                time.sleep(1)
                print(f"{kernel}: {name}: {error.message}")
                if any(death in guest.console() for death in DEATHS):
                    if len(stops) < ENOUGH:
                        raise  # and begin anew
                    note_death(f"{kernel}, in {name}, which is left out with what follows", error.message)
                    break
                continue
            stops[name] += shadow.stops
            unsure += shadow.unsure
    reasons = Counter(text.partition(": ")[2].partition(" at 0x")[0] for text in unsure)
    print(f"{kernel} {append}: {dict(stops)}, unsure: {dict(reasons)}, such as {unsure[:6]}")
    assert len(stops) >= ENOUGH

"""Which moments are kernels stopped at: panics from a task, from an interrupt, from a softirq, and CPUs in user mode?"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from random import Random

from tests.lab import scenes, scripts
from tests.lab.fetch import Kernel
from tests.lab.gdbstub import GdbStub, StubError
from tests.lab.guest import Guest, GuestError, Machine
from tests.lab.scenes import Scene
from tests.lab.strike import LOOP_SECONDS, PANIC_MARK, PANIC_SECONDS, stop_at

SPINNING = "while :; do :; done &\n"
# TCP over the loopback device: most of its work is done in softirqs, which timers interrupt.
NETWORK = "ifconfig lo 127.0.0.1; nc -l -p 7009 > /dev/null & usleep 200000; yes | nc 127.0.0.1 7009 > /dev/null &\n"
SOFTIRQ = ("handle_softirqs", "__do_softirq")
IN_INTERRUPTS = ("hrtimer_interrupt", "update_process_times", "run_timer_softirq", "rcu_core", "ktime_get")
STACK_BYTES, TEXT_BYTES = 0x600, 0x300
COMING_SECONDS, PASSING_SECONDS = 10.0, 30.0  # to the first hit of a breakpoint, and for the further ones
HITS = 400  # of the timer, after which one that interrupted no softirq will do
SAVING = "error_entry"  # what interrupts and faults call to have the registers saved; struck anywhere in it
SAVING_STEPS = 40  # instructions from its start that stay in it where the kernel was interrupted, or fewer
CS_ABOVE = 24  # bytes above its return address: orig_ax, ip, cs
KINDS = ("sysrq-c", "interrupt", "softirq", "entry", "user")


def panic(kernel: str, how: str, seed: int, home: Path) -> Scene:
    """Return a scene of one of `KINDS`, made in the folder `home`. It is not kept.

    Raises:
        Unavailable: the kernel or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    return scenes.fresh(kernel, how, seed, lambda found, random: _make(home, found, random, how))


def _init(random: Random, how: str) -> str:
    """An init whose guest is busy in the way that the kind wants."""
    text = scripts.write_busy(random, "|".join((*IN_INTERRUPTS, *SOFTIRQ, SAVING)))
    begin = f"echo {scripts.BUSY}\n"
    before = {
        "sysrq-c": f"(usleep {random.randrange(500_000)}; echo c > /proc/sysrq-trigger) &\n",
        "softirq": NETWORK,
        "user": SPINNING * 3,
    }.get(how, "")
    wait = "while :; do sleep 1000; done\n" if how == "user" else ""
    return text.replace(begin, before + begin + wait if how != "sysrq-c" else begin + before)


def _make(home: Path, kernel: Kernel, random: Random, how: str) -> Scene:
    initrd = scenes.write_initrd(home, kernel, _init(random, how), random)
    kaslr, smp = (
        random.random() < 0.5,
        random.choice((1, 2)) if how in ("interrupt", "entry") else 1 if how == "softirq" else 2,
    )
    append = "unknown_nmi_panic panic=0" + " nokaslr" * (not kaslr)
    with Guest(Machine(kernel.vmlinuz, initrd, append, smp=smp), home / "serial.log") as guest:
        console = guest.wait_for(scripts.BUSY, scenes.BOOT_SECONDS)
        time.sleep(random.random())
        if how in ("interrupt", "softirq"):
            _strike_interrupt(guest, random, how, scripts.parse_symbols(console))
        if how == "entry":
            _strike_entry(guest, random, scripts.parse_symbols(console))
        if how != "user":
            console = guest.wait_for(PANIC_MARK, PANIC_SECONDS)
            time.sleep(LOOP_SECONDS)
        guest.dump(home / "core")
    return dataclasses.replace(scenes.describe(home, kernel, f"panic-{how}", console, kaslr), seed=0)


def _strike_interrupt(guest: Guest, random: Random, how: str, symbols: dict[str, int]) -> None:
    """An NMI while the CPU is in an interrupt; in one that interrupted a softirq, where that comes soon enough."""
    known = [name for name in IN_INTERRUPTS if name in symbols]
    if not known:
        raise GuestError(f"none of {IN_INTERRUPTS} is in the kernel's list")
    softirq = next((symbols[name] for name in SOFTIRQ if name in symbols), 0)

    def nested(stub: GdbStub, registers: dict[str, int]) -> bool:
        return _interrupted_softirq(stub, registers["rsp"], softirq)

    with guest.stub() as stub:
        if how == "softirq":
            address = symbols["hrtimer_interrupt"]
            stop_at(stub, address, nested, random.randrange(3), HITS)
        else:
            address = _come_to(stub, random, [symbols[name] for name in known])
            _pass(stub, address, random.randrange(40))
        stub.clear_breakpoint(address)
        guest.qmp("inject-nmi")


def _come_to(stub: GdbStub, random: Random, places: list[int]) -> int:
    """Runs to one of these places, in an order by chance: not all work makes callbacks for RCU, or timers that end."""
    for address in random.sample(places, len(places)):
        stub.set_breakpoint(address)
        if stub.resume(COMING_SECONDS):
            _stands_at(stub, address)
            return address
        stub.clear_breakpoint(address)
        print(f"{address:#x} was not come to in {COMING_SECONDS} seconds")
    raise GuestError("no place in interrupts was come to")


def _pass(stub: GdbStub, address: int, hits: int) -> None:
    """Lets some hits pass of the breakpoint that the guest stands at, as many as come."""
    until = time.monotonic() + PASSING_SECONDS
    for _ in range(hits):
        if time.monotonic() > until:
            return
        stub.skip_breakpoint(address)
        while not stub.resume(COMING_SECONDS):
            if time.monotonic() > until:
                raise GuestError(f"{address:#x} was come to once, and not again")
        _stands_at(stub, address)


def _stands_at(stub: GdbStub, address: int) -> None:
    """Reads the registers, as the stub wants before it steps."""
    ip = stub.read_registers()["rip"]
    if ip != address:
        raise GuestError(f"stopped at {ip:#x}, not {address:#x}")


def _strike_entry(guest: Guest, random: Random, symbols: dict[str, int]) -> None:
    """An NMI at some instruction of the code that saves the registers of an interrupted kernel."""
    if SAVING not in symbols:
        raise GuestError(f"{SAVING} is not in the kernel's list")
    start = symbols[SAVING]
    with guest.stub() as stub:
        stop_at(stub, start, _interrupted_kernel, random.randrange(20), HITS)
        stub.clear_breakpoint(start)
        for _ in range(random.randrange(SAVING_STEPS)):
            stub.step()
            if not start <= stub.read_registers()["rip"] < start + TEXT_BYTES:
                break
        guest.qmp("inject-nmi")


def _interrupted_kernel(stub: GdbStub, registers: dict[str, int]) -> bool:
    """Whether the code segment that the CPU saved is the kernel's."""
    return not stub.read_memory(registers["rsp"] + CS_ABOVE, 1)[0] & 3


def _interrupted_softirq(stub: GdbStub, sp: int, softirq: int) -> bool:
    """Whether a return address of the softirq loop is on the stack."""
    try:
        data = stub.read_memory(sp, STACK_BYTES)
    except StubError:
        return False
    words = (int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) - 7, 8))
    return any(softirq < word < softirq + TEXT_BYTES for word in words)

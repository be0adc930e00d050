"""How an NMI is made to strike a kernel at one exact instruction: between a patched-in `pushf` and its `pop`."""

from __future__ import annotations

import itertools
import re
import struct
import time
from collections.abc import Callable

from tests.lab.gdbstub import GdbStub, StubError
from tests.lab.guest import Guest, GuestError

HIT_SECONDS = 60.0
PANIC_SECONDS = 60.0
# 5.10 leaves the line after this one ("end Kernel panic") in a buffer that an NMI cannot flush.
PANIC_MARK = "Kernel Offset: "
LOOP_SECONDS = 0.3  # from there to the panic's last, endless loop

PUSHF_POP = b"\x9c\x58"  # pushf; pop %rax: what replaced call *pv_ops+irq.save_fl
SCAN_BYTES = 0x80
PATIENCE = 3000  # hits, after which any will do: some workloads hardly ever come by as wanted

INTERRUPTS_ENABLED = 0x200  # EFLAGS.IF
STACK_SIZE = 0x4000
PT_REGS = struct.Struct("<21Q")  # at the top of a task's stack while it is in the kernel
PADDINGS = (0, 16)  # above them; 16 where the kernel was built with FRED (from 6.9 on)
USER_CODE = 0x33
DEEP_ENOUGH = 0x1C0  # bytes of stack between the entry and the hit: a handful of frames to look at

Wanted = Callable[[GdbStub, dict[str, int]], bool]


def in_system_call(stub: GdbStub, registers: dict[str, int]) -> bool:
    """Tell whether the CPU is well inside a task's system call: user registers top its stack, some frames above."""
    top = (registers["rsp"] | STACK_SIZE - 1) + 1
    return any(_has_user_registers(stub, top - padding, registers["rsp"]) for padding in PADDINGS)


def _has_user_registers(stub: GdbStub, end: int, sp: int) -> bool:
    start = end - PT_REGS.size
    if start - sp < DEEP_ENOUGH:
        return False
    try:
        saved: tuple[int, ...] = PT_REGS.unpack(stub.read_memory(start, PT_REGS.size))
    except StubError:  # not a task's stack, but a smaller one with nothing mapped above it
        return False
    r11, rcx, rip, cs, eflags = saved[6], saved[11], saved[16], saved[17], saved[18]
    # The syscall instruction, unlike an exception or interrupt, leaves copies of RIP and EFLAGS in these two.
    return cs == USER_CODE and (rcx, r11) == (rip, eflags)


def interrupts_on(_stub: GdbStub, registers: dict[str, int]) -> bool:
    """Tell whether interrupts are enabled: no timer has just come in, so this is mostly a task's own doing."""
    return bool(registers["eflags"] & INTERRUPTS_ENABLED)


def anywhere(_stub: GdbStub, _registers: dict[str, int]) -> bool:
    """Take any hit; most are the timer's."""
    return True


# A seed picks one of these and how many such hits to let pass, up to the number given. Stopping slows the guest so much
# that its timer makes nine hits of ten, and a system call's are rare.
WANTED: list[tuple[Wanted, int]] = [(in_system_call, 8), (in_system_call, 8), (interrupts_on, 40), (anywhere, 40)]


def strike(guest: Guest, symbol: str, start: int, offset: int | None, wanted: Wanted, skipped: int) -> dict[str, int]:
    """Panic the guest by an NMI at a chosen `pop`, and return the CPU's registers there.

    Args:
        start: the address of the function `symbol` in the running kernel.
        offset: of the `pop`; None looks for it.
        wanted: which hits count.
        skipped: how many that count to let pass first.

    Raises:
        GuestError: the guest does not come there, or panics otherwise.
    """
    with guest.stub() as stub:
        address = start + (find_pop(stub, start) if offset is None else offset)
        registers = stop_at(stub, address, wanted, skipped)
        stub.clear_breakpoint(address)
        guest.qmp("inject-nmi")
    console = guest.wait_for(PANIC_MARK, PANIC_SECONDS)
    time.sleep(LOOP_SECONDS)
    check_panic(console, symbol, address - start)
    return registers


def find_pop(stub: GdbStub, start: int, size: int = SCAN_BYTES) -> int:
    """Return the offset of the `pop` after a patched-in `pushf` in the first `size` bytes of a function.

    Raises:
        GuestError: its first bytes hold no such pair.
    """
    code = read_text(stub, start, size)
    found = code.find(PUSHF_POP)
    if found < 0:
        raise GuestError(f"no pushf; pop at {start:#x}: {code.hex()}")
    return found + 1


def read_text(stub: GdbStub, address: int, size: int) -> bytes:
    """Return kernel text, letting the guest run on a little while user page tables hide it."""
    for _ in range(20):
        try:
            return stub.read_memory(address, size)
        except StubError:
            stub.resume(0.01)
    raise GuestError(f"{address:#x} cannot be read")


def stop_at(stub: GdbStub, address: int, wanted: Wanted, skipped: int, patience: int = PATIENCE) -> dict[str, int]:
    """Run to a breakpoint at `address`, let `skipped` wanted hits pass, and return the registers at the next one.

    After `patience` hits any will do.

    Raises:
        GuestError: the guest does not come here.
    """
    stub.set_breakpoint(address)
    for hit in itertools.count():
        if not stub.resume(HIT_SECONDS):
            raise GuestError(f"{address:#x} was not reached")
        registers = stub.read_registers()
        if registers["rip"] != address:
            raise GuestError(f"stopped at {registers['rip']:#x}, not {address:#x}")
        counts = wanted(stub, registers)
        if hit >= patience or (counts and not skipped):
            return registers
        skipped -= counts
        stub.skip_breakpoint(address)
    raise AssertionError("unreachable")


def check_panic(console: str, symbol: str, offset: int) -> None:
    """Check the kernel's own word that the NMI struck at `symbol` + `offset`.

    Raises:
        GuestError: it struck elsewhere.
    """
    struck = re.search(r"RIP: \w+:(\S+)", console)
    if not struck or not struck.group(1).startswith(f"{symbol}+{offset:#x}/"):
        raise GuestError(f"the NMI struck at {struck and struck.group(1)}, not {symbol}+{offset:#x}")

"""How is a running guest asked like a snapshot? Its memory and registers come through the GDB stub while it is stopped."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orcdbg.base.errors import NotInSnapshot
from orcdbg.image.vmlinux import Image, open_source
from orcdbg.kernel.tasks import read_task
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.symbols.table import image_symbols
from orcdbg.target.session import Session
from orcdbg.unwind.frame import StackTrace
from orcdbg.unwind.unwinder import Unwinder
from tests.lab.gdbstub import GdbStub, StubError
from tests.lab.strike import read_text

# QEMU's SSTEP_NOIRQ and SSTEP_NOTIMER, which are on unless somebody turns them off.
NO_INTERRUPTS_NO_TIMERS = 0x2 | 0x4
# The stub's names of what `struct pt_regs` calls otherwise.
_RENAMED = {"eflags": "rflags"}


class GuestMemory:
    """Guest-physical memory: an AddressSpace. What lies behind its `size` bytes is devices, left alone.

    It is read from the file that QEMU keeps it in. A packet for each page, and for each table that leads to it, was most of
    what a step of a guest cost.
    """

    def __init__(self, ram: BinaryIO, size: int) -> None:
        self._memory = mmap.mmap(ram.fileno(), size, prot=mmap.PROT_READ)
        self._size = size

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address, as they are now."""
        if address + size > self._size:
            raise NotInSnapshot("physical", address, size)
        return self._memory[address : address + size]


def cpu_state(registers: dict[str, int], cpu: int = 0) -> CpuState:
    """The stub's registers of a CPU as a snapshot would have them."""
    values = {_RENAMED.get(name, name): value for name, value in registers.items()}
    bases = registers["gs_base"], registers["k_gs_base"]
    return CpuState(cpu, "GDB stub", values, cpu + 1, registers["cr3"], registers["cr4"], None, *bases)


@dataclass
class LiveKernel:
    """A stopped guest with one CPU, and the session over it."""

    stub: GdbStub
    session: Session

    def trace(self) -> StackTrace:
        """The stack of what runs now."""
        unwinder = self.unwinder()
        (task,) = unwinder.running
        return unwinder.trace(read_task(self.session.linux, task))

    def unwinder(self) -> Unwinder:
        """What walks the stacks of the guest as it is stopped now."""
        self.session.memory.forget()
        return Unwinder(self.session.kernel.terrain, [cpu_state(self.stub.read_registers())])


def open_live(stub: GdbStub, vmlinux: Path, text: int, mebibytes: int = 256) -> LiveKernel:
    """The session over a stopped guest with so much memory whose `_text` runs at address `text`.

    Raises:
        StubError: QEMU would let interrupts or timers in while the guest is stepped: what is between two steps is then not
            the stepped instruction alone.
    """
    masked = int(stub.ask("qqemu.sstep"), 16)
    if masked & NO_INTERRUPTS_NO_TIMERS != NO_INTERRUPTS_NO_TIMERS:
        raise StubError(f"QEMU lets interrupts or timers in while it steps: {masked:#x}")
    image = Image(open_source(str(vmlinux)))
    symbols = image_symbols(image)
    slide = text - symbols.get("_text").address
    phys_base = int.from_bytes(read_text(stub, symbols.get("phys_base").address + slide, 8), "little", signed=True)
    registers = stub.read_registers()
    assert stub.ram is not None
    empty = Snapshot("guest", "GDB stub", GuestMemory(stub.ram, mebibytes << 20), (cpu_state(registers),), {})
    stub.read_physical_memory()
    return LiveKernel(stub, Session(image, empty, slide, phys_base))

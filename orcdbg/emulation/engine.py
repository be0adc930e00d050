"""How is unicorn fed from a snapshot: pages on demand, writes kept apart, and what a page held before?

A page of the kernel becomes a frame of the emulator when it is first touched, by a hook on its TLB. Frames are handed out
without the right to be written; the first write to one asks for it, and by that is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import unicorn
from unicorn import x86_const

from orcdbg.base.errors import MemoryFault, NotInSnapshot, OrcdbgError
from orcdbg.base.sizes import PAGE, U64
from orcdbg.emulation.pages import Page

REGISTERS = (
    *("rip", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rflags"),
)
_NUMBERS = tuple(getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in REGISTERS)
DEFAULT_PAGES = 16384
_ACCESS = {unicorn.UC_MEM_READ: "reads", unicorn.UC_MEM_WRITE: "writes", unicorn.UC_MEM_FETCH: "runs"}

BlockHook = Callable[[int, int], bool]


class Fault(OrcdbgError):
    """An emulated instruction cannot go on; `unknown` where the emulator has no such instruction."""

    def __init__(self, message: str, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class OutOfFrames(OrcdbgError):
    """More pages were touched than the limit allows."""


class Engine:
    """A CPU over pages that are fetched when they are touched. It is an AddressSpace: memory with what was written.

    Args:
        page: the page at an address; MemoryFault where there is none.
        is_text: addresses that the kernel does not write.
        gs_base: where the CPU's own data is.
        pages: how many pages may be touched.
    """

    def __init__(
        self, page: Callable[[int], Page], is_text: Callable[[int], bool], gs_base: int, pages: int = DEFAULT_PAGES
    ) -> None:
        self._page = page
        self._is_text = is_text
        self._limit = pages
        self._used = 0
        self._frames: dict[int, int] = {}  # by virtual page
        self._shared: dict[int, int] = {}  # by physical page
        self._rights: dict[int, tuple[bool, bool]] = {}  # to write and to run, by virtual page
        self._journal: dict[int, bytes] = {}
        self._fault: OrcdbgError | None = None
        self._stepping = False
        self._block: BlockHook | None = None
        self.unknown: list[tuple[int, int]] = []
        uc = self._uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        # The newest model that has SMAP (stac, clac); it cannot be chosen after memory was mapped.
        uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_EPYC_ROME)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        # Without this, `until` is an address that unicorn fetches from.
        uc.ctl_exits_enabled(True)
        uc.ctl_set_exits([])
        uc.mem_map(0, pages * PAGE)
        uc.hook_add(unicorn.UC_HOOK_TLB_FILL, self._fill)
        uc.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)
        uc.reg_write(x86_const.UC_X86_REG_GS_BASE, gs_base)

    def registers(self) -> dict[str, int]:
        """All registers; `rip` is right after `step`, and for the caller to know after `run`."""
        return dict(zip(REGISTERS, self._uc.reg_read_batch(_NUMBERS), strict=True))

    def register(self, name: str) -> int:
        """One register, in a hook too."""
        return int(self._uc.reg_read(_NUMBERS[REGISTERS.index(name)]))

    def set_registers(self, values: Mapping[str, int]) -> None:
        """Sets registers by name."""
        for name, number in zip(REGISTERS, _NUMBERS, strict=True):
            if name in values:
                self._uc.reg_write(number, values[name] & U64)

    def _frame(self, address: int) -> int:
        """The frame of a page, fetched if need be; MemoryFault or OutOfFrames."""
        found = self._frames.get(address)
        if found is None:
            page = self._page(address)
            found = None if page.physical is None else self._shared.get(page.physical)
            if found is None:
                found = self._new_frame(page)
            self._frames[address], self._rights[address] = found, (page.writable, page.executable)
        return found

    def _new_frame(self, page: Page) -> int:
        if self._used >= self._limit:
            raise OutOfFrames(f"more than {self._limit} pages of memory were touched")
        frame, self._used = self._used * PAGE, self._used + 1
        self._uc.mem_write(frame, page.data)
        self.unknown += page.unknown
        if page.physical is not None:
            self._shared[page.physical] = frame
        return frame

    def read(self, address: int, size: int) -> bytes:
        """Memory as the emulated CPU sees it."""
        out = b""
        while size > 0:
            offset = address % PAGE
            length = min(size, PAGE - offset)
            try:
                frame = self._frame(address - offset)
            except OutOfFrames as error:
                raise NotInSnapshot("emulated", address, size) from error
            out += bytes(self._uc.mem_read(frame + offset, length))
            address, size = address + length, size - length
        return out

    def poke(self, address: int, data: bytes) -> None:
        """Writes a word of memory before anything is run; MemoryFault where there is none."""
        for offset, byte in enumerate(data):
            frame = self._frame((address + offset) // PAGE * PAGE)
            self._uc.mem_write(frame + (address + offset) % PAGE, bytes((byte,)))

    def _fill(self, _uc: object, address: int, access: int, entry: Any, _data: object) -> bool:
        """unicorn's question which frame a page is in. An exception would be lost in its C code: it is kept for later."""
        try:
            if not address >> 63:
                raise Fault(f"it {_ACCESS.get(access, 'touches')} the user address {address:#x} (page)")
            writes = access == unicorn.UC_MEM_WRITE
            if writes and self._is_text(address):
                raise Fault(f"it writes to kernel text on the page {address:#x}")
            frame = self._frame(address)
            may_write, may_run = self._rights[address]
            if writes and not may_write:
                raise Fault(f"it writes to the page {address:#x}, which is read-only")
            if access == unicorn.UC_MEM_FETCH and not may_run:
                raise Fault(f"it runs the page {address:#x}, which may not be run")
        except OrcdbgError as error:
            self._fault = error
            return False
        if writes and frame not in self._journal:
            self._journal[frame] = bytes(self._uc.mem_read(frame, PAGE))
        entry.paddr = frame
        entry.perms = unicorn.UC_PROT_READ | (unicorn.UC_PROT_EXEC if may_run else 0)
        entry.perms |= unicorn.UC_PROT_WRITE if may_write and frame in self._journal else 0
        return True

    def _on_block(self, uc: Any, address: int, size: int, _data: object) -> None:
        if self._block is not None and not self._block(address, size):
            uc.emu_stop()

    def _start(self, ip: int, count: int) -> None:
        self._fault = None
        try:
            self._uc.emu_start(ip, 0, count=count)
        except unicorn.UcError as error:
            unknown = error.errno == unicorn.UC_ERR_INSN_INVALID
            if self._fault is None:
                words = "the emulator does not know it" if unknown else "it raises an exception"
                raise Fault(words, unknown) from error
            if isinstance(self._fault, MemoryFault):
                raise Fault(str(self._fault)) from self._fault
            raise self._fault from error

    def step(self, ip: int) -> None:
        """Runs one instruction; Fault or OutOfFrames."""
        if not self._stepping:
            # Blocks translated without unicorn's counter would run on without end.
            self._uc.ctl_flush_tb()
            self._stepping = True
        self._start(ip, 1)

    def run(self, ip: int, before_block: BlockHook) -> None:
        """Runs until `before_block` (address, size) says no, or a Fault or OutOfFrames is raised."""
        self._stepping = False
        self._block = before_block
        try:
            self._start(ip, 0)
        finally:
            self._block = None

    def take_journal(self) -> dict[int, bytes]:
        """What each frame written since the last call held before; from now on writes are noted anew."""
        journal, self._journal = self._journal, {}
        self._uc.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)
        return journal

    def put_back(self, journal: Mapping[int, bytes]) -> None:
        """Makes frames hold what they held before."""
        for frame, data in journal.items():
            self._uc.mem_write(frame, data)

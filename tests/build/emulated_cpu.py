"""Our emulator at the start of a few instructions, with a page of data and a stack; no snapshot behind it."""

from __future__ import annotations

from orcdbg.base.errors import BadAddress
from orcdbg.base.sizes import PAGE
from orcdbg.emulation.emulator import Emulator, Limits
from orcdbg.emulation.engine import REGISTERS
from orcdbg.emulation.pages import Page

TEXT, DATA = 0xFFFFFFFF81000000, 0xFFFF888000100000


def emulator(code: bytes, limits: Limits | None = None, **registers: int) -> Emulator:
    """A CPU at the start of `code`, with a page of data and a stack at its end."""
    pages = {TEXT: Page(code.ljust(PAGE, b"\xcc")), DATA: Page(bytes(PAGE)), DATA + PAGE: Page(b"\x11" * PAGE)}

    def page(address: int) -> Page:
        if address not in pages:
            raise BadAddress("virtual", address, PAGE)
        return pages[address]

    values = {**dict.fromkeys(REGISTERS, 0), "rip": TEXT, "rsp": DATA + PAGE, "rflags": 2, "rdi": DATA, **registers}
    return Emulator(page, lambda address: TEXT <= address < TEXT + PAGE, values, DATA + 0x100, limits)

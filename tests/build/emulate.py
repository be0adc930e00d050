"""What do instructions do to the stack pointer when a CPU runs them? Asked of an emulator, not of our own decoder."""

from __future__ import annotations

from unicorn import UC_ARCH_X86, UC_HOOK_CODE, UC_MODE_64, Uc, UcError
from unicorn.x86_const import UC_X86_REG_RIP, UC_X86_REG_RSP

CODE, STACK, SIZE = 0x100000, 0x200000, 0x10000
MAX_INSTRUCTIONS = 200


def pushed_at(text: bytes, offset: int) -> int | None:
    """Bytes pushed when execution that began at `text` first reaches `offset`; None when it never does."""
    machine = Uc(UC_ARCH_X86, UC_MODE_64)
    machine.mem_map(CODE, SIZE)
    machine.mem_map(STACK, SIZE)
    machine.mem_write(CODE, text.ljust(SIZE, b"\xf4"))
    start = STACK + SIZE // 2
    machine.reg_write(UC_X86_REG_RSP, start)
    found: list[int] = []

    def look(engine: Uc, address: int, size: int, data: object) -> None:
        if address == CODE + offset:
            found.append(start - int(engine.reg_read(UC_X86_REG_RSP)))
            engine.emu_stop()

    machine.hook_add(UC_HOOK_CODE, look)
    try:
        machine.emu_start(CODE, CODE + SIZE - 1, count=MAX_INSTRUCTIONS)
    except UcError:
        return found[0] if found else None
    if not found and int(machine.reg_read(UC_X86_REG_RIP)) == CODE + offset:
        return start - int(machine.reg_read(UC_X86_REG_RSP))
    return found[0] if found else None

"""Where are the registers of a CPU of which the snapshot has no note?

In the note that a crashing kernel kept for each CPU in its own memory (`crash_notes`), or, while an NMI is being handled,
where its entry code always saves them. The handler's own frames are not known then; what it interrupted is.
"""

from __future__ import annotations

from orcdbg.base.errors import MemoryFault, NotFound, UnsupportedFormat
from orcdbg.base.reading import read_u32, read_u64
from orcdbg.base.sizes import U64
from orcdbg.formats.elf import Note
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.stacks import StackKind, cpu_stacks, task_registers, task_stack
from orcdbg.snapshot.machine import CpuState
from orcdbg.snapshot.notes import NT_PRSTATUS, cpu_states
from orcdbg.unwind.saved_registers import implausible, saved_registers
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE

_NOTE_HEADER, _NAME, _PRSTATUS_SIZE = 12, b"CORE\0\0\0\0", 336
# asm_exc_nmi, arch/x86/entry/entry_64.S: from the top of the NMI stack down, the CPU's frame (5 words), rdx, the word
# "NMI executing", two copies of the frame, orig_ax, and the other registers; the pt_regs ends with the lower copy.
_EXECUTING_AT, _REGISTERS_AT = 56, 96 + PT_REGS_SIZE
_NMI_EXECUTING = 1  # enum nmi_states


def hidden_registers(linux: Linux, cpu: int, task: int) -> CpuState | None:
    """A CPU's registers from memory; None where none can be trusted."""
    for find in (_crash_note, _nmi_registers):
        try:
            found = find(linux, cpu, task)
        except (MemoryFault, NotFound, UnsupportedFormat):
            continue
        if found is not None:
            return found
    return None


def _crash_note(linux: Linux, cpu: int, _task: int) -> CpuState | None:
    """The note that crash_save_cpu() wrote, kernel/crash_core.c."""
    pointer = linux.find_address("crash_notes")
    if pointer is None:
        return None
    notes = read_u64(linux.memory, pointer)
    if notes == 0:
        return None
    at = notes + linux.per_cpu_offset(cpu) & U64
    header = tuple(read_u32(linux.memory, at + 4 * i) for i in range(3))
    if header != (5, _PRSTATUS_SIZE, NT_PRSTATUS) or linux.memory.read(at + _NOTE_HEADER, len(_NAME)) != _NAME:
        return None
    data = linux.memory.read(at + _NOTE_HEADER + len(_NAME), _PRSTATUS_SIZE)
    (state,) = cpu_states([Note("CORE", NT_PRSTATUS, data)])
    return CpuState(cpu, f"crash_notes cpu {cpu}", state.registers, state.pid)


def _nmi_registers(linux: Linux, cpu: int, task: int) -> CpuState | None:
    """What the NMI that a CPU is handling interrupted."""
    state = linux.per_cpu("nmi_state", cpu)
    if state is None or read_u32(linux.memory, state) != _NMI_EXECUTING:
        return None
    own = next((stack for stack in cpu_stacks(linux, cpu) if stack.kind is StackKind.NMI), None)
    if own is None:
        return None
    if read_u64(linux.memory, own.end - _EXECUTING_AT) == 1:
        return _saved(linux, cpu, own.end - _REGISTERS_AT)
    # From user mode the NMI is handled on the task's stack.
    stack = task_stack(linux, task)
    found = None if stack is None else _saved(linux, cpu, task_registers(linux, stack))
    return found if found is not None and found.registers["cs"] & 3 == 3 else None


def _saved(linux: Linux, cpu: int, address: int) -> CpuState | None:
    registers = saved_registers(linux.memory.read(address, PT_REGS_SIZE), PT_REGS, "")
    values = {name: found.value for name, found in registers.items()}
    return None if implausible(registers) else CpuState(cpu, f"pt_regs {address:#x}", values, 0)

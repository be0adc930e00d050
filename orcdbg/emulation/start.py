"""From which registers does an emulation begin, and where is the CPU's own data?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import U64
from orcdbg.emulation.engine import REGISTERS
from orcdbg.kernel.linux import Linux
from orcdbg.snapshot.machine import CpuState

_ALWAYS_SET = 2  # bit 1 of rflags


class UnknownRegisters(OrcdbgError):
    """Registers that nobody knows, and that may not be taken as 0."""

    def __init__(self, names: Sequence[str]) -> None:
        # Whole lines, which hold whichever command needed the registers: only `step` has these options.
        hint = f"`step 0 --zero` begins here with them as 0; `step --zero --args {names[0]}=VALUE` gives one"
        super().__init__(f"registers of the selected frame that are not known: {', '.join(names)}", hint)
        self.names = tuple(names)


@dataclass(frozen=True, slots=True)
class Start:
    """Where an emulation begins: all registers, those of them that were taken as 0, and words to be put into memory."""

    registers: Mapping[str, int]
    zeroed: tuple[str, ...] = ()
    words: Mapping[int, int] | None = None


def complete(known: Mapping[str, int], zero: bool, words: Mapping[int, int] | None = None) -> Start:
    """A start from what is known of the registers.

    Raises:
        UnknownRegisters: some are not, and `zero` does not allow to take them as 0.
    """
    unknown = tuple(name for name in REGISTERS if name not in known)
    if unknown and not zero:
        raise UnknownRegisters(unknown)
    values = {name: known.get(name, 0) & U64 for name in REGISTERS}
    values["rflags"] |= _ALWAYS_SET
    return Start(values, unknown, words)


def called(known: Mapping[str, int], function: int) -> tuple[dict[str, int], dict[int, int]]:
    """The state right after a call of `function` from the place that `known` is: registers, and the word on the stack."""
    sp = known["rsp"] - 8 & U64
    return {**known, "rip": function, "rsp": sp}, {sp: known["rip"]}


def gs_base(linux: Linux, cpu: int, note: CpuState | None) -> int:
    """Where a CPU finds its own data in the kernel: as recorded with its registers, else by the kernel's table.

    In user mode, and before `swapgs`, the recorded base in use is the user's. A kernel for one CPU has no table and keeps
    the data in place.
    """
    recorded = [] if note is None else note.possible_kernel_bases
    if linux.find_address("__per_cpu_offset") is None:
        return recorded[0] if recorded else linux.find_address("fixed_percpu_data") or 0

    listed = linux.per_cpu_offset(cpu)
    return listed if listed in recorded or not recorded else recorded[0]

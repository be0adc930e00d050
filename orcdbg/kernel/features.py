"""Which CPU features did this kernel find, and what are they called?"""

from __future__ import annotations

import functools

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import read_cstring, read_u64
from orcdbg.kernel.linux import Linux

# Numbers that mean the same in every kernel from 5.10 to 7.2 and that x86_cap_flags[] does not name
# (arch/x86/include/asm/cpufeatures.h). Only for showing: decisions use the number itself.
_NAMES = {
    117: "ALWAYS",
    235: "PTI",
    236: "KERNEL_IBRS",
    237: "RSB_VMEXIT",
    243: "RSB_CTXSW",
    272: "XENPV",
    276: "PVUNLOCK",
    277: "VCPUPREEMPT",
    364: "RETPOLINE",
    365: "RETPOLINE_LFENCE",
    366: "RETHUNK",
    367: "UNRET",
}
MAX_FEATURES = 64 * 32


class Features:
    """The boot CPU's feature and bug bits, as alternatives were chosen by them."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    @functools.cached_property
    def _words(self) -> int | None:
        try:
            offset = self._linux.types.offset("cpuinfo_x86", "x86_capability")
            size = self._linux.types.size_of_member("cpuinfo_x86", "x86_capability")
            data = self._linux.memory.read(self._linux.address("boot_cpu_data") + offset, size)
        except OrcdbgError:
            return None
        return int.from_bytes(data, "little")

    @functools.cached_property
    def count(self) -> int:
        """How many feature and bug bits this kernel has."""
        try:
            return 8 * self._linux.types.size_of_member("cpuinfo_x86", "x86_capability")
        except OrcdbgError:
            return 0

    def has(self, number: int) -> bool | None:
        """Whether feature `number` is set; None where the snapshot does not tell."""
        if self._words is None or not 0 <= number < min(self.count, MAX_FEATURES):
            return None
        return bool(self._words >> number & 1)

    def name(self, number: int) -> str:
        """`X86_FEATURE_...` where the kernel names it, else `feature WORD*32+BIT`."""
        name = _NAMES.get(number) or self._flag_name(number)
        return f"X86_FEATURE_{name}" if name else f"feature {number // 32}*32+{number % 32}"

    def _flag_name(self, number: int) -> str | None:
        linux = self._linux
        table, limit = linux.find_address("x86_cap_flags"), linux.symbols.find("x86_cap_flags")
        if table is None or limit is None or 8 * number + 8 > limit.size:
            return None
        try:
            pointer = read_u64(linux.memory, table + 8 * number)
            text = read_cstring(linux.memory, pointer, 32) if pointer else b""
        except MemoryFault:
            return None
        return text.decode("ascii", "replace").upper() or None

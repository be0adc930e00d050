"""Which CPU features did this kernel find, and what are they called?"""

from __future__ import annotations

import functools

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import read_cstring, read_u64
from orcdbg.kernel.linux import Linux

# Numbers that mean the same in every kernel from 4.14 to 7.2 and that x86_cap_flags[] does not name
# (arch/x86/include/asm/cpufeatures.h). Only for showing: decisions use the number itself.
_NAMES = {
    117: "ALWAYS",
    235: "PTI",
    243: "RSB_CTXSW",
    272: "XENPV",
    276: "PVUNLOCK",
    277: "VCPUPREEMPT",
}
# Those of retpolines moved in 5.19 (a883d624aed4) to make room, together with the first return thunks, in stable kernels too.
_RETBLEED = ("__x86_return_thunk", "retbleed_strings", "retbleed_mitigation")
_SINCE_RETURN_THUNKS = {
    236: "KERNEL_IBRS",
    237: "RSB_VMEXIT",
    364: "RETPOLINE",
    365: "RETPOLINE_LFENCE",
    366: "RETHUNK",
    367: "UNRET",
}
_BEFORE_RETURN_THUNKS = {236: "RETPOLINE", 237: "RETPOLINE_AMD"}
_MOVED_BY = 364 - 236
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

    def retpoline(self, number: int) -> int:
        """What this kernel has for one of the numbers that RETPOLINE and RETPOLINE_LFENCE have since 5.19."""
        return number if self._knows_retbleed else number - _MOVED_BY

    @property
    def _knows_retbleed(self) -> bool:
        return any(self._linux.find_address(name) is not None for name in _RETBLEED)

    @functools.cached_property
    def _own_names(self) -> dict[int, str]:
        """Names of numbers whose meaning changed."""
        if self._knows_retbleed:
            return _SINCE_RETURN_THUNKS
        # 4.14 had neither when it came out.
        return _BEFORE_RETURN_THUNKS if self._linux.find_address("__x86_indirect_thunk_rax") is not None else {}

    def name(self, number: int) -> str:
        """`X86_FEATURE_...` where the kernel names it, else `feature WORD*32+BIT`."""
        name = _NAMES.get(number) or self._own_names.get(number) or self._flag_name(number)
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

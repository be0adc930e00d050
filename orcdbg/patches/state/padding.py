"""Which functions have padding in front of them that counts their calls, and what is written there?

Mirrors arch/x86/kernel/callthunks.c (since 6.2).
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.modules import list_modules
from orcdbg.patches.site import U8Array, U64Array
from orcdbg.patches.state.mitigations import Mitigations
from orcdbg.patches.tables import built_bytes

CALL_SITES = ".call_sites"
_NOP = 0x90
PAD_SIZE = 9  # sarq $5, %gs:__x86_call_depth(%rip)
_HEAD, _TAIL = b"\x65\x48\xc1\x3d", b"\x05"
# Code that may run before per-CPU data can be reached, or that is moved (skip_addr in callthunks.c).
_NEVER = (
    "error_entry",
    "paranoid_entry",
    "xen_error_entry",
    "__switch_to_asm",
    "ret_from_fork",
    "soft_restart_cpu",
    "__fentry__",
)


class Pads:
    """The padding in front of functions: who has some, and what is written there.

    Calls are counted wherever they go: into the text under replay, into the kernel's, or into that of a loaded module.

    Args:
        image: text as built, which says where padding is.
        linux: the kernel.
        mitigations: its choices.
        text: run-time [start, end) of the text that `image` holds.
        kernel: the padding of the kernel's own text, where `text` is a module's.
    """

    def __init__(
        self, image: Image, linux: Linux, mitigations: Mitigations, text: tuple[int, int], kernel: Pads | None = None
    ) -> None:
        self._image = image
        self._linux = linux
        self._mitigations = mitigations
        self.text = text
        self._kernel = kernel

    @property
    def used(self) -> bool:
        """True when this machine counts calls."""
        return self._counter is not None and self._mitigations.call_depth

    @functools.cached_property
    def _counter(self) -> int | None:
        """The per-CPU variable that counts, which 6.2 to 6.14 keep inside `pcpu_hot`."""
        linux = self._linux
        if linux.types.has("pcpu_hot", "call_depth"):
            return linux.address("pcpu_hot") + linux.types.offset("pcpu_hot", "call_depth")
        return linux.find_address("__x86_call_depth")

    @functools.cached_property
    def _never(self) -> U64Array:
        # ret_from_fork was an assembler function before 6.5; the kernel names whichever it has.
        found = [self._linux.find_address(name) for name in _NEVER]
        return np.array([address for address in found if address is not None], dtype=np.uint64)

    def code(self, pads: U64Array) -> U8Array:
        """The counting instruction at each pad; its operand is counted from its own end."""
        out = np.empty((len(pads), PAD_SIZE), dtype=np.uint8)
        out[:, :4] = np.frombuffer(_HEAD, dtype=np.uint8)
        relative = (np.uint64(self._counter or 0) - pads - np.uint64(PAD_SIZE)).astype(np.uint32)
        out[:, 4:8] = np.ascontiguousarray(relative).view(np.uint8).reshape(-1, 4)
        out[:, 8:] = np.frombuffer(_TAIL, dtype=np.uint8)
        return out

    def exist(self, functions: U64Array) -> npt.NDArray[np.bool_]:
        """For each function, whether calls of it are counted: it lies in text, has padding, and is not excepted."""
        low, high = self.text
        inside = (functions >= np.uint64(low)) & (functions < np.uint64(high))
        good = inside & (functions >= np.uint64(low + PAD_SIZE))
        good &= ~np.isin(functions, self._never)
        good &= ~self._is_moved(functions)
        places = functions[good] - np.uint64(self._linux.slide + PAD_SIZE)
        good[good] = (built_bytes(self._image, places, PAD_SIZE) == _NOP).all(axis=1)
        good[~inside] = self._exist_elsewhere(functions[~inside])
        return good

    def _exist_elsewhere(self, functions: U64Array) -> npt.NDArray[np.bool_]:
        """The same for functions outside the text under replay."""
        if self._kernel is not None:
            return self._kernel.exist(functions)
        good = np.zeros(len(functions), dtype=np.bool_)
        for low, high in self._module_texts if len(functions) else ():
            good |= (functions >= np.uint64(low + PAD_SIZE)) & (functions < np.uint64(high))
        good[good] = self._unspoilt(functions[good] - np.uint64(PAD_SIZE))
        return good

    @functools.cached_property
    def _module_texts(self) -> list[tuple[int, int]]:
        """Run-time [start, end) of the loaded modules' text; init text is gone, and calls of it were never counted."""
        return [(module.text[0], sum(module.text)) for module in list_modules(self._linux)[0]]

    def _unspoilt(self, pads: U64Array) -> npt.NDArray[np.bool_]:
        """For padding of modules whose files are not at hand: memory has the NOPs still, or the counting instruction."""
        now = built_bytes(self._linux.memory, pads, PAD_SIZE)
        good: npt.NDArray[np.bool_] = (now == _NOP).all(axis=1) | (now == self.code(pads)).all(axis=1)
        return good

    def _is_moved(self, functions: U64Array) -> npt.NDArray[np.bool_]:
        """Code that kexec copies elsewhere."""
        start = self._linux.find_address("__relocate_kernel_start") or self._linux.find_address("relocate_kernel")
        end = self._linux.find_address("__relocate_kernel_end") or (start or 0) + 0x1000
        if start is None:
            return np.zeros(len(functions), dtype=np.bool_)
        return (functions >= np.uint64(start)) & (functions < np.uint64(end))

    def translated(self, functions: U64Array) -> U64Array:
        """Where calls of each function go, on this machine."""
        if not self.used:
            return functions
        unique, which = np.unique(functions, return_inverse=True)
        counted: U64Array = np.where(self.exist(unique), unique - np.uint64(PAD_SIZE), unique)
        return counted[which.ravel()]


def counts_alternatives(linux: Linux) -> bool:
    """Whether calls in alternatives are counted too, and so after those were applied (to 6.15)."""
    return linux.types.has("callthunk_sites", "alt_start")

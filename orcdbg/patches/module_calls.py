"""Which functions of the kernel do loaded modules call?

On a machine that counts calls, loading a module writes the counting instruction in front of each kernel function that the
module calls, so the kernel's own text depends on the modules. Their calls are read from their text in memory, whose tables
stay as long as the module.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orcdbg.base.errors import OrcdbgError
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.module_sections import module_sections
from orcdbg.kernel.modules import Module, list_modules
from orcdbg.patches.call_depth import PAD_SIZE, Pads
from orcdbg.patches.site import U8Array, U64Array
from orcdbg.patches.tables import branch_targets, built_bytes, self_relative
from orcdbg.patches.variables import read_words

_CALL = 0xE8
MAX_SITES = 1 << 20


def called_by_modules(linux: Linux, pads: Pads) -> U64Array:
    """Run-time addresses of functions that modules call, the padding that calls are moved to taken back."""
    found = [targets for module in list_modules(linux)[0] for targets in _called_by(linux, module)]
    every = np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)
    behind = every + np.uint64(PAD_SIZE)
    return np.where(pads.exist(behind), behind, every)


def _called_by(linux: Linux, module: Module) -> Iterator[U64Array]:
    try:
        sections = module_sections(linux, module)
        yield _direct(linux, module, sections)
        yield _static(linux, module)
    except OrcdbgError:
        return  # what the module wrote shows as unexplained then, which is the truth


def _direct(linux: Linux, module: Module, sections: dict[str, int]) -> U64Array:
    """Targets of the calls that `.call_sites` names."""
    start = sections.get(".call_sites")
    if start is None:
        return np.empty(0, np.uint64)
    size = _size_of(sections, start, module)
    sites = self_relative(linux.memory.read(start, size), start)
    low, high = module.text[0], sum(module.text)
    sites = sites[(sites >= np.uint64(low)) & (sites < np.uint64(high))]
    rows: U8Array = built_bytes(linux.memory, sites, 5)
    found: U64Array = branch_targets(sites, rows)[rows[:, 0] == _CALL]
    return found


def _size_of(sections: dict[str, int], start: int, module: Module) -> int:
    """Bytes up to the next section of the same memory area."""
    area = next(((low, low + size) for low, size in module.ranges if low <= start < low + size), None)
    if area is None:
        return 0
    later = [address for address in sections.values() if start < address < area[1]]
    return min([*later, area[1]]) - start


def _static(linux: Linux, module: Module) -> U64Array:
    """Functions that the module's static call sites call."""
    count = linux.member("module", "num_static_call_sites", module.address) & 0xFFFF_FFFF
    table = linux.member("module", "static_call_sites", module.address)
    if not table or not 0 < count <= MAX_SITES:
        return np.empty(0, np.uint64)
    keys = self_relative(linux.memory.read(table, 8 * count), table, 8, 4)
    calls = keys[(keys & np.uint64(1)) == 0] & ~np.uint64(3)
    found: U64Array = read_words(linux.memory, calls, 8).view("<u8").ravel()
    return found

"""Which functions do loaded modules call?

On a machine that counts calls, loading a module writes the counting instruction in front of each function that the module
calls, so the text of the kernel and of other modules depends on the modules. Their calls are read from their text in
memory, whose tables stay as long as the module.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import self_relative
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.module_sections import MAX_SECTIONS_IN_ALL, module_sections
from orcdbg.kernel.modules import Module, list_modules
from orcdbg.patches.alternative_table import ALTERNATIVES, AlternativeTable
from orcdbg.patches.site import U8Array, U64Array
from orcdbg.patches.state.padding import CALL_SITES, PAD_SIZE, Pads, counts_alternatives
from orcdbg.patches.tables import branch_targets, built_bytes
from orcdbg.patches.variables import read_words

_CALL = 0xE8
# Of all modules together: sections and static calls, and the bytes of their tables. A false module may claim the largest
# of each that there may be, and there may be thousands.
MAX_ENTRIES = MAX_SECTIONS_IN_ALL
MAX_TABLES = 32 << 20


class ModuleCalls(NamedTuple):
    """What one module calls: `targets` of its calls as they are now, and the `functions` that its static calls name."""

    targets: U64Array
    functions: U64Array


def module_calls(linux: Linux) -> dict[int, ModuleCalls]:
    """What each loaded module calls, by the address of its `struct module`."""
    budget = Budget(MAX_ENTRIES, MAX_TABLES)
    return {module.address: _called_by(linux, module, budget) for module in list_modules(linux)[0]}


def called(calls: Iterable[ModuleCalls], pads: Pads) -> U64Array:
    """Run-time addresses of the functions that modules made the loader count calls of.

    A counted call goes into the padding. One that does not was not counted: its function has none, or the call was
    written after calls were counted, as alternatives are since 6.16.

    Args:
        calls: what each of the modules calls.
        pads: the padding of the text under replay.
    """
    modules = list(calls)
    if not modules:
        return np.empty(0, np.uint64)
    behind = np.unique(np.concatenate([module.targets for module in modules])) + np.uint64(PAD_SIZE)
    return np.unique(np.concatenate([behind[pads.exist(behind)], *(module.functions for module in modules)]))


def _called_by(linux: Linux, module: Module, budget: Budget) -> ModuleCalls:
    """What a module calls; where that cannot be read, what it wrote shows as unexplained, which is the truth."""
    none = np.empty(0, np.uint64)
    try:
        targets = _direct(linux, module, module_sections(linux, module, budget), budget)
    except OrcdbgError:
        targets = none
    try:
        return ModuleCalls(targets, _static(linux, module, budget))
    except OrcdbgError:
        return ModuleCalls(targets, none)


def _direct(linux: Linux, module: Module, sections: dict[str, int], budget: Budget) -> U64Array:
    """Targets of the calls that the module's tables name."""
    sites = self_relative(*_table(linux, module, sections, CALL_SITES, budget))
    if counts_alternatives(linux):
        sites = np.concatenate([sites, _alternatives(linux, module, sections, budget)])
    low, high = module.text[0], sum(module.text)
    sites = sites[(sites >= np.uint64(low)) & (sites < np.uint64(high))]
    rows: U8Array = built_bytes(linux.memory, sites, 5)
    found: U64Array = branch_targets(sites, rows)[rows[:, 0] == _CALL]
    return found


def _alternatives(linux: Linux, module: Module, sections: dict[str, int], budget: Budget) -> U64Array:
    """Alternatives, which may have become calls that were counted too (to 6.15)."""
    try:
        found: U64Array = AlternativeTable(*_table(linux, module, sections, ALTERNATIVES, budget)).sites
    except OrcdbgError:
        return np.empty(0, np.uint64)  # an unknown layout must not cost the calls of the other table
    return found


def _table(linux: Linux, module: Module, sections: dict[str, int], name: str, budget: Budget) -> tuple[bytes, int]:
    """The bytes of a section in memory and its address; empty where the module has none."""
    start = sections.get(name)
    if start is None:
        return b"", 0
    return budget.read(linux.memory, start, _size_of(sections, start, module), f"{name} of modules"), start


def _size_of(sections: dict[str, int], start: int, module: Module) -> int:
    """Bytes up to the next section of the same memory area."""
    area = next(((low, low + size) for low, size in module.ranges if low <= start < low + size), None)
    if area is None:
        return 0
    later = [address for address in sections.values() if start < address < area[1]]
    return min([*later, area[1]]) - start


def _static(linux: Linux, module: Module, budget: Budget) -> U64Array:
    """Functions that the module's static call sites call."""
    count = linux.member("module", "num_static_call_sites", module.address) & 0xFFFF_FFFF
    table = linux.member("module", "static_call_sites", module.address)
    if not table or not count:
        return np.empty(0, np.uint64)
    data = budget.read(linux.memory, table, 8 * count, "static calls of modules")
    keys = self_relative(data, table, 8, 4)
    calls = keys[(keys & np.uint64(1)) == 0] & ~np.uint64(3)
    found: U64Array = read_words(linux.memory, calls, 8).view("<u8").ravel()
    return found

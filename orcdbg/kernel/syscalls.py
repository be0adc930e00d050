"""Which system call has this number?"""

from __future__ import annotations

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import read_u64
from orcdbg.kernel.linux import Linux

_PREFIXES = ("__x64_sys_", "__do_sys_", "sys_")
MAX_SYSCALLS = 1024


def syscall_name(linux: Linux, number: int) -> str | None:
    """The call's name by the kernel's own table, or None."""
    table = linux.find_address("sys_call_table")
    if table is None or not 0 <= number < MAX_SYSCALLS:
        return None
    try:
        handler = read_u64(linux.memory, table + 8 * number)
    except MemoryFault:
        return None
    found = linux.symbols.at(handler - linux.slide)
    if found is None or found.symbol.address != handler - linux.slide:
        return None
    name = found.symbol.name
    return next((name.removeprefix(p) for p in _PREFIXES if name.startswith(p)), None)

"""At which line of the source is this ud2 a BUG() or WARN()?

Mirrors lib/bug.c and include/asm-generic/bug.h: `struct bug_entry` has distances from itself to the instruction and to the
file's name (CONFIG_GENERIC_BUG_RELATIVE_POINTERS, which x86-64 sets), the line and flags. Modules keep their tables in
`module.bug_table`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import read_cstring
from orcdbg.base.sizes import U64
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names

_WARNING = 1  # BUGFLAG_WARNING
_MAX_BYTES = 1 << 22  # a kernel has some 200 kB
_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class BugEntry:
    """An entry of the table: where it is, the source's file (empty if it cannot be read) and line, and whether it warns."""

    address: int
    file: str
    line: int
    is_warning: bool


def find_bug(linux: Linux, names: Names, ip: int) -> BugEntry | None:
    """The entry for the instruction at `ip`; None where there is none, or the table cannot be read."""
    try:
        start, size = _table(linux, names, ip)
        return _find(linux, start, min(size, _MAX_BYTES), ip)
    except OrcdbgError:
        return None


def _table(linux: Linux, names: Names, ip: int) -> tuple[int, int]:
    module = names.module_at(ip)
    if module is None:
        start, end = linux.address("__start___bug_table"), linux.address("__stop___bug_table")
        return start, end - start
    count = linux.member("module", "num_bugs", module.address)
    return linux.member("module", "bug_table", module.address), count * linux.types.size("bug_entry")


def _find(linux: Linux, start: int, size: int, ip: int) -> BugEntry | None:
    types = linux.types
    step = types.size("bug_entry")
    count = size // step
    data = np.frombuffer(linux.memory.read(start, count * step), dtype=np.uint8).reshape(count, step)
    at = types.offset("bug_entry", "bug_addr_disp")
    distances = np.ascontiguousarray(data[:, at : at + 4]).view("<i4")[:, 0].astype(np.int64)
    if not start >> 63 or not ip >> 63:
        return None
    # Addresses of the kernel as signed numbers: both fit then.
    places = np.arange(count, dtype=np.int64) * step + (start + at - (1 << 64))
    matching = np.flatnonzero(places + distances == ip - (1 << 64))
    if not len(matching):
        return None
    address = start + int(matching[0]) * step
    flags = linux.member("bug_entry", "flags", address)
    return BugEntry(address, _file(linux, address), linux.member("bug_entry", "line", address), bool(flags & _WARNING))


def _file(linux: Linux, address: int) -> str:
    if not linux.types.has("bug_entry", "file_disp"):
        return ""
    at = address + linux.types.offset("bug_entry", "file_disp")
    distance = linux.member("bug_entry", "file_disp", address)
    distance -= (distance >> 31 & 1) << 32
    try:
        return read_cstring(linux.memory, at + distance & U64, _MAX_NAME).decode("utf-8", "backslashreplace")
    except OrcdbgError:
        return ""

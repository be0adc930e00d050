"""patch check, orc union, orc dump: what a vmlinux alone can be asked, for a kernel build's own checks."""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.base.errors import UsageError
from orcdbg.commands.audit import FOUND_SOMETHING, short_name
from orcdbg.commands.results import OrcDump, Result, StaticCheck, Union
from orcdbg.formats.elf import is_core
from orcdbg.image.vmlinux import Image, open_source
from orcdbg.target.vmlinux_alone import UnbootedKernel

USAGE = "orcdbg patch check VMLINUX, orcdbg orc union VMLINUX, or orcdbg orc dump VMLINUX"


def _opened(path: str) -> UnbootedKernel:
    source = open_source(path)
    if is_core(source.read_at(0, min(source.size, 18))):
        raise UsageError(f"{path} is a snapshot", f"these look at a vmlinux alone: {USAGE}")
    return UnbootedKernel(Image(source))


def run_static(words: Sequence[str]) -> Result:
    """Runs one of them.

    Raises:
        UsageError: the words are none of them.
        OrcdbgError: the file cannot be read as a vmlinux with ORC.
    """
    if len(words) != 3 or tuple(words[:2]) not in (("patch", "check"), ("orc", "union"), ("orc", "dump")):
        raise UsageError(f"not a question to a vmlinux alone: {' '.join(words)}", USAGE)
    kernel = _opened(words[2])
    if words[1] == "dump":
        return OrcDump(kernel.orc_table, kernel.layout.layout.name)
    union = kernel.union
    symbols = {address: short_name(kernel.names, address) for address in union.rows}
    if words[1] == "union":
        return Union(union, symbols)
    return StaticCheck(union, symbols, FOUND_SOMETHING if union.hazards or union.conflicts else 0)

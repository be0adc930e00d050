"""patch check, orc union, orc dump: what can a vmlinux alone answer, for a kernel build's own checks?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.base.errors import UsageError
from orcdbg.base.exit_status import ExitStatus
from orcdbg.commands.patch_check import short_name
from orcdbg.commands.result import Result
from orcdbg.formats.elf import is_core
from orcdbg.image.vmlinux import Image, open_source
from orcdbg.orc.table import OrcTable
from orcdbg.orc.union import UnionTable
from orcdbg.target.vmlinux_alone import UnbootedKernel

if TYPE_CHECKING:
    from orcdbg.target.kernel_types import TypeOptions

USAGE = "orcdbg patch check VMLINUX, orcdbg orc union VMLINUX, or orcdbg orc dump VMLINUX"


@dataclass(frozen=True, slots=True)
class StaticCheck(Result):
    """Boundaries where a vmlinux's own rows do not hold, over all alternatives of each site."""

    union: UnionTable
    symbols: Mapping[int, str | None]

    @property
    def exit_status(self) -> ExitStatus:
        """5 where a row does not hold, or no row could."""
        wrong = self.union.hazards or self.union.conflicts
        return ExitStatus.FOUND_SOMETHING if wrong else ExitStatus.DONE


@dataclass(frozen=True, slots=True)
class Union(Result):
    """The rows that would describe all alternatives of each site."""

    union: UnionTable
    symbols: Mapping[int, str | None]


@dataclass(frozen=True, slots=True)
class OrcDump(Result):
    """A whole ORC table."""

    table: OrcTable
    layout: str


def _opened(path: str, type_options: TypeOptions | None, debug_folders: Sequence[str]) -> UnbootedKernel:
    source = open_source(path)
    if is_core(source.read_at(0, min(source.size, 18))):
        raise UsageError(f"{path} is a snapshot", f"give the vmlinux alone: {USAGE}")
    image = Image(source)
    image.debug_folders = tuple(debug_folders)
    return UnbootedKernel(image, type_options)


def ask_vmlinux_alone(
    words: Sequence[str], type_options: TypeOptions | None = None, debug_folders: Sequence[str] = ()
) -> Result:
    """Runs one of them.

    Args:
        words: the command's, and the vmlinux.
        type_options: where the user says that types are which the vmlinux lacks.
        debug_folders: where debugging information is looked for that was split off.

    Raises:
        UsageError: the words are none of them.
        OrcdbgError: the file cannot be read as a vmlinux with ORC.
    """
    if len(words) != 3 or tuple(words[:2]) not in (("patch", "check"), ("orc", "union"), ("orc", "dump")):
        raise UsageError(f"a vmlinux alone cannot answer this: {' '.join(words)}", USAGE)
    kernel = _opened(words[2], type_options, debug_folders)
    if words[1] == "dump":
        return OrcDump(kernel.orc_table, kernel.layout.layout.name)
    union = kernel.union
    symbols = {address: short_name(kernel.names, address) for address in union.rows}
    if words[1] == "union":
        return Union(union, symbols)
    return StaticCheck(union, symbols)

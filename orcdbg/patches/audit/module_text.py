"""What is a module's text, as built, linked and patched?

The loader runs the same passes over a module as the boot runs over the kernel, in the same order. A module is therefore
shown to them as an image of its own, whose link addresses are its run-time addresses less the kernel's slide.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orcdbg.base.errors import BadAddress
from orcdbg.base.reading import self_relative
from orcdbg.formats.elf import SHF_ALLOC, SHF_EXECINSTR, Section
from orcdbg.image.module_file import ModuleFile
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.module_sections import module_sections
from orcdbg.kernel.modules import Module, ModuleSymbols
from orcdbg.patches.audit.account import AuditReport, MechanismCount, MemoryText, Replayed, compare
from orcdbg.patches.build import Build
from orcdbg.patches.built_text import BuiltText
from orcdbg.patches.mechanisms.static_call import TABLE as STATIC_CALLS
from orcdbg.patches.mechanisms.static_call import static_called
from orcdbg.patches.replay import all_passes
from orcdbg.patches.site import U64Array
from orcdbg.patches.state.ftrace_records import FtraceState
from orcdbg.patches.state.module_calls import called
from orcdbg.patches.state.nops import NopTable
from orcdbg.patches.state.padding import Pads
from orcdbg.patches.state.probes import Probes
from orcdbg.patches.state.static_call_keys import trampolines_and_keys
from orcdbg.patches.state.text_changes import TextChanges
from orcdbg.patches.sweep import WholeText
from orcdbg.patches.tables import BoundedTable, built_bytes
from orcdbg.symbols.table import SymbolTable

Linked = Mapping[str, tuple[int, bytes]]
Resolve = Callable[[str], int | None]


class ModuleImage(Image):
    """A linked module as an image."""

    def __init__(self, file: ModuleFile, linked: Linked, slide: int) -> None:
        self.path = file.path
        self.elf = file.elf
        self._linked = linked
        self._slide = slide

    def find_section(self, name: str) -> Section | None:
        """The section at its link address."""
        if name not in self._linked:
            return None
        address, data = self._linked[name]
        return self.elf.by_name[name]._replace(address=address - self._slide, size=len(data))

    def section_data(self, name: str) -> bytes:
        """The section's bytes, linked."""
        return self._linked[name][1] if name in self._linked else b""

    def section_at(self, address: int) -> Section | None:
        """The section that holds a link address."""
        return next(
            (s for name in self._linked if (s := self.find_section(name)) and s.address <= address < s.end), None
        )

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a link address."""
        for start, data in self._linked.values():
            offset = address + self._slide - start
            if offset >= 0 and offset + size <= len(data):
                return data[offset : offset + size]
        raise BadAddress("module", address, size)


class LinkedText(BuiltText):
    """A module's text as linked, at run-time addresses."""

    def __init__(self, image: ModuleImage, slide: int) -> None:
        super().__init__(image, 0)
        self._runs_at = slide

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a run-time address."""
        return self._image.read(address - self._runs_at, size)


@dataclass(frozen=True, kw_only=True)
class ModuleBuild(Build):
    """What the passes draw on for one section of a module's text.

    Attributes:
        kernel: what those over the kernel's own text draw on.
        module: the module.
        area: run-time [start, end) of the section under replay.
        trampolines: of each static call that the kernel or a module defines, the key by the trampoline.
        defined_calls: trampoline and key of each static call that the module defines, in any of its sections.
    """

    is_module = True
    kernel: Build
    module: Module
    area: tuple[int, int]
    trampolines: Mapping[int, int]
    defined_calls: Sequence[tuple[int, int]]

    @functools.cached_property
    def static_calls(self) -> list[tuple[int, int]]:
        """Trampoline and key of each static call that is defined in the section."""
        start, end = self.area
        return [(trampoline, key) for trampoline, key in self.defined_calls if start <= trampoline < end]

    @property
    def text(self) -> tuple[int, int]:
        """The section under replay."""
        return self.area

    @property
    def nops(self) -> NopTable | None:
        """The kernel's own."""
        return self.kernel.nops

    @functools.cached_property
    def pads(self) -> Pads:
        """The padding in all of the module's text: calls from any of its sections fill it."""
        text = self.module.text[0], sum(self.module.text)
        return Pads(self.image, self.linux, self.mitigations, text, self.kernel.pads)

    @functools.cached_property
    def tracing(self) -> FtraceState:
        """The kernel's, which has the modules' records too."""
        return self.kernel.tracing

    @functools.cached_property
    def probes(self) -> Probes:
        """The kernel's likewise."""
        return self.kernel.probes

    @functools.cached_property
    def text_changes(self) -> TextChanges:
        """The kernel's likewise."""
        return self.kernel.text_changes

    def called_besides(self) -> U64Array:
        """By other modules, by the kernel's static calls, and by the module's own as it was loaded."""
        others = [calls for address, calls in self.kernel.module_calls.items() if address != self.module.address]
        return np.concatenate([called(others, self.pads), static_called(self.kernel), self._first_functions()])

    def _first_functions(self) -> U64Array:
        """What the module's own static call keys name in its file; they may name others since."""
        table, address = self.table(STATIC_CALLS)
        keys = self_relative(table, address, 8, 4)
        calls = keys[(keys & np.uint64(1)) == 0] & ~np.uint64(3)
        found: U64Array = built_bytes(self.image, calls - np.uint64(self.linux.slide), 8).view("<u8").ravel()
        return found

    @property
    def kernel_build(self) -> Build:
        """The kernel's."""
        return self.kernel

    @property
    def kernel_image(self) -> Image:
        """The kernel's image."""
        return self.kernel.image

    @property
    def unmoved(self) -> int:
        """The tables are linked already."""
        return 0

    def patched_locks(self, sites: U64Array) -> U64Array:
        """Before modules had several memory areas (6.4), only locks in `.text` were patched."""
        section = self.image.find_section(".text")
        if self.linux.types.has("module", "mem") or section is None:
            return sites
        low, high = section.address + self.linux.slide, section.end + self.linux.slide
        return sites[(sites >= np.uint64(low)) & (sites < np.uint64(high))]

    def table(self, table: BoundedTable) -> tuple[bytes, int]:
        """The module's section of that kind, and its run-time address."""
        section, data = self.image.find_section(table.section), self.image.section_data(table.section)
        if section is None:
            return b"", 0
        address = section.address + self.linux.slide
        return (self._with_keys(data, address) if table == STATIC_CALLS else data), address

    def _with_keys(self, table: bytes, address: int) -> bytes:
        """Static call sites may name a trampoline where the key is not exported (static_call_tramp_key)."""
        out = bytearray(table)
        for row, key in enumerate(self_relative(table, address, 8, 4).tolist()):
            real = self.trampolines.get(key & ~3)
            if real is not None:
                place = address + 8 * row + 4
                out[8 * row + 4 : 8 * row + 8] = ((real | key & 3) - place & 0xFFFF_FFFF).to_bytes(4, "little")
        return bytes(out)


def _code(file: ModuleFile, module: Module, linked: Linked) -> list[tuple[int, bytes]]:
    """The sections of a module's text that stay."""
    low, high = module.text[0], sum(module.text)
    wanted = SHF_ALLOC | SHF_EXECINSTR
    code = [linked[s.name] for s in file.elf.sections if s.flags & wanted == wanted and s.name in linked]
    return [(address, data) for address, data in code if data and low <= address and address + len(data) <= high]


def _empty_sections(file: ModuleFile, symbols: SymbolTable, known: Mapping[str, int]) -> dict[str, int]:
    """Addresses of sections that sysfs leaves out because they have no bytes: lock class keys may be of size 0.

    They are told by a symbol of theirs in the table that the kernel keeps.
    """
    numbers = {n: s.name for n, s in enumerate(file.elf.sections) if s.flags & SHF_ALLOC and s.name not in known}
    found: dict[str, int] = {}
    for row in np.flatnonzero(np.isin(symbols.entries["section"], list(numbers))).tolist():
        section = int(symbols.entries["section"][row])
        offset = file.offset_of(symbols.name_of(row), section)
        if offset is not None:
            found.setdefault(numbers[section], int(symbols.entries["value"][row]) - offset)
    return found


def audit_module(
    kernel: Build, loaded: ModuleSymbols, file: ModuleFile, resolve: Resolve, trampolines: Mapping[int, int]
) -> AuditReport:
    """Compares a module's text in memory with what it must be.

    Args:
        kernel: what the kernel's own passes draw on.
        loaded: the module, and the symbols that the kernel keeps of it.
        file: its `.ko`.
        resolve: run-time addresses of symbols that it does not define.
        trampolines: of each static call that the kernel or a module defines, the key by the trampoline.

    Raises:
        OrcdbgError: its file or its place in memory cannot be read.
    """
    linux, module = kernel.linux, loaded.module
    addresses = module_sections(linux, module)
    addresses |= _empty_sections(file, loaded.table, addresses)
    if linux.types.has("module", "percpu"):
        addresses[".data..percpu"] = linux.member("module", "percpu", module.address)
    linked = file.linked(addresses, resolve)
    image = ModuleImage(file, linked, linux.slide)
    total = AuditReport(module.text[0], module.text[0])
    defined_calls = trampolines_and_keys(loaded.table, 0)
    for address, data in _code(file, module, linked):
        build = ModuleBuild(
            image,
            linux,
            LinkedText(image, linux.slide),
            kernel.features,
            kernel=kernel,
            module=module,
            area=(address, address + len(data)),
            trampolines=trampolines,
            defined_calls=defined_calls,
        )
        _add(total, _audit_section(build, data))
    return total


def _audit_section(build: ModuleBuild, data: bytes) -> AuditReport:
    replayed = Replayed(WholeText(build.area[0], bytearray(data)))
    for the_pass in all_passes(build):
        replayed.run(the_pass)
    replayed.problems += build.problems
    return compare(data, replayed, MemoryText(build.linux.memory, *build.area))


def _add(total: AuditReport, part: AuditReport) -> None:
    """Adds the account of one section to the module's."""
    total.end += part.end - part.start
    for name in ("differing", "explained", "unexplained", "mismatched", "undecided", "missing_pages"):
        setattr(total, name, getattr(total, name) + getattr(part, name))
    total.unexplained_ranges += part.unexplained_ranges
    total.mismatched_ranges += part.mismatched_ranges
    total.problems += [problem for problem in part.problems if problem not in total.problems]
    for name, count in part.mechanisms.items():
        mine = total.mechanisms.setdefault(name, MechanismCount())
        for what in ("sites", "patched", "bytes", "mismatched", "undecided"):
            setattr(mine, what, getattr(mine, what) + getattr(count, what))

"""What does the debugging information of modules say, in files that the user names?

A module's file is not linked: its DWARF is linked here to where the kernel loaded the module, so that all addresses in it are
run-time addresses. A file of another build would show wrong values as sure ones, so it counts only by its build-id.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from orcdbg.base.errors import Mismatch, NotFound, OrcdbgError, UnsupportedFormat, UsageError
from orcdbg.base.folders import is_folder
from orcdbg.formats.elf import parse_notes
from orcdbg.image.compile_units import CompileUnits
from orcdbg.image.debug_files import has_debug
from orcdbg.image.module_file import ModuleFile
from orcdbg.image.source_lines import SourceLines
from orcdbg.image.vmlinux import open_source
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.module_sections import module_sections
from orcdbg.kernel.modules import Module
from orcdbg.kernel.names import Names
from orcdbg.typed.dwarf_types import DwarfTypes

# What depmod takes for a module, and what debugging information that was split off is called.
_FILE = re.compile(r"(.+)\.ko(?:\.debug)?(?:\.(?:xz|zst|gz))?", re.DOTALL)
PER_CPU_SECTION = ".data..percpu"
_BUILD_ID = ".note.gnu.build-id"
# Files below a folder; a distribution has 5,000 modules.
MAX_FILES = 1 << 17


class ModuleFolders:
    """Where the user says that files of modules are; it lasts while the machine moves."""

    def __init__(self) -> None:
        self._files: dict[str, list[Path]] = {}
        self.are_named = False

    def add_folder(self, folder: str) -> None:
        """Takes all files below a folder into account.

        Raises:
            UsageError: no such folder, or one with more files than any kernel has modules.
        """
        if not is_folder(folder):
            raise UsageError(f"{folder}: not a folder")
        self.are_named = True
        for count, path in enumerate(sorted(Path(folder).rglob("*.ko*"))):
            if count >= MAX_FILES:
                raise UsageError(f"{folder}: more than {MAX_FILES} files")
            name = _FILE.fullmatch(path.name)
            if name is not None:
                self._files.setdefault(name[1].replace("-", "_"), []).append(path)

    def add_file(self, module: str, path: str) -> None:
        """Takes a file for a module's, before all others."""
        self.are_named = True
        self._files.setdefault(module, []).insert(0, Path(path))

    def of(self, module: str) -> list[Path]:
        """The files that may be a module's, by their names."""
        return self._files.get(module, [])


class ModuleDwarf:
    """The DWARF of one module, at run-time addresses.

    Args:
        module: the module.
        file: its file.
        addresses: where its sections are.
        resolve: the address of a symbol that it does not define.
    """

    def __init__(
        self, module: Module, file: ModuleFile, addresses: dict[str, int], resolve: Callable[[str], int | None]
    ) -> None:
        self.module = module
        self.path = file.path
        self.units = CompileUnits(file.elf, file.debug_linker(addresses, resolve))
        self.types = DwarfTypes(self.units)
        self.source_lines = SourceLines(file.elf, self.units)


class ModuleDebug:
    """The debugging information of the modules of a stopped kernel.

    Args:
        linux: the kernel.
        names: of addresses, and of the modules.
        folders: where files are.
    """

    def __init__(self, linux: Linux, names: Names, folders: ModuleFolders) -> None:
        self._linux = linux
        self._names = names
        self._folders = folders
        self._made: dict[int, ModuleDwarf | None] = {}
        self._problems: dict[int, str] = {}

    @property
    def problems(self) -> list[str]:
        """Why modules that were asked for have none, though there are files of their names."""
        return list(self._problems.values())

    def problem_of(self, module: Module) -> str | None:
        """Why a module that was asked for has none; None where there is no file of its name."""
        return self._problems.get(module.address)

    def at(self, address: int) -> ModuleDwarf | None:
        """That of the module whose memory holds a run-time address."""
        if not self._folders.are_named:
            return None
        module = self._names.module_at(address)
        return None if module is None else self.of(module)

    def of(self, module: Module) -> ModuleDwarf | None:
        """That of a module; None where there is no file of it, or none of this build."""
        if module.address not in self._made:
            try:
                self._made[module.address] = self._opened(module)
            except OrcdbgError as error:
                self._made[module.address] = None
                self._problems[module.address] = f"module {module.name}: {error.message}"
        return self._made[module.address]

    def all(self) -> Iterator[ModuleDwarf]:
        """Those of all modules that have some."""
        if self._folders.are_named:
            found = (self.of(module) for module in self._names.modules)
            yield from (each for each in found if each is not None)

    def _opened(self, module: Module) -> ModuleDwarf | None:
        wrong: OrcdbgError | None = None
        for path in self._folders.of(module.name):
            try:
                file = ModuleFile(open_source(str(path)))
                if not has_debug(file.elf):
                    raise UnsupportedFormat(str(path), "no debugging information in it")
                addresses = module_sections(self._linux, module)
                if module.per_cpu[1]:
                    # The kernel does not list this section, which is at no address of memory.
                    addresses[PER_CPU_SECTION] = module.per_cpu[0]
                self._refuse_other_build(file, addresses)
                return ModuleDwarf(module, file, addresses, self._resolve)
            except OrcdbgError as error:
                wrong = wrong or error
        if wrong is not None:
            raise wrong
        return None

    def _refuse_other_build(self, file: ModuleFile, addresses: dict[str, int]) -> None:
        section, address = file.elf.by_name.get(_BUILD_ID), addresses.get(_BUILD_ID)
        if section is None or address is None:
            raise NotFound("build-id", file.path, "nobody can tell whose file it is")
        ours = file.elf.data(section)
        theirs = self._linux.memory.read(address, len(ours))
        if ours != theirs:
            raise Mismatch("build-id", _build_id(ours), _build_id(theirs))

    def _resolve(self, name: str) -> int | None:
        """A symbol's run-time address: the kernel's, else another module's."""
        found = self._linux.find_address(name)
        if found is not None:
            return found
        return self._exported.get(name)

    @functools.cached_property
    def _exported(self) -> dict[str, int]:
        """Addresses of the modules' symbols, for modules that build on each other; not those of a name that several have."""
        found: dict[str, int] = {}
        shared = set[str]()
        for symbols in self._names.module_symbols.values():
            try:
                table = symbols.table
                pairs = [(table.name_of(index), int(value)) for index, value in enumerate(table.entries["value"])]
            except OrcdbgError:
                continue
            for name, address in pairs:
                if found.setdefault(name, address) != address:
                    shared.add(name)
        return {name: address for name, address in found.items() if address and name not in shared}


def _build_id(note: bytes) -> str:
    try:
        return next((each.data.hex() for each in parse_notes(note, _BUILD_ID)), "none")
    except UnsupportedFormat:
        return "none"

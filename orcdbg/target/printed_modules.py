"""Where in the source are a printed report's lines in modules, by files that the user names?

A report says neither where a module was loaded nor which build it was. A file counts if its release is the report's and its
functions have the sizes that are printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.formats.elf import SHF_EXECINSTR
from orcdbg.image.compile_units import CompileUnits
from orcdbg.image.debug_files import has_debug
from orcdbg.image.module_file import ModuleFile
from orcdbg.image.source_lines import SourceLines
from orcdbg.image.source_position import Position
from orcdbg.image.vmlinux import open_source
from orcdbg.kernel.oops import PrintedFrame
from orcdbg.target.module_debug import ModuleFolders

_BEGIN = 0xFFFF_FFFF_C000_0000  # for want of the true one, which no line of the source depends on
_STEP = 1 << 24
# The kernel prints the distance to the next symbol: padding to 16 or 64 bytes, and what is called before a function begins.
_MOST_PADDING = 128
_VERMAGIC = re.compile(rb"(?:^|\0)vermagic=(\S{1,64})")


class PrintedModules:
    """The files of modules that are named in a report.

    Args:
        folders: where the user says that they are.
        releases: those that the report names.
    """

    def __init__(self, folders: ModuleFolders, releases: Sequence[str]) -> None:
        self._folders = folders
        self._releases = releases
        self._opened: dict[str, _Opened | None] = {}
        self.problems: list[str] = []

    def position(self, frame: PrintedFrame, before: int) -> Position | None:
        """The source of a line; `before` is 1 for a return address, which belongs to the call before it."""
        opened = None if frame.module is None else self._of(frame.module)
        if opened is None:
            return None
        try:
            return opened.position(frame, before)
        except UnsupportedFormat as error:
            self._note(error.message)
            return None

    def _of(self, module: str) -> _Opened | None:
        if module not in self._opened:
            self._opened[module] = self._open(module)
        return self._opened[module]

    def _open(self, module: str) -> _Opened | None:
        for path in self._folders.of(module):
            try:
                return _Opened(ModuleFile(open_source(str(path))), self._releases)
            except OrcdbgError as error:
                self._note(error.message)
        return None

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


class _Opened:
    """A module's file, its sections at addresses of our own."""

    def __init__(self, file: ModuleFile, releases: Sequence[str]) -> None:
        self._file = file
        info = file.elf.by_name.get(".modinfo")
        release = _VERMAGIC.search(b"" if info is None else file.elf.data(info))
        if release is not None and releases and release[1].decode("ascii", "replace") not in releases:
            raise UnsupportedFormat(file.path, "a module of another release")
        if not has_debug(file.elf):
            raise UnsupportedFormat(file.path, "no debugging information in it")
        self._addresses: dict[str, int] = {}
        for section in file.elf.sections:
            if section.flags & SHF_EXECINSTR:
                self._addresses.setdefault(section.name, _BEGIN + _STEP * len(self._addresses))
        units = CompileUnits(file.elf, file.debug_linker(self._addresses, lambda name: None))
        self._lines = SourceLines(file.elf, units)

    def position(self, frame: PrintedFrame, before: int) -> Position | None:
        """The source of a line in it.

        Raises:
            UnsupportedFormat: the file has a function of the name, but none of the size.
        """
        sections = self._file.elf.sections
        named = [place for place in self._file.places_of(frame.symbol) if sections[place[0]].name in self._addresses]
        if not named:
            return None
        fitting = [place for place in named if 0 <= frame.size - place[2] < _MOST_PADDING and frame.offset <= place[2]]
        if not fitting:
            raise UnsupportedFormat(self._file.path, f"another build: {frame.symbol} has another size")
        if len(fitting) > 1:
            return None
        section, offset, _ = fitting[0]
        return self._lines.at(self._addresses[sections[section].name] + offset + frame.offset - before)

"""How do our own readers of ELF and DWARF compare with pyelftools on one vmlinux? The reason that they are there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.elffile import ELFFile

from orcdbg.formats.callframe import CallFrames
from orcdbg.formats.dwarf_lines import LineTable
from orcdbg.formats.dwarf_sections import DebugSection, DebugSections
from orcdbg.formats.elf import ElfFile
from orcdbg.image.vmlinux import open_image, open_source
from orcdbg.symbols.kallsyms import vmlinux_symbols
from tests.lab.scenes import Scene

UNITS = 3


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one call, and what it gave."""
    begin = time.process_time()
    result = action()
    return time.process_time() - begin, result


def line(what: str, ours: float, theirs: float) -> None:
    """One line of the report."""
    print(f"{what:<34} own {ours:8.4f} s   pyelftools {theirs:8.4f} s   ratio {ours / theirs:.3f}")


def report(scene: Scene, kernel: str) -> None:
    """Times the same questions on both sides, once each, in one process."""
    path = str(scene.vmlinux)
    with scene.vmlinux.open("rb") as file:
        ours, elf = timed(lambda: ElfFile(open_source(path)))
        listed, _ = timed(lambda: elf.sections)
        theirs, library = timed(lambda: ELFFile(file))
        listed_by_library, _ = timed(lambda: list(library.iter_sections()))
        line(f"{kernel}: open, list sections", ours + listed, theirs + listed_by_library)

        image = open_image(path)
        ours, _ = timed(lambda: vmlinux_symbols(image).find("schedule"))
        theirs, _ = timed(lambda: list(library.get_section_by_name(".symtab").iter_symbols()))
        line(f"{kernel}: .symtab", ours, theirs)

        dwarf: DWARFInfo
        _, dwarf = timed(lambda: library.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False))

        section = DebugSection(elf, ".debug_frame")
        ours, _ = timed(lambda: len(CallFrames(section.read(0, section.size), section.name)))
        theirs, _ = timed(dwarf.CFI_entries)
        line(f"{kernel}: index of .debug_frame", ours, theirs)

        compare_lines(elf, dwarf, kernel)


def compare_lines(elf: ElfFile, dwarf: DWARFInfo, kernel: str) -> None:
    """The line programs of the units that need most time."""
    sections = DebugSections(elf)
    largest = sorted(dwarf.iter_CUs(), key=lambda unit: unit.size)[-UNITS:]
    programs = [unit.get_top_DIE().attributes["DW_AT_stmt_list"].value for unit in largest]

    ours, _ = timed(lambda: [LineTable(sections, offset, "") for offset in programs])
    theirs, _ = timed(
        lambda: [program.get_entries() for unit in largest if (program := dwarf.line_program_for_CU(unit))]
    )
    line(f"{kernel}: line programs of {UNITS} large units", ours, theirs)

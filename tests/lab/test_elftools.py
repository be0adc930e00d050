"""What our own fast readers of ELF and DWARF make of real kernels, against pyelftools, which reads the same slowly.

Debugging entries have no test here: pyelftools itself reads those (docs/adr/0002).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import BinaryIO

import pytest
from elftools.dwarf.callframe import FDE, CFARule, RegisterRule
from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.dwarf.lineprogram import LineState
from elftools.elf.elffile import ELFFile

from orcdbg.formats.call_frame_row import Place
from orcdbg.formats.callframe import REGISTERS, CallFrames
from orcdbg.formats.dwarf_lines import LineTable
from orcdbg.formats.dwarf_sections import DebugSection, DebugSections
from orcdbg.formats.elf import ElfFile
from orcdbg.image.vmlinux import open_source
from tests.lab.conftest import KERNELS
from tests.lab.fetch import ensure
from tests.lab.skips import skipped_if_unavailable

pytestmark = pytest.mark.lab

UNITS = 6
FUNCTIONS = 400
ADDRESSES_PER_UNIT = 400


@pytest.fixture(scope="module", params=KERNELS)
def vmlinux(request: pytest.FixtureRequest) -> Path:
    """The debug vmlinux of one kernel."""
    with skipped_if_unavailable(request.param):
        return ensure(request.param).vmlinux


@pytest.fixture(scope="module")
def ours(vmlinux: Path) -> ElfFile:
    """The file as we read it."""
    return ElfFile(open_source(str(vmlinux)))


@pytest.fixture(scope="module")
def theirs(vmlinux: Path) -> Iterator[DWARFInfo]:
    """The file's DWARF as pyelftools reads it: unrelocated, as a linked image is whole without."""
    with vmlinux.open("rb") as file:
        yield ELFFile(file).get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)


def test_sections_and_notes_are_those_of_pyelftools(vmlinux: Path, ours: ElfFile) -> None:
    """Every header field, and the bytes of the notes."""

    def sections(file: BinaryIO) -> Iterator[tuple[object, ...]]:
        for section in ELFFile(file).iter_sections():
            head = section.header
            yield section.name, head.sh_flags, head.sh_addr, head.sh_offset, head.sh_size, head.sh_link, head.sh_info

    def notes(file: BinaryIO) -> Iterator[bytes]:
        for section in ELFFile(file).iter_sections():
            if section.header.sh_type == "SHT_NOTE":
                yield section.data()

    with vmlinux.open("rb") as file:
        expected, expected_notes = list(sections(file)), list(notes(file))

    assert [(s.name, s.flags, s.address, s.offset, s.size, s.link, s.info) for s in ours.sections] == expected
    assert expected_notes
    assert [ours.data(section) for section in ours.sections if section.type == 7] == expected_notes


def cfa_of(rule: CFARule) -> Place | None:
    """A rule of pyelftools in our form; expressions are compared by being there."""
    return None if rule.reg is None or rule.offset is None else Place(REGISTERS[rule.reg], rule.offset, False)


def test_call_frames_are_those_of_pyelftools(ours: ElfFile, theirs: DWARFInfo, seed: int) -> None:
    """CFA and saved registers in every row of functions chosen at random."""
    section = DebugSection(ours, ".debug_frame")
    frames = CallFrames(section.read(0, section.size), section.name)

    functions = [entry for entry in theirs.CFI_entries() if isinstance(entry, FDE) and entry["address_range"]]
    assert len(frames) == len(functions)

    rows = 0
    for function in Random(seed).sample(functions, FUNCTIONS):
        table = function.get_decoded().table
        end = function["initial_location"] + function["address_range"]
        for line, following in zip(table, [*(later["pc"] for later in table[1:]), end], strict=True):
            if line["pc"] == following:
                continue  # holds nowhere
            row = frames.row(line["pc"])
            assert row is not None, hex(line["pc"])
            if line["cfa"].expr is None:
                assert row.cfa == cfa_of(line["cfa"]), hex(line["pc"])

            saved = {
                REGISTERS[number]: Place("cfa", rule.arg)
                for number, rule in line.items()
                if isinstance(number, int) and isinstance(rule, RegisterRule) and isinstance(rule.arg, int)
            }
            assert {name: place for name, place in row.saved.items() if place and place.base == "cfa"} == saved, hex(
                line["pc"]
            )
            rows += 1
    print(f"{rows} rows of {FUNCTIONS} functions")
    assert rows > FUNCTIONS


def sequences(states: list[LineState]) -> Iterator[list[LineState]]:
    """A line program's rows, sequence by sequence, the end among them."""
    sequence: list[LineState] = []
    for state in states:
        sequence.append(state)
        if state.end_sequence:
            yield sequence
            sequence = []


def line_in(sequence: list[LineState], address: int) -> int:
    """The line that a sequence has for an address in it: the last row that does not lie behind it."""
    end = sequence[-1].address
    return [row for row in sequence[:-1] if row.address <= address and row.address != end][-1].line


def test_line_tables_are_those_of_pyelftools(ours: ElfFile, theirs: DWARFInfo, seed: int) -> None:
    """Lines at addresses chosen at random, in units chosen at random."""
    random = Random(seed)
    sections = DebugSections(ours)

    def has_code(unit: CompileUnit) -> bool:
        top = unit.get_top_DIE()
        return "DW_AT_stmt_list" in top.attributes and "DW_AT_ranges" in top.attributes

    with_code = [unit for unit in random.sample(list(theirs.iter_CUs()), 10 * UNITS) if has_code(unit)][:UNITS]
    assert with_code

    compared = 0
    for unit in with_code:
        program = theirs.line_program_for_CU(unit)
        assert program is not None
        table = LineTable(sections, unit.get_top_DIE().attributes["DW_AT_stmt_list"].value, "")
        states = [entry.state for entry in program.get_entries() if entry.state is not None]
        # Sequences of functions that the linker left out begin at 0.
        linked = [one for one in sequences(states) if one[0].address and one[0].address < one[-1].address]
        for _ in range(ADDRESSES_PER_UNIT):
            sequence = random.choice(linked)
            address = random.randrange(sequence[0].address, sequence[-1].address)
            line = table.at(address)
            assert (line.line if line else 0) == line_in(sequence, address), hex(address)
            compared += 1
    print(f"{compared} addresses in {len(with_code)} units")

"""ELF headers, notes and sections, whole and damaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats.elf import ElfFile, parse_notes
from orcdbg.snapshot.readers.elf_core import open_elf_core
from tests.build import elf

CORE = elf.core([elf.Load(0x1000, b"A" * 4096)], elf.prstatus({"rip": 1}, 1) + elf.note("VMCOREINFO", 0, b"A=1\n"))
NOTES_END = 64 + 2 * 56 + ElfFile(BytesSource("core", CORE)).segments[0].file_size


def _everything(data: bytes) -> None:
    file = ElfFile(BytesSource("file", data))
    list(file.segments), list(file.sections), list(file.notes())


def test_sections_come_back_as_they_were_written() -> None:
    """Name, address and bytes of every section are those of the writer."""
    parts = [elf.Part(".text", 0xFFFFFFFF81000000, b"\x90" * 32, flags=6), elf.Part(".notes", 0, b"abc")]
    file = ElfFile(BytesSource("file", elf.image(parts)))
    found = [(s.name, s.address, file.data(s)) for s in file.sections[1:3]]
    assert found == [(part.name, part.address, part.data) for part in parts]


@pytest.mark.parametrize("size", [0, 3, 4, 15, 16, 63])
def test_a_file_cut_inside_its_first_header_is_not_elf(size: int) -> None:
    """Anything shorter than the file header is refused by name."""
    with pytest.raises(UnsupportedFormat, match="not an ELF file"):
        ElfFile(BytesSource("short", CORE[:size]))


@pytest.mark.parametrize(
    "size", [64, 65, 64 + 55, 64 + 56, 64 + 111, 64 + 112, 64 + 112 + 11, 64 + 112 + 20, NOTES_END - 1]
)
def test_a_core_cut_at_a_header_boundary_says_that_it_is_truncated(size: int) -> None:
    """A core cut at, or one byte before, the end of each header is an error that names the cut."""
    with pytest.raises(UnsupportedFormat, match="cut off|truncated|leaves"):
        open_elf_core(BytesSource("cut.core", CORE[:size]))


def test_a_core_cut_inside_its_memory_opens_with_a_warning() -> None:
    """What is there can still be read; the rest is said to be missing."""
    snapshot = open_elf_core(BytesSource("cut.core", CORE[:-100]))
    assert "cut off" in snapshot.warnings[0]
    assert snapshot.physical.read(0x1000, 4096 - 100) == b"A" * (4096 - 100)
    with pytest.raises(OrcdbgError, match="not in the snapshot"):
        snapshot.physical.read(0x1000, 4096)


@given(st.lists(st.tuples(st.sampled_from(["CORE", "QEMU", "VMCOREINFO"]), st.integers(1, 99), st.binary(max_size=40))))
def test_notes_come_back_as_they_were_written(notes: list[tuple[str, int, bytes]]) -> None:
    """Parsing what was written gives the same notes."""
    data = b"".join(elf.note(*one) for one in notes)
    assert [tuple(found) for found in parse_notes(data, "notes")] == notes


@given(st.binary(max_size=300), st.integers(0, 0x60))
def test_any_bytes_give_headers_or_a_named_error(noise: bytes, at: int) -> None:
    """Random damage raises an OrcdbgError or nothing."""
    damaged = CORE[:at] + noise + CORE[at + len(noise) :]
    try:
        _everything(damaged)
        open_elf_core(BytesSource("damaged", damaged))
    except OrcdbgError:
        pass

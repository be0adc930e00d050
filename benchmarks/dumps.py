"""How do compressed dumps compare: with drgn's libkdumpfile at reading all of memory, with ELF at a first answer?"""

from __future__ import annotations

import sys
from pathlib import Path

from orcdbg.base.reading import FileSource
from orcdbg.base.sizes import PAGE
from orcdbg.formats.elf import PT_LOAD, ElfFile, parse_notes
from orcdbg.snapshot.opening import open_paths
from tests.build.elf import note
from tests.build.kdump import Kdump

PIECE = 1 << 20


def write_kdump(core: Path, target: Path) -> int:
    """A zlib kdump of what an ELF core holds, its size; QEMU's own names no machine, and drgn refuses such a file."""
    elf = ElfFile(FileSource(str(core)))
    pages: dict[int, bytes] = {}
    notes = b""
    for segment in elf.segments:
        data = elf.source.read_at(segment.offset, segment.file_size)
        if segment.type == PT_LOAD:
            starts = range(-segment.physical % PAGE, len(data) - PAGE + 1, PAGE)
            pages |= {(segment.physical + at) // PAGE: data[at : at + PAGE] for at in starts}
        else:
            notes += b"".join(note(one.name, one.type, one.data) for one in parse_notes(data, str(core)))
    info = next(one.data for one in elf.notes() if one.name == "VMCOREINFO")
    return target.write_bytes(Kdump(pages, notes=notes, vmcoreinfo=info).encode())


def ranges(path: str) -> list[tuple[int, int]]:
    """What there is to read, in pieces."""
    found = open_paths(path).ranges
    assert found is not None
    return [(at, min(at + PIECE, end)) for start, end in found() for at in range(start, end, PIECE)]


def read_all(which: str, path: str, places: str) -> int:
    """Reads all memory of a dump with one of the two; the number of bytes."""
    pieces = [tuple(map(int, line.split())) for line in Path(places).read_text().splitlines()]
    if which == "drgn":
        import drgn

        program = drgn.Program()
        program.set_core_dump(path)
        return sum(len(program.read(start, end - start, physical=True)) for start, end in pieces)
    memory = open_paths(path).physical
    return sum(len(memory.read(start, end - start)) for start, end in pieces)


if __name__ == "__main__":
    first, *rest = sys.argv[1:]
    print(write_kdump(Path(rest[0]), Path(rest[1])) if first == "write" else read_all(first, *rest))

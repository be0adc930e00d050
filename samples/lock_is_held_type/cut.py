"""How is a full dump cut down to what its stacks and text need? Every page that orcdbg reads is kept, and all kernel text."""

from __future__ import annotations

import io
import lzma
import struct
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import AddressSpace, FileSource
from orcdbg.cli.output import Output
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.formats.elf import PT_LOAD, PT_NOTE, ElfFile
from orcdbg.image.vmlinux import Image, open_source
from orcdbg.session import Session
from orcdbg.snapshot.elfcore import open_elf_core
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.placement import find_placement

PAGE = 4096
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
# What the sample must be able to answer; `rd` of whole task stacks keeps what a later command may look at.
COMMANDS = (
    "bt -a",
    "foreach bt",
    "frame 6",
    "regs",
    "ps",
    "mod",
    "sys",
    "set",
    "patch list",
    "dis",
    "rd linux_banner 64",
    "step 9 --frame 6 --args rip-=1 rsp+=8 --trace --text image",
    "step 9 --frame 6 --args rip-=1 rsp+=8 --trace",
    "finish",
    "log",
)


class Recorder:
    """Physical memory that remembers which of its pages were read."""

    def __init__(self, memory: AddressSpace) -> None:
        self._memory = memory
        self.pages: set[int] = set()

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it."""
        data = self._memory.read(address, size)
        self.pages.update(range(address // PAGE, (address + size - 1) // PAGE + 1))
        return data


def _answer_all(session: Session) -> None:
    """Runs every command and reads every stack and all text, for the sake of what that touches."""
    debugger, registry, output = Debugger(session), standard_commands(), Output("json", False, None)
    with redirect_stdout(io.StringIO()):
        for command in COMMANDS:
            output.answer(command, registry.run(debugger, command), sys.stdout)
    find_placement(replace(session.snapshot, vmcoreinfo={}), _link_address(session))
    for start, end in session.text_ranges[:1]:
        _read_all(session.memory, start, end)
    for task in session.tasks:
        _read_all(session.memory, task.stack, task.stack + 4 * PAGE)


def _link_address(session: Session) -> Callable[[str], int | None]:
    """Link addresses by name, for finding the kernel by its IDT, which must work without VMCOREINFO too."""

    def find(name: str) -> int | None:
        symbol = session.symbols.find(name)
        return None if symbol is None else symbol.address

    return find


def _read_all(memory: AddressSpace, start: int, end: int) -> None:
    for address in range(start & -PAGE, end, PAGE):
        try:
            memory.read(address, PAGE)
        except OrcdbgError:
            continue  # a hole stays a hole


def _runs(pages: set[int]) -> list[tuple[int, int]]:
    """The pages as (first, count)."""
    runs: list[tuple[int, int]] = []
    for page in sorted(pages):
        if runs and page == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs


def write_core(path: Path, notes: bytes, memory: AddressSpace, pages: set[int]) -> None:
    """Writes an ELF core with these notes and these pages of physical memory."""
    runs = _runs(pages)
    headers = _EHDR.size + _PHDR.size * (1 + len(runs))
    offset = -(-(headers + len(notes)) // PAGE) * PAGE
    table = [_PHDR.pack(PT_NOTE, 0, headers, 0, 0, len(notes), len(notes), 0)]
    for first, count in runs:
        table.append(_PHDR.pack(PT_LOAD, 0, offset, 0, first * PAGE, count * PAGE, count * PAGE, 0))
        offset += count * PAGE
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    ehdr = _EHDR.pack(ident, 4, 62, 1, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, len(table), 0, 0, 0)
    with path.open("wb") as file:
        file.write((ehdr + b"".join(table) + notes).ljust(-(-(headers + len(notes)) // PAGE) * PAGE, b"\0"))
        for first, count in runs:
            file.write(memory.read(first * PAGE, count * PAGE))


def cut(vmlinux: Path, full: Path, out: Path) -> None:
    """Writes `snapshot.core` and `vmlinux.xz` into `out`."""
    source = FileSource(str(full))
    whole = open_elf_core(source)
    recorder = Recorder(whole.physical)
    snapshot = Snapshot(whole.path, whole.format, recorder, whole.cpus, whole.vmcoreinfo, whole.warnings)
    _answer_all(Session(Image(open_source(str(vmlinux))), snapshot))
    note = next(segment for segment in ElfFile(FileSource(str(full))).segments if segment.type == PT_NOTE)
    write_core(out / "snapshot.core", source.read_at(note.offset, note.file_size), whole.physical, recorder.pages)
    (out / "vmlinux.xz").write_bytes(lzma.compress(vmlinux.read_bytes(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: cut.py VMLINUX FULL_CORE OUTDIR")
    cut(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))

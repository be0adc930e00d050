"""How is a full dump cut down to what its stacks and text need? Every page that orcdbg reads is kept, and all kernel text."""

from __future__ import annotations

import io
import lzma
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.intervals import pages_of
from orcdbg.base.reading import AddressSpace, FileSource
from orcdbg.base.sizes import PAGE
from orcdbg.cli.output import Output
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.image.vmlinux import Image, open_source
from orcdbg.snapshot.placement import find_placement
from orcdbg.snapshot.readers.elf_core import open_elf_core
from orcdbg.target.session import Session
from orcdbg.trim.core_writing import write_core
from orcdbg.trim.kept_pages import runs_of
from orcdbg.trim.recorder import Recorder

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


def _answer_all(session: Session) -> None:
    """Runs every command and reads every stack and all text, for the sake of what that touches."""
    debugger, registry, output = Debugger(session), standard_commands(), Output("json", False, None)
    with redirect_stdout(io.StringIO()):
        for command in COMMANDS:
            output.answer(command, registry.run(debugger, command), sys.stdout)
    find_placement(replace(session.snapshot, vmcoreinfo={}), session.link_address)
    for start, end in session.text_ranges[:1]:
        _read_all(session.memory, start, end)
    for task in session.tasks:
        _read_all(session.memory, task.stack, task.stack + 4 * PAGE)


def _read_all(memory: AddressSpace, start: int, end: int) -> None:
    for address in range(start & -PAGE, end, PAGE):
        try:
            memory.read(address, PAGE)
        except OrcdbgError:
            continue  # a hole stays a hole


def cut(vmlinux: Path, full: Path, out: Path) -> None:
    """Writes `snapshot.core` and `vmlinux.xz` into `out`."""
    whole = open_elf_core(FileSource(str(full)))
    recorder = Recorder(whole.physical)
    _answer_all(Session(Image(open_source(str(vmlinux))), replace(whole, physical=recorder)))
    pages = [(page * PAGE, (page + 1) * PAGE) for page in pages_of(recorder.ranges())]
    # Zeros are written too: in a core that names no kept bytes, what the file leaves out is missing.
    runs = [run._replace(is_zero=False) for run in runs_of(pages, whole.physical)]
    with (out / "snapshot.core").open("wb") as file:
        write_core(file, whole.notes, runs, lambda first, count: whole.physical.read(first * PAGE, count * PAGE))
    (out / "vmlinux.xz").write_bytes(lzma.compress(vmlinux.read_bytes(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: cut.py VMLINUX FULL_CORE OUTDIR")
    cut(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))

"""gdb with orcdbg's extension on a snapshot that orcdbg serves: the same stack as orcdbg's own.

Crosses the extension in plugins/gdb, and gdb/server and gdb/served_snapshot, which it talks to.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orcdbg.cli.main import sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.gdb.served_snapshot import ServedSnapshot
from orcdbg.gdb.server import serve
from orcdbg.target.session import Session
from tests.build.stub import StubServer
from tests.plugins.real_gdb import PLUGIN, run_gdb

# Every frame, the 0 that ends the stack too.
WALK = "python f = gdb.newest_frame(); exec('while f is not None: f.pc(); f = f.older()')"
FRAME = re.compile(r"(?m)^#(\d+) +(?:0x([0-9a-f]+) in )?(\S+) \(")


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample's, unpacked for gdb."""
    path = tmp_path_factory.mktemp("gdb") / "vmlinux"
    path.write_bytes(lzma.decompress(Path(sample_files()[0]).read_bytes()))
    return str(path)


@pytest.fixture
def target(sample: Session, tmp_path: Path) -> Iterator[str]:
    """gdb's word for the sample, served."""
    served = ServedSnapshot(sample, Debugger(sample).task)
    with StubServer(tmp_path, lambda connection: serve(connection, served.afresh())) as server:
        yield f"target remote {server.path}"


def test_gdb_shows_orcdbgs_stack(sample: Session, vmlinux: str, target: str) -> None:
    """With the extension, through the NMI and the patched text up to the user; without it, it loses its way."""
    out = run_gdb(
        vmlinux,
        target,
        "bt",
        "echo \n--with--\n",
        f"source {PLUGIN}",
        "bt",
        "frame 6",
        "orc frame",
        "info threads",
        WALK,
    )
    without, _, with_it = out.partition("--with--")
    expected = sample.unwinder.trace(sample.task(135)).frames
    shown = FRAME.findall(with_it[: with_it.index("~#6 ")])[: len(expected)]
    assert [int(ip, 16) for _, ip, _ in shown] == [frame.ip for frame in expected], out
    assert [name for _, _, name in shown[:-1]] == [frame.location.symbol for frame in expected if frame.location]
    assert "lock_is_held_type" not in without
    assert "was not saved" not in out
    assert "true rule  sp+72" in with_it
    assert len(re.findall(r"(?m)^[* ] \d+ +Thread ", with_it)) == len(sample.tasks)


def test_gdb_steps_in_the_emulator(vmlinux: str, target: str) -> None:
    """And is told what cannot be stepped; the memory of the snapshot is not written."""
    out = run_gdb(vmlinux, target, "stepi", "print $rip", "thread 3", "stepi", "set var *(int *)$rsp = 0", "detach")
    assert "<delay_tsc+56>" in out
    assert "orcdbg: task 1 is not on a CPU: not all its registers are known" in out
    assert "Cannot access memory at address" in out


def test_gdb_says_why_a_kernel_is_not_found(vmlinux: str) -> None:
    """Without a target there is no kernel to ask."""
    out = run_gdb(vmlinux, f"source {PLUGIN}", "orc check")
    assert "orcdbg: cannot tell where the kernel lies" in out

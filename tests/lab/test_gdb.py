"""gdb on a live guest that stands between a patched-in `pushf` and its `pop`: wrong without the extension, right with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orcdbg.target.opening import open_session
from orcdbg.unwind.frame import End
from tests.lab.busy import booted, on_a_living_guest
from tests.lab.draw import kernels_of
from tests.lab.strike import find_pop
from tests.plugins.real_gdb import PLUGIN, run_gdb

pytestmark = pytest.mark.lab

# Real frames alone: inlined functions share their ip with the frame that they are part of.
SHOW = """python
frame, out = gdb.newest_frame(), []
while frame is not None and frame.pc():
    out += [f"{frame.pc():x}"] * (frame.type() != gdb.INLINE_FRAME)
    frame = frame.older()
print("IPS", *out)
end
"""

# The function itself, not what was inlined into it.
SELECT = """python
frame = gdb.newest_frame()
while frame.type() == gdb.INLINE_FRAME:
    frame = frame.older()
frame.select()
end
"""


@pytest.mark.parametrize("kernel", kernels_of("gdb"))
@on_a_living_guest
def test_gdbs_stack_is_right_with_the_extension_alone(kernel: str, seed: int, tmp_path: Path) -> None:
    """The frames of a dump made at the same stop, up to where the stack begins; `finish` comes to the caller."""
    core, script = tmp_path / "core", tmp_path / "script"
    with booted(kernel, seed, tmp_path, "nokaslr") as (guest, found, start):
        with guest.stub() as stub:
            address = start + find_pop(stub, start)
        lines = [
            "set confirm off", f"target remote {guest.gdb_socket}", f"hbreak *{address:#x}", "continue", "delete",
            'printf "STOPPED %d\\n", $_thread', f"monitor dump-guest-memory {core}",
            SHOW, f"source {PLUGIN}", SHOW, "bt", "orc frame", SELECT,
            "finish", 'printf "FINISHED %lx\\n", $rip', "detach",
        ]  # fmt: skip
        script.write_text("\n".join(lines), encoding="ascii")
        out = run_gdb(str(found.vmlinux), f"source {script}")
        assert guest.is_running()
    without, with_it = ([int(ip, 16) for ip in line.split()] for line in re.findall(r"(?m)^IPS (.*)$", out))
    session = open_session(found.vmlinux, core)
    traces = [session.unwinder.trace(session.task(task)) for task in session.unwinder.running]
    # Both CPUs may stand there; QEMU numbers its threads from 1.
    trace = next(trace for trace in traces if trace.cpu == int(re.findall(r"(?m)^STOPPED (\d+)$", out)[0]) - 1)
    assert trace.frames[0].ip == address
    assert trace.end in (End.USER, End.KTHREAD, End.IDLE), trace.end_reason
    expected = [frame.ip for frame in trace.frames]
    print(f"{kernel}: without {len(without)} frames, with {len(with_it)} of {len(expected)}, ends at {trace.end}")
    assert with_it == expected, out
    assert without != expected, out
    assert "ORC row" in out
    assert f"FINISHED {expected[1]:x}" in out, out

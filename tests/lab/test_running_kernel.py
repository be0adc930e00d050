"""orcdbg inside a guest, on the memory of the kernel that runs it, while others of its tasks come and go.

Of a task that stands still all is shown as /proc has it; of one that runs, or ran meanwhile, no frame.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from random import Random

import pytest

from tests.lab import inside, proc_stacks, scripts
from tests.lab.deaths import note_death
from tests.lab.draw import kernels_of
from tests.lab.fetch import ensure, locked
from tests.lab.guest import Guest, GuestError, Machine
from tests.lab.initramfs import build_initramfs
from tests.lab.program import sleeper_programs
from tests.lab.skips import skipped_if_unavailable

pytestmark = pytest.mark.lab

SECONDS, MEMORY, GUESTS = 420.0, 768, 3
# numpy asks for CMPXCHG16B of the CPU; the kernel must not use it, see `guest.WITHOUT_CX16`: X86_FEATURE_CX16 is 4*32 + 13.
CPU, APPEND = "max", "panic=-1 clearcpuid=141"
SHOW = """
import os

import orcdbg
from orcdbg.views.reasons import words_or_none
from proc_stacks import as_proc_prints

os.nice(-15)  # before those that come and go
session = orcdbg.open("/vmlinux", "/proc/kcore")
for trace in session.unwinder.traces(session.tasks):
    unsure = sum(not frame.mark.is_sure for frame in trace.frames)
    why = type(trace.end_reason).__name__
    print("LIVE", trace.pid, trace.end.value, why, len(trace.frames), unsure, *as_proc_prints(session, trace), sep="|")
"""
COMING_AND_GOING = (
    "usleep {}000",
    "usleep {}000; echo word | cat",
    "usleep {}000; busybox true",
    "usleep {}000; ls /proc",
)


def init(random: Random) -> str:
    """Tasks that sleep for good, two that come and go, and what orcdbg says of all of them."""
    busy = random.sample(COMING_AND_GOING, 2)
    loops = "".join(
        f"(while :; do {each.format(random.randrange(10, 60))}; done) > /dev/null 2>&1 &\n" for each in busy
    )
    lines = (
        f"{inside.mount()}show_stacks 1\n{loops}",
        "inside --color never -e 'bt -a' -e sys",
        "inside_python /show.py",
        "show_stacks 2",
        f"echo {scripts.DONE}",
        "while :; do sleep 1000; done\n",
    )
    return scripts.SHOW_STACKS + scripts.write_tasks(random) + "\n".join(lines)


def console_of(kernel: str, random: Random, home: Path) -> str:
    """What such a guest printed; begun anew where it died."""
    found = ensure(kernel)
    disk = inside.disk(
        found, home, {"show.py": SHOW.encode(), "proc_stacks.py": Path(proc_stacks.__file__).read_bytes()}
    )
    for number in range(GUESTS):
        (home / "initrd").write_bytes(build_initramfs(init(random), inside.drivers(found), sleeper_programs()))
        machine = Machine(found.vmlinuz, home / "initrd", APPEND, CPU, random.randint(1, 2), MEMORY, disks=(disk,))
        try:
            with Guest(machine, home / f"serial-{number}.log") as guest:
                return guest.wait_for(f"\n{scripts.DONE}", SECONDS).replace("\r", "")
        except GuestError as error:
            note_death(f"{kernel}, with orcdbg inside", str(error))
    raise GuestError(f"{GUESTS} guests died with orcdbg inside")


@pytest.mark.parametrize("kernel", kernels_of("a running kernel"))
def test_of_a_task_that_runs_nothing_is_said(kernel: str, seed: int, tmp_path: Path) -> None:
    """Every walk is whole and sure, or there is none; tasks that stand still are as the guest's own unwinder has them."""
    with skipped_if_unavailable(kernel), locked("guest"):
        console = console_of(kernel, Random(f"{seed} {kernel} inside"), tmp_path)
    shutil.rmtree(tmp_path / "disk", ignore_errors=True)
    before, after = scripts.parse_rounds(console)
    lines = [line.split("|") for line in re.findall(r"(?m)^LIVE\|(.*)$", console)]
    assert len(lines) > 40, console[-2000:]

    same = silent = 0
    for pid, end, why, count, unsure, *names in lines:
        if why in ("CpuNotSaved", "RanMeanwhile", "StackGone"):
            assert (end, count) == ("stopped", "0"), (pid, why)
            silent += 1
            continue
        assert (why, unsure) == ("NoneType", "0"), (pid, end, why, names)
        stood = before.get(int(pid))
        if stood is not None and stood == after.get(int(pid)) and scripts.stays_while_busy(stood.comm):
            assert tuple(names) == stood.frames, (pid, stood.comm)
            same += 1
    print(f"{kernel}: {same} tasks stood still, {silent} ran, {len(lines) - same - silent} others were seen asleep")
    assert same > 5
    assert silent > 0  # who asks runs
    assert re.search(r"COMMAND: \"python", console), "`bt -a` shows who runs"
    assert "whose registers are not in" in re.sub(r"\s+", " ", console)

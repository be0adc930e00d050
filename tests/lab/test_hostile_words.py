"""Whatever words the memory of a real kernel holds, each command ends with an answer or one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orcdbg.base.walks import Budget
from orcdbg.subsystems.memory_maps import areas_of
from orcdbg.x86.paging import PRESENT, RW
from tests.hostile_words import SECONDS, Ground, limited
from tests.lab.conftest import KERNELS, FindScene

pytestmark = pytest.mark.lab

# Of CPU time, for each kernel.
ROUNDS_FOR = 5
_USER = 4


@pytest.mark.parametrize("kernel", KERNELS)
def test_commands_on_damaged_words_of_a_kernel_end_well(kernel: str, seed: int, find_scene: FindScene) -> None:
    """The seed is that of the run; what fails is printed with all that repeats it."""
    scene = find_scene(kernel, "nmi")
    words = [sys.executable, "-m", "tests.hostile_words", "--seed", str(seed), "--rounds", "100000"]
    words += ["--seconds", str(ROUNDS_FOR), str(scene.vmlinux), str(scene.snapshot)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[:6000] + done.stderr[-2000:]
    assert done.stdout.startswith(f"seed {seed}: ")
    assert not done.stdout.startswith(f"seed {seed}: 0 rounds")


@pytest.mark.parametrize("line", ["search -u 1234567812345678", "vm -p", "gcore -o CORE"])
def test_a_page_table_that_leads_to_itself_costs_little(find_scene: FindScene, line: str, tmp_path: Path) -> None:
    """All of a task's address space is mapped, by one table: the answer comes, and no file grows beyond memory."""
    scene = find_scene(KERNELS[-1], "nmi")
    ground = Ground((str(scene.vmlinux), str(scene.snapshot)), str(tmp_path))
    session = ground.session
    task = next(t for t in session.tasks if int(session.object("task_struct", t.address).mm))
    mm = session.object("task_struct", task.address).member_("mm")
    table = session.memory.translate(int(mm.member_("pgd")))

    words = {table + 8 * number: table | PRESENT | RW | _USER for number in range(64)}
    first = next(areas_of(mm, Budget(100)))
    for name, bound in (("vm_start", 0), ("vm_end", 1 << 40)):
        words[session.memory.translate(first.member_(name).address_ or 0)] = bound
    ground.memory.words = words
    # What is mapped is gone through once or twice: all that the snapshot holds, a page at a time.
    with limited(4 * SECONDS):
        end, said = ground.run(line.replace("CORE", str(tmp_path / "core")), "json", task.pid)
    assert json.loads(said)
    if line.startswith(("search", "gcore")):
        assert end == "answered", said
        assert "more than" in said

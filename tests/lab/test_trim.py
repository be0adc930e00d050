"""Trimmed snapshots of real kernels: small, walked alike by orcdbg and drgn, and without what users had in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

import orcdbg
from orcdbg.cli.main import main
from orcdbg.patches.audit.core_text import audit_kernel
from orcdbg.target.session import Session
from orcdbg.trim.essential_memory import module_ranges
from orcdbg.unwind.frame import StackTrace
from tests.lab.conftest import OpenScene
from tests.lab.draw import kernels_of

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("trimming"))]

SHARE = 0.02  # of a snapshot of 256 MB with 70 tasks
SMALLEST_SECRET = 40
LARGE_MODULE = 1 << 20


def trimmed(session: Session, path: Path, *options: str) -> Path:
    """The scene's snapshot, trimmed."""
    assert main(["trim", session.image.path, session.snapshot.path, "-o", str(path), *options]) == 0
    return path


def large_modules(session: Session) -> int:
    """Bytes of data of modules like xfs, which a trimmed snapshot has to keep: a few of 70 tasks' stacks in one."""
    sizes = (sum(size for _, size in module_ranges(session.linux, module)) for module in session.names.modules)
    return sum(size for size in sizes if size > LARGE_MODULE)


def stacks(session: Session) -> list[StackTrace]:
    """Every task's stack."""
    return [session.unwinder.trace(task) for task in session.tasks]


def kernel_frames(vmlinux: Path, snapshot: Path) -> dict[int, list[tuple[str, int]]]:
    """What drgn finds on every sleeping task's stack, up to where it leaves the kernel."""
    import drgn  # of the lab alone: the fast tests are collected without it
    from drgn.helpers.linux.pid import for_each_task

    program = drgn.Program()
    program.set_core_dump(str(snapshot))
    try:
        program.load_debug_info([str(vmlinux)])
    except drgn.MissingDebugInfoError:
        pass  # of modules: their frames end its walks, in both files alike
    found: dict[int, list[tuple[str, int]]] = {}
    for task in for_each_task(program):
        frames: list[tuple[str, int]] = []
        for frame in program.stack_trace(task):
            if not frame.pc >> 63:
                break
            frames.append((frame.name, frame.pc))
        found[task.pid.value_()] = frames
    return found


def test_a_trimmed_snapshot_is_walked_alike(kernel: str, open_scene: OpenScene, tmp_path: Path) -> None:
    """By orcdbg and by drgn, all tasks; and it is at most 2% of 256 MB for 70 tasks, large modules' data aside."""
    scene, session = open_scene(kernel, "idle")
    small = trimmed(session, tmp_path / "small")
    again = orcdbg.open(scene.vmlinux, small)
    assert len(session.tasks) >= 70
    assert stacks(again) == stacks(session)
    assert kernel_frames(scene.vmlinux, small) == kernel_frames(scene.vmlinux, scene.snapshot)
    assert small.stat().st_size <= SHARE * (256 << 20) * max(1, len(session.tasks) / 70) + large_modules(session)


def test_patched_text_is_accounted_for_where_it_was_kept(kernel: str, open_scene: OpenScene, tmp_path: Path) -> None:
    """--text keeps the text and all state that decides what it must be."""
    scene, session = open_scene(kernel, "nmi")
    report = audit_kernel(orcdbg.open(scene.vmlinux, trimmed(session, tmp_path / "small", "--text")).patches)
    whole = audit_kernel(session.patches)
    assert (report.differing, report.unexplained, report.mismatched) == (whole.differing, 0, 0)
    assert report.missing_pages == 0


def test_what_users_had_in_memory_does_not_get_in(kernel: str, open_scene: OpenScene, tmp_path: Path) -> None:
    """The guest's init script is in its page cache and in its shell's memory: no line of it is in the small file."""
    scene, session = open_scene(kernel, "idle")
    script = (scene.snapshot.parent / "init").read_bytes()
    secrets = [line for line in script.splitlines() if len(line) >= SMALLEST_SECRET]
    whole = scene.snapshot.read_bytes()
    planted = [line for line in secrets if line in whole]
    assert len(planted) > 3
    small = trimmed(session, tmp_path / "small", "--all-stacks", "--text").read_bytes()
    assert [line for line in planted if line in small] == []

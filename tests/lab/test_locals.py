"""Local variables and arguments of all sleeping tasks' frames, against drgn: every value that both have is the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import orcdbg
from orcdbg.base.errors import NotFound
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.mod import Modules
from orcdbg.commands.source_text import SourceText
from orcdbg.commands.standard import standard_commands
from orcdbg.typed.types import CompoundType
from tests.lab.conftest import FindScene, OpenScene
from tests.lab.draw import kernels_of
from tests.lab.drgn_locals import compared_lines, compared_stack
from tests.lab.drgn_types import Comparison, opened
from tests.lab.fetch import ensure_module_debug
from tests.lab.skips import skipped_if_unavailable

pytestmark = pytest.mark.lab

# Of the 1,305 to 1,777 values that the dumps of four kernels have; a scene of another seed has other tasks.
VALUES = 900


@pytest.mark.parametrize("kernel", kernels_of("local variables"))
def test_variables_of_sleeping_tasks_are_those_of_drgn(kernel: str, open_scene: OpenScene) -> None:
    """Names, places and values, in every frame that both walk to."""
    drgn = pytest.importorskip("drgn")
    scene, session = open_scene(kernel, "idle")
    program = opened(drgn, scene)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for task in session.tasks:
        trace = session.unwinder.trace(task)
        if trace.running:
            continue
        stack = program.stack_trace(drgn.Object(program, "struct task_struct *", task.address))
        wrong += compared_stack(session, trace, stack, counts)
    print(f"{kernel}: {dict(counts)}")
    assert wrong == []
    assert counts["values"] > VALUES
    assert counts["missing"] <= counts["values"] // 200


# Modules that the lab's guests load, and a structure of one of them.
MODULES = ("pktgen", "loop", "qemu_fw_cfg", "dummy", "veth", "bridge", "stp", "llc")
STRUCTURE = "pktgen_dev"


@pytest.mark.parametrize("kernel", kernels_of("local variables"))
def test_a_module_is_loaded_at_the_prompt(kernel: str, find_scene: FindScene) -> None:
    """`mod -s` with a file: lines of the module are known from then on; a file of another module is refused."""
    scene = find_scene(kernel, "idle")
    with skipped_if_unavailable(f"{kernel} module debug"):
        folder = ensure_module_debug(kernel, MODULES)
    files = {path.stem: path for path in folder.rglob("*.ko")}
    debugger, registry = Debugger(orcdbg.open(scene.vmlinux, scene.snapshot)), standard_commands()
    with pytest.raises(NotFound):
        registry.run(debugger, "list loop_control_ioctl")
    with pytest.raises(NotFound) as caught:
        registry.run(debugger, f"mod -s pktgen {files['loop']}")
    assert "do not belong together" in str(caught.value.hint)

    loaded = registry.run(debugger, f"mod -s loop {files['loop']}")
    assert isinstance(loaded, Modules)
    assert list((loaded.files or {}).values()) == [str(files["loop"])]
    source = registry.run(debugger, "list loop_control_ioctl")
    assert isinstance(source, SourceText)
    assert source.place.file == "drivers/block/loop.c"
    everything = registry.run(debugger, f"mod -S {folder}")
    assert isinstance(everything, Modules)
    assert len(everything.files or {}) > 1


def _variable_of(program: Any, name: str, address: int) -> Any:
    """drgn's variable of a name, where it is the one at that address."""
    try:
        found = program.variable(name)
    except LookupError:
        return None
    return found if found.address_ == address else None


@pytest.mark.parametrize("kernel", kernels_of("local variables"))
def test_modules_with_their_files_are_described_as_by_drgn(kernel: str, find_scene: FindScene) -> None:
    """Variables, source lines and inlined functions of their frames; types of their data."""
    drgn = pytest.importorskip("drgn")
    scene = find_scene(kernel, "idle")
    with skipped_if_unavailable(f"{kernel} module debug"):
        folder = ensure_module_debug(kernel, MODULES)
    session = orcdbg.open(scene.vmlinux, scene.snapshot)
    session.add_module_folder(str(folder))
    names = {module.name for module in session.names.modules}
    files = [path for path in folder.rglob("*.ko") if path.stem.replace("-", "_") in names]
    program = opened(drgn, scene, files)

    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for task in session.tasks:
        trace = session.unwinder.trace(task)
        if trace.running or not any(frame.location and frame.location.module for frame in trace.frames):
            continue
        stack = program.stack_trace(drgn.Object(program, "struct task_struct *", task.address))
        wrong += compared_stack(session, trace, stack, counts)
        wrong += compared_lines(session, trace, stack, counts)

    comparison = Comparison()
    structure = session.program.type(f"struct {STRUCTURE}")
    assert isinstance(structure, CompoundType)
    wrong += comparison.differing(structure, program.type(f"struct {STRUCTURE}"), STRUCTURE)
    debug = session.kernel.module_debug
    assert debug is not None
    for module in session.names.modules:
        dwarf = debug.of(module)
        if dwarf is None:
            continue
        table = session.names.module_symbols[module.address].table
        for index in range(len(table.entries)):
            symbol = table.symbol(index)
            ours = dwarf.types.variable_at(symbol.name, symbol.address)
            if ours is None:
                continue
            theirs = _variable_of(program, symbol.name, symbol.address)
            if theirs is None:
                continue
            wrong += comparison.differing(ours, theirs.type_, symbol.name)
            counts["variables"] += 1
    print(f"{kernel}: {dict(counts)}, {dict(comparison.counts)}")
    assert wrong == []
    assert debug.problems == []
    assert counts["lines"] > 0
    assert counts["values"] > 0

"""Real kernels from each image that people have: debug vmlinux, vmlinuz, or nothing but the snapshot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.image.vmlinux import open_image
from orcdbg.patches.audit.account import MemoryText
from orcdbg.patches.audit.core_text import audit_kernel, relocations_by_difference, text_as_built
from orcdbg.patches.built_text import BuiltText
from orcdbg.symbols.kallsyms import vmlinux_symbols
from orcdbg.target.opening import image_in_memory, open_session
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from tests.lab.alone import without_tail_calls
from tests.lab.conftest import KERNELS, OpenScene
from tests.lab.fetch import ensure

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", KERNELS)]
both = pytest.mark.parametrize("name", ["idle", "nmi"])

# What only the boot's tables tell of a patch, and the snapshot alone does not.
_TABLES_TELL = ("mechanism", "name", "decided_by")


def stacks(session: Session, by_tables: bool = True) -> list[dict[str, Any]]:
    """`foreach bt` as JSON; with `by_tables` false without what only the tables of patched places tell."""
    found: list[dict[str, Any]] = encode(standard_commands().run(Debugger(session), "foreach bt"))["stacks"]
    if not by_tables:
        found = without_tail_calls(found)
    for frame in (frame for stack in found for frame in stack["frames"]):
        patch = frame["patch"]
        if patch is not None and not by_tables:
            kept = {key: value for key, value in patch.items() if key not in _TABLES_TELL}
            frame["patch"] = kept if patch["adjust"] else None
        if patch is not None and patch["adjust"] and not by_tables:
            frame["notes"] = len(frame["notes"])
    return found


@both
def test_stacks_are_the_same_from_vmlinuz(kernel: str, name: str, open_scene: OpenScene) -> None:
    """Every field of every frame of every task."""
    scene, session = open_scene(kernel, name)
    other = open_session(ensure(kernel).vmlinuz, scene.snapshot)
    assert stacks(other) == stacks(session)


@both
def test_stacks_are_the_same_from_the_snapshot_alone(kernel: str, name: str, open_scene: OpenScene) -> None:
    """With VMCOREINFO and without; all but the names of patches, and patches that moved no stack."""
    scene, session = open_scene(kernel, name)
    expected = stacks(session, by_tables=False)
    alone = open_session(scene.snapshot)
    assert stacks(alone, by_tables=False) == expected
    bare = replace(alone.snapshot, vmcoreinfo={})
    assert stacks(Session(image_in_memory(bare), bare), by_tables=False) == expected


@both
def test_the_audit_by_vmlinuz_is_the_one_by_vmlinux(kernel: str, name: str, open_scene: OpenScene) -> None:
    """Nothing unexplained, nothing mismatched, and each mechanism explains the same bytes; so do both files together."""
    scene, session = open_scene(kernel, name)
    expected = audit_kernel(session.patches)
    for files in ((ensure(kernel).vmlinuz,), (scene.vmlinux, ensure(kernel).vmlinuz)):
        report = audit_kernel(open_session(*files, scene.snapshot).patches)
        assert (report.unexplained, report.mismatched, report.problems) == (0, 0, [])
        assert report.differing == report.explained == expected.explained
        moved = {name: one.bytes for name, one in report.mechanisms.items()}
        assert moved.get("relocation", 0) == expected.mechanisms["relocation"].bytes if session.slide else True
        assert moved == {name: one.bytes for name, one in expected.mechanisms.items()} | (
            {"relocation": 0} if not session.slide and "relocation" in moved else {}
        )


def test_all_sources_name_the_same_relocated_places(kernel: str, open_scene: OpenScene) -> None:
    """The list in the boot image, the linker's where the vmlinux has one, and what memory shows by difference."""
    _, session = open_scene(kernel, "idle")
    boot = BuiltText(open_image(str(ensure(kernel).vmlinuz)), session.slide)
    text = session.image.find_section(".text")
    assert text is not None
    mine = boot.relocations(text)
    assert mine is not None
    by_linker = session.built.relocations(text)
    if by_linker is not None:
        assert [np.array_equal(a, b) for a, b in zip(mine, by_linker, strict=True)] == [True] * 3
    if not session.slide:
        return
    start, data = text_as_built(session.build)
    memory = MemoryText(session.memory, start, start + len(data))
    shown = relocations_by_difference(session.build, session.built, session.patches.passes, data, memory)
    low, high = (address - session.slide for address in session.build.text)
    inside = (mine.places >= np.uint64(low)) & (mine.places < np.uint64(high))
    told = dict(zip(shown.places.tolist(), shown.signs.tolist(), strict=True))
    listed = dict(zip(mine.places[inside].tolist(), mine.signs[inside].tolist(), strict=True))
    assert told.items() <= listed.items()
    for place in sorted(listed.keys() - told.keys()):
        # Only a place whose bytes the kernel overwrote since cannot be seen moved.
        built, now = session.image.read(place, 4), session.memory.read(place + session.slide, 4)
        difference = int.from_bytes(now, "little") - int.from_bytes(built, "little")
        assert (difference - listed[place] * session.slide) % (1 << 32), hex(place)


def test_every_address_of_code_has_the_same_name(kernel: str) -> None:
    """By the file's symbol table and by the kernel's own; name and distance to the next one."""
    file, own = (vmlinux_symbols(open_image(str(path))) for path in (ensure(kernel).vmlinux, ensure(kernel).vmlinuz))
    wrong, looked = [], 0
    for address in np.unique(own.entries["value"]).tolist():
        mine = own.at(address)
        if mine is not None and mine.symbol.letter in "tTwW":
            looked += 1
            theirs = file.at(address)
            if theirs is None or (theirs.symbol.name, theirs.size) != (mine.symbol.name, mine.size):
                wrong.append((hex(address), mine, theirs))
    assert looked > 20_000
    assert wrong == []

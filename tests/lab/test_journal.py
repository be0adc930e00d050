"""Real kernels by a journal of their patches: without the image, the same patches and corrections as with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orcdbg.base.errors import Absence, NotInSnapshot
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.cli.patches import apply_patches
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.patch_export import export_patches
from orcdbg.commands.standard import standard_commands
from orcdbg.orc.effective import TextFrom
from orcdbg.patches.text import TextSource
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame
from orcdbg.views.as_json import encode
from tests.lab.alone import without_tail_calls
from tests.lab.conftest import OpenScene
from tests.lab.draw import kernels_of

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("journal"))]


def answer(session: Session, command: str) -> dict[str, Any]:
    """A command's answer as JSON."""
    found: dict[str, Any] = encode(standard_commands().run(Debugger(session), command))
    return found


def patches_at(session: Session, site: str) -> list[dict[str, Any]]:
    """What `patch at` lists in the passes' order: all but relocated operands, which are the image's and no journal has."""
    sites: list[dict[str, Any]] = answer(session, f"patch at {site}")["sites"]
    patches = sorted((one for one in sites if one["mechanism"] != "relocation"), key=lambda one: int(one["order"]))
    return [{key: value for key, value in one.items() if key != "order"} for one in patches]


def corrected(session: Session) -> list[Frame]:
    """The frames whose rule a patch changed, of all stacks."""
    frames = [frame for task in session.tasks for frame in session.unwinder.trace(task).frames]
    return [frame for frame in frames if frame.patch is not None and frame.patch.adjust]


class Without:
    """Physical memory that lacks some pages."""

    def __init__(self, memory: AddressSpace, pages: set[int]) -> None:
        self._memory, self._pages = memory, pages

    def read(self, address: int, size: int) -> bytes:
        """As an AddressSpace."""
        if not self._pages.isdisjoint(range(address // PAGE, (address + size - 1) // PAGE + 1)):
            raise NotInSnapshot("physical", address, size, Absence.EXCLUDED)
        return self._memory.read(address, size)


def test_a_journal_stands_in_for_the_image(kernel: str, open_scene: OpenScene, tmp_path: Path) -> None:
    """Every stack, and every patch at its frames; and with the text itself gone, the same corrections from the journal."""
    scene, session = open_scene(kernel, "nmi")
    path = str(tmp_path / "patches.json")
    written = export_patches(Debugger(session), path)
    print(f"{kernel}: {written}")
    alone = open_session(scene.snapshot)
    apply_patches(alone, path)
    stacks = without_tail_calls(answer(session, "foreach bt")["stacks"])
    assert without_tail_calls(answer(alone, "foreach bt")["stacks"]) == stacks
    frames = [frame for one in stacks for frame in one["frames"] if frame["patch"]]
    assert frames or kernel not in ("5.10", "6.1")
    for site in sorted({frame["patch"]["site"] for frame in frames}):
        assert patches_at(alone, site) == patches_at(session, site)

    wanted = corrected(session)
    assert wanted or kernel != "5.10"
    sites = [frame.patch.site for frame in wanted if frame.patch is not None]
    hidden = {session.memory.translate(at) // PAGE for site in sites for at in (site.address, site.end - 1)}
    gone = open_session(scene.snapshot, through=lambda memory: Without(memory, hidden))
    apply_patches(gone, path)
    for frame in wanted:
        ours, theirs = (one.overlay.at(frame.ip, frame.exact) for one in (gone, session))
        assert theirs.patch is not None
        assert ours.patch is not None
        assert (ours.rule, ours.doubt, ours.patch.site) == (theirs.rule, theirs.doubt, theirs.patch.site)
        assert ours.patch.adjust == theirs.patch.adjust != 0
        assert ours.patch.text_from is TextFrom.REPLAY
        site, text = ours.patch.site, ours.patch.text
        assert gone.text.read_from(site.address, 1) == (text[:1], TextSource.REPLAY)

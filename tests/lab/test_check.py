"""Hazards of real kernels: known by their tables, confirmed by an emulator, absent where the build states every row."""

from __future__ import annotations

import struct

import pytest

from orcdbg.image.vmlinux import Image, open_source
from orcdbg.orc.check import Hazard, check_kernel
from orcdbg.orc.rows import OrcRegister
from orcdbg.target.session import Session
from orcdbg.target.vmlinux_alone import UnbootedKernel
from tests.build.emulate import pushed_at
from tests.lab.conftest import KERNELS, OpenScene

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", KERNELS)]

PAIRS = (b"\x9c\x58", b"\x57\x9d")  # pushfq; pop %rax and push %rdi; popfq
RSB_LOOP = bytes.fromhex("e801000000cce801000000cc4883c410")


def pairs_in_modules(session: Session) -> set[int]:
    """Boundaries inside pairs with a row on rsp of their own length in the text of modules, found by their bytes."""
    found = set()
    for module in session.names.modules:
        start, size = module.text
        text = session.memory.read(start, size)
        for pair in PAIRS:
            at = text.find(pair + b"\x66\x66\x90")  # the pair as 5.10 writes it, followed by its NOPs
            while at >= 0:
                entry, before = session.find_orc(start + at + 1), session.find_orc(start + at)
                if entry is not None and entry.row.sp_reg == OrcRegister.SP and entry == before:
                    found.add(start + at + 1)
                at = text.find(pair + b"\x66\x66\x90", at + 1)
    return found


def sites_with_pairs(session: Session) -> set[int]:
    """Boundaries inside the pairs in memory at .parainstructions sites with a row on rsp, read from the table itself."""
    table, found = session.image.section_data(".parainstructions"), set()
    start, end = session.build.text
    for at in range(0, len(table) - 9, 16):
        site = struct.unpack_from("<Q", table, at)[0] + session.slide
        entry = session.find_orc(site)
        if (
            start <= site < end
            and session.memory.read(site, 2) in PAIRS
            and entry
            and entry.row.sp_reg == OrcRegister.SP
        ):
            found.add(site + 1)
    return found


def is_of_loop(session: Session, hazard: Hazard) -> bool:
    """True for a boundary of the loops that fill the return stack buffer."""
    return RSB_LOOP in session.memory.read(hazard.site.address, hazard.site.size)


def test_the_hazards_are_the_pairs_and_the_loops(kernel: str, open_scene: OpenScene) -> None:
    """All of them and nothing else; none where one section of the image already holds every alternative's rows."""
    _, session = open_scene(kernel, "idle")
    report = check_kernel(session.code, session.overlay)
    assert report.unread == 0
    assert report.boundaries > 1000
    loops = {h.boundary.address for h in report.hazards if is_of_loop(session, h)}
    others = {h.boundary.address for h in report.hazards} - loops
    has_rows = not session.image.section_data(".parainstructions")
    in_core = {place for place in others if session.is_image_text(place)}
    assert in_core == (set() if has_rows else sites_with_pairs(session) - _described(session))
    assert others - in_core == pairs_in_modules(session)
    assert len(loops) % 3 == 0


def _described(session: Session) -> set[int]:
    """Boundaries that have a row of their own."""
    places = sites_with_pairs(session)
    return {place for place in places if session.find_orc(place) != session.find_orc(place - 1)}


def test_every_hazard_is_confirmed_by_an_emulator(kernel: str, open_scene: OpenScene) -> None:
    """Each distinct text: the bytes pushed when the boundary is reached are the difference of the two rules."""
    _, session = open_scene(kernel, "idle")
    checked: set[tuple[bytes, int]] = set()
    for hazard in check_kernel(session.code, session.overlay).hazards:
        text = session.memory.read(hazard.site.address, hazard.site.size)
        offset = hazard.boundary.address - hazard.site.address
        start = session.overlay.stated(hazard.site.address)[1]
        assert start is not None
        if (text, offset) not in checked:
            checked.add((text, offset))
            assert pushed_at(text, offset) == hazard.boundary.true.offset - start.offset
    if session.image.section_data(".parainstructions"):
        assert checked


def test_a_walk_from_every_hazard_finds_the_true_rule(kernel: str, open_scene: OpenScene) -> None:
    """The overlay that walks use gives what the check derived."""
    _, session = open_scene(kernel, "idle")
    for hazard in check_kernel(session.code, session.overlay).hazards:
        effective = session.overlay.at(hazard.boundary.address, True)
        assert effective.rule == hazard.boundary.true
        assert effective.doubt is None


def test_the_image_states_the_union_where_its_build_made_one(kernel: str, open_scene: OpenScene) -> None:
    """6.12 and 7.2 agree at every boundary of every alternative; before, only the loops and the pairs do not."""
    scene, session = open_scene(kernel, "idle")
    union = UnbootedKernel(Image(open_source(str(scene.vmlinux)))).union
    assert union.problems == []
    assert union.variants > 5000
    wrong = {h.variant.text for h in union.hazards}
    if not session.image.section_data(".parainstructions"):
        assert (wrong, union.conflicts) == (set(), [])
    else:
        assert all(RSB_LOOP in text or text[:2] in PAIRS for text in wrong)


def test_a_walk_knows_the_pairs_in_modules_too(kernel: str, open_scene: OpenScene) -> None:
    """Between the two instructions of every patched pair in a module's text a word is pushed."""
    _, session = open_scene(kernel, "idle")
    places = pairs_in_modules(session)
    for boundary in places:
        stated = session.overlay.stated(boundary)[1]
        assert stated is not None
        assert session.overlay.at(boundary, True).rule == stated.moved(8), hex(boundary)
    if not places:
        pytest.skip(f"{kernel}: no module that this seed loaded holds such a pair")

"""Pages for a CPU: memory, else replayed text, and never a byte that nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

import orcdbg
from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.sizes import PAGE
from orcdbg.cli.main import sample_files
from orcdbg.emulation.pages import PageSource
from orcdbg.target.session import Session
from tests.build.sample import changed_core


def source(session: Session) -> PageSource:
    """Pages of a session."""
    return PageSource(session.memory, session.code)


def test_a_page_is_that_of_memory(sample: Session) -> None:
    """Where the snapshot has it, text and data alike."""
    for name in ("lock_is_held_type", "init_task"):
        page = sample.linux.address(name) & -PAGE
        assert source(sample).page(page).data == sample.memory.read(page, PAGE)


def test_text_that_is_not_in_the_snapshot_is_replayed(sample: Session, tmp_path: Path) -> None:
    """The page is as memory was, but for bytes that are named as unknown."""
    page = sample.linux.address("lock_is_held_type") & -PAGE
    without = changed_core(tmp_path / "core", without=[sample.memory.translate(page)])
    session = orcdbg.open(sample_files()[0], without)
    found, whole = source(session).page(page), sample.memory.read(page, PAGE)
    unknown = {address - page for start, end in found.unknown for address in range(start, end)}
    assert len(unknown) < PAGE // 8
    assert [i for i in range(PAGE) if found.data[i] != whole[i] and i not in unknown] == []


def test_data_that_is_not_in_the_snapshot_is_not_made_up(sample: Session, tmp_path: Path) -> None:
    """It raises, as reading does."""
    page = sample.linux.address("init_task") & -PAGE
    without = changed_core(tmp_path / "core", without=[sample.memory.translate(page)])
    session = orcdbg.open(sample_files()[0], without)
    with pytest.raises(NotInSnapshot):
        source(session).page(page)


def test_a_page_has_the_rights_that_its_tables_give(sample: Session) -> None:
    """And the physical address by which other names of it are known."""
    place = sample.linux.address("init_task") & -PAGE
    page = source(sample).page(place)
    assert page.physical == sample.memory.translate(place)
    way = sample.memory.explain(place)
    entry = way.entries[-1]
    for bit, writable, executable in ((0, True, True), (1 << 1, False, True), (1 << 63, True, False)):
        changed = way._replace(entries=(*way.entries[:-1], entry._replace(value=(entry.value & ~(1 << 63) | 2) ^ bit)))
        assert (changed.is_writable, changed.is_executable) == (writable, executable)

"""What the files of mechanisms declare: every mechanism is in the order, under the name of its file."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import orcdbg.patches.mechanisms
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.replay import BOOT, EARLY, STATE, boot_tables
from orcdbg.patches.stack_mechanisms import MOVE_STACK

FILES = sorted(
    path.stem for path in Path(orcdbg.patches.mechanisms.__path__[0]).glob("*.py") if path.stem != "__init__"
)


def declared_in(stem: str) -> list[Mechanism]:
    """The mechanisms that a file declares."""
    module = importlib.import_module(f"orcdbg.patches.mechanisms.{stem}")
    return [value for value in vars(module).values() if isinstance(value, Mechanism)]


# The boot loader runs it before the kernel, over fields and not over a table of the kernel's: the audit makes its pass.
BEFORE_THE_KERNEL = {"relocation"}


@pytest.mark.parametrize("stem", sorted(set(FILES) - BEFORE_THE_KERNEL))
def test_a_file_declares_the_mechanism_that_it_is_named_after(stem: str) -> None:
    """Each of its tables, and each is in the order once."""
    mechanisms = declared_in(stem)
    assert {mechanism.name for mechanism in mechanisms} == {stem.replace("_", "-")}
    assert [(*EARLY, *BOOT, *STATE).count(mechanism) for mechanism in mechanisms] == [1] * len(mechanisms)


def test_nothing_is_in_the_order_that_no_file_declares() -> None:
    """And a file that declares nothing is known."""
    declared = [mechanism for stem in FILES for mechanism in declared_in(stem)]
    assert len(declared) == len(EARLY) + len(BOOT) + len(STATE)
    assert {stem for stem in FILES if not declared_in(stem)} == BEFORE_THE_KERNEL


def test_a_table_belongs_to_one_mechanism() -> None:
    """So that a damaged one is named by the mechanism that it costs."""
    tables = [table for mechanism in (*BOOT, *STATE) for table in mechanism.tables]
    assert len(tables) == len(set(tables))
    assert set(boot_tables()) < set(tables)


def test_the_mechanisms_that_move_the_stack_are_those_that_say_so() -> None:
    """A walk asks about them alone, and loads no other."""
    assert [*MOVE_STACK] == [mechanism for mechanism in (*EARLY, *BOOT) if mechanism.moves_stack]
    assert not any(mechanism.moves_stack for mechanism in STATE)

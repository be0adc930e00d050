"""What the stopped machine offers for each kind of operand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from orcdbg.base.errors import Corrupt
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.repl.candidates import make_sources
from orcdbg.repl.completion import Offer, Source
from orcdbg.repl.names import SymbolNames, typeable
from orcdbg.target.session import Session


@pytest.fixture
def sources(debugger: Debugger, registry: Registry) -> dict[str, Source]:
    """The sources over the sample."""
    return dict(make_sources(debugger, registry, SymbolNames(debugger.session)))


def test_tasks_are_offered_by_pid_with_their_names(sources: dict[str, Source]) -> None:
    """In the order of numbers, not of digits."""
    offers = sources["task"]("1")
    assert Offer("135", "cat") in offers
    assert [int(offer.text) for offer in offers] == sorted(int(offer.text) for offer in offers)


def test_frames_are_offered_with_their_functions(sources: dict[str, Source]) -> None:
    """The notes are what `bt` shows."""
    assert [offer.note for offer in sources["frame"]("6")] == ["lock_is_held_type+0x52/0x110"]


def test_cpus_are_offered_with_what_they_run(sources: dict[str, Source]) -> None:
    """The sample has one CPU."""
    assert list(sources["cpu"]("")) == [Offer("0", "cat")]


def test_settings_are_offered_with_their_values(sources: dict[str, Source]) -> None:
    """So that one need not ask first."""
    assert list(sources["setting"]("sc")) == [Offer("scroll", "on")]


def test_commands_are_offered_with_their_summaries(sources: dict[str, Source]) -> None:
    """For `help`."""
    assert list(sources["command"]("lsm")) == [
        Offer("lsmod", "list the loaded modules, or take their debugging information from files")
    ]


def test_mechanisms_are_those_that_the_kernel_has(sources: dict[str, Source]) -> None:
    """The sample's image records alternatives and paravirt sites."""
    assert {"alternative", "paravirt"} <= {offer.text for offer in sources["mechanism"]("")}


def test_symbols_are_the_kernels(sources: dict[str, Source]) -> None:
    """Any name of the symbol table that can be typed."""
    assert "lock_is_held_type" in [offer.text for offer in sources["symbol"]("lock_is_held")]


def test_a_name_that_cannot_be_typed_is_not_offered() -> None:
    """Not with blanks, quotes, pipes or control bytes, which a hostile file may hold; nor a compiler's label."""
    hostile = ["a b", "a|b", "a>b", "a'b", "\x1b[2J", "naïve", "", ".LC5", "1x"]
    assert typeable(["b.cold", "a", *hostile, "a"]) == ["a", "b.cold"]


class _Table:
    def __init__(self, names: list[str]) -> None:
        self._names = names

    def names(self) -> list[str]:
        """As SymbolTable.names."""
        return self._names


class _BadModule:
    module = SimpleNamespace(name="bad")

    @property
    def table(self) -> _Table:
        """A table that the snapshot lacks."""
        raise Corrupt("no table")


def _session_with_modules() -> Session:
    good = SimpleNamespace(module=SimpleNamespace(name="pktgen"), table=_Table(["pktgen_run", "spin"]))
    names: Any = SimpleNamespace(module_symbols={1: good, 2: _BadModule()})
    return cast(Session, SimpleNamespace(symbols=_Table(["schedule", "spin"]), names=names))


def test_names_of_modules_stand_among_the_kernels() -> None:
    """Each once; a module whose table cannot be read costs only its own names."""
    assert SymbolNames(_session_with_modules()).all() == ["pktgen_run", "schedule", "spin"]


def test_after_a_modules_name_only_its_symbols_are_offered() -> None:
    """As `debugger.address` reads `module:symbol`."""
    names = SymbolNames(_session_with_modules())
    assert names.offers("pktgen:") == [Offer("pktgen:pktgen_run"), Offer("pktgen:spin")]
    assert names.offers("nosuch:") == []


def test_the_kernels_names_do_not_need_the_modules() -> None:
    """A kernel without types has no module list that can be read, and symbols all the same."""

    class _NoTypes:
        symbols = _Table(["schedule"])

        @property
        def names(self) -> None:
            raise Corrupt("no types")

    assert SymbolNames(cast(Session, _NoTypes())).all() == ["schedule"]


def test_names_that_are_made_aside_are_the_same() -> None:
    """Who asks early waits for the background."""
    names = SymbolNames(_session_with_modules())
    names.start()
    assert names.offers("sch") == [Offer("schedule")]

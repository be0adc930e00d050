"""Names in a signature stay the same over builds and compilers."""

from __future__ import annotations

import pytest

from orcdbg.analysis.crash_site import plain_name
from orcdbg.analysis.pointers import as_characters, is_canonical, poison_name
from orcdbg.analysis.signature import deadlock_signature
from orcdbg.base.certainty import Certainty
from orcdbg.subsystems.waits.model import Cycle, Edge, WaitKind


@pytest.mark.parametrize(
    "symbol",
    ["f", "f.cold", "f.isra.0", "f.constprop.0", "f.part.12", "f.constprop.0.isra.0", "f.isra.0.cold", "f.llvm.123456"],
)
def test_parts_and_copies_are_the_function(symbol: str) -> None:
    """What a compiler puts behind a name is cut off, however much."""
    assert plain_name(symbol) == "f"


def test_other_dots_belong_to_the_name() -> None:
    """Only a compiler's own words are cut off."""
    assert plain_name("do.work") == "do.work"


def test_poison_is_known_with_an_offset() -> None:
    """A member of an object that was poisoned is near to it; a list's poison has a name for each side."""
    assert poison_name(0x6B6B6B6B6B6B6B6B) == poison_name(0x6B6B6B6B6B6B6B6F) == "POISON_FREE"
    assert poison_name(0xDEAD000000000108) == "LIST_POISON1"
    assert poison_name(0xDEAD000000000122) == "LIST_POISON2"
    assert poison_name(0xFFFF888004A2C1C0) is None


def test_text_is_told_from_addresses() -> None:
    """Six printable characters or more; an address of the kernel is none."""
    assert as_characters(int.from_bytes(b"AAAAAAAA", "little")) == "AAAAAAAA"
    assert as_characters(0xFFFF888004A2C1C0) is None
    assert as_characters(0x41) is None


@pytest.mark.parametrize(("address", "levels", "expected"), [
    (0xFFFF_8880_0000_0000, 4, True), (0xFF11_0000_0000_0000, 4, False), (0xFF11_0000_0000_0000, 5, True),
    (0x0000_7FFF_FFFF_FFFF, 4, True), (0x0000_8000_0000_0000, 4, False), (0x5CA1_AB1E_DEAD_BEEF, 5, False),
])  # fmt: skip
def test_an_address_is_canonical_by_the_levels_of_tables(address: int, levels: int, expected: bool) -> None:
    """Bits above the topmost that is translated are all equal to it."""
    assert is_canonical(address, levels) is expected


def _waits(waiter: int, holder: int, function: str, kind: WaitKind) -> Edge:
    return Edge(waiter, 8, kind, holder, Certainty.FACT, Certainty.FACT, None, None, None, None, function, ())


def test_a_deadlock_has_one_signature_wherever_its_ring_is_begun() -> None:
    """Which task is met first hangs on the task list; another kind of lock is another deadlock."""
    edges = [
        _waits(1, 2, "ab.isra.0", WaitKind.MUTEX),
        _waits(2, 3, "bc", WaitKind.RWSEM),
        _waits(3, 1, "ca", WaitKind.MUTEX),
    ]
    turned = {deadlock_signature(Cycle(tuple(edges[first:] + edges[:first]))) for first in range(3)}
    assert turned == {"deadlock ab (mutex) < bc (rwsem) < ca (mutex)"}
    assert deadlock_signature(Cycle((edges[0], _waits(2, 1, "bc", WaitKind.MUTEX)))) not in turned

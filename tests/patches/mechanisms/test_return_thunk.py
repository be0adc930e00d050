"""What becomes of a compiled return: plain, or a jump to the thunk that the kernel chose."""

from __future__ import annotations

import numpy as np
import pytest

from orcdbg.patches.mechanisms.return_thunk import ReturnsPass
from orcdbg.patches.site import Undecidable, WorkingText
from orcdbg.patches.state.mitigations import RETHUNK
from tests.patches.world import RETURN_THUNK, TEXT, branch, machine, rows, text_of


def returns_at(offsets: list[int], bits: set[int] | None, thunk: int = RETURN_THUNK) -> WorkingText:
    """Text with compiled returns, after the pass."""
    linux, mitigations = machine(bits, thunk)
    sites = [TEXT + at for at in offsets]
    text = text_of({at: branch(b"\xe9", TEXT + at, RETURN_THUNK) for at in offsets})
    ReturnsPass(np.array(sites, dtype=np.uint64), linux, mitigations).sweep(text, rows(len(sites)))
    return text


def test_without_return_thunks_returns_are_plain() -> None:
    """And what is behind them traps."""
    assert returns_at([0], set()).read(TEXT, 5) == b"\xc3\xcc\xcc\xcc\xcc"


def test_returns_go_where_the_variable_points() -> None:
    """x86_return_thunk decides, not a list of known thunks."""
    text = returns_at([0, 40], {RETHUNK}, RETURN_THUNK + 0x200)
    assert text.read(TEXT + 40, 5) == branch(b"\xe9", TEXT + 40, RETURN_THUNK + 0x200)


def test_only_returns_in_the_lower_half_of_a_line_need_the_its_thunk() -> None:
    """Bit 5 of the address decides."""
    text = returns_at([0x10, 0x30], {RETHUNK}, RETURN_THUNK + 0x100)
    assert text.read(TEXT + 0x10, 5) == branch(b"\xe9", TEXT + 0x10, RETURN_THUNK + 0x100)
    assert text.read(TEXT + 0x30, 1) == b"\xc3"


def test_without_feature_bits_nothing_is_claimed() -> None:
    """The pass says that it cannot tell."""
    with pytest.raises(Undecidable, match="feature"):
        returns_at([0], None)

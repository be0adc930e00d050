"""Replacements where they are put: branches that keep their targets, and nops in the kernel's own lengths."""

from __future__ import annotations

from typing import Any

import pytest

from orcdbg.patches.moved_instructions import moved, optimise_new_nops, optimise_old_nops
from orcdbg.patches.state import nops
from orcdbg.x86.instructions import decode
from tests.patches.world import branch


@pytest.mark.parametrize("shift", [0x1000, -0x1000])
def test_a_moved_branch_still_goes_to_its_target(shift: int) -> None:
    """Out of the replacement: corrected; inside it: left."""
    code = b"\x74\x05" + branch(b"\xe8", 2, 0x500) + b"\x90" * 3
    out = moved(code, shift, 7)
    inside, outside = list(decode(out, 0))[:2]
    assert inside.target == 7
    assert outside.target == (0x500 + shift) & (1 << 64) - 1


@pytest.mark.parametrize("table", [nops.P6, nops.K8, nops.LONG], ids=lambda table: table.name)
@pytest.mark.parametrize("optimise", [optimise_old_nops, optimise_new_nops])
@pytest.mark.parametrize("size", [1, 2, 5, 9, 12, 40])
def test_optimising_nops_twice_is_optimising_them_once(optimise: Any, table: nops.NopTable, size: int) -> None:
    """And the length stays."""
    once = optimise(b"\x50" + b"\x90" * size + b"\x58", table)
    assert len(once) == size + 2
    assert optimise(once, table) == once

"""Lock prefixes, on a machine with one CPU and with more."""

from __future__ import annotations

import numpy as np
import pytest

from orcdbg.patches.mechanisms.smp_lock import SmpLocksPass
from tests.patches.world import TEXT, machine, rows, text_of


@pytest.mark.parametrize("one_cpu", [0, 1])
def test_lock_prefixes_go_on_one_cpu_only(one_cpu: int) -> None:
    """And only where there is one: a table may name other bytes."""
    linux, _ = machine(set(), one_cpu=one_cpu)
    text = text_of({0: b"\xf0\x90", 8: b"\x48"})
    SmpLocksPass(np.array([TEXT, TEXT + 8], dtype=np.uint64), linux).sweep(text, rows(2))
    assert text.read(TEXT, 2) == (b"\x3e\x90" if one_cpu else b"\xf0\x90")
    assert text.read(TEXT + 8, 1) == b"\x48"

"""Which operands did the boot loader move, told by memory alone?"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from orcdbg.patches.audit.core_text import boundaries_of
from orcdbg.patches.audit.relocated_text import relocated_by_difference
from orcdbg.patches.mechanisms.optprobe import OptprobesPass
from orcdbg.patches.mechanisms.smp_lock import SmpLocksPass
from orcdbg.patches.site import make_spans
from orcdbg.patches.state.probes import Probe

TEXT = 0xFFFFFFFF81000000
SLIDE = 0x38000000
MOVED = 0x20  # where the operand of a mov is
CALL = 0x2E
BUILT = bytearray(0x40)
BUILT[MOVED : MOVED + 4] = (0x81002000).to_bytes(4, "little")
BUILT[CALL - 3 : CALL + 5] = bytes.fromhex("4c89f6e803810000")  # mov %r14,%rsi; call of a static call's trampoline


@pytest.mark.parametrize(("boundaries", "found"), [([], [MOVED, CALL - 2]), ([CALL, CALL + 5], [MOVED])])
def test_no_operand_reaches_across_the_beginning_of_a_patched_place(boundaries: list[int], found: list[int]) -> None:
    """A call's new distance may differ from the old one by what looks like the slide, with the bytes before it (6.12)."""
    now = bytearray(BUILT)
    now[MOVED : MOVED + 4] = (0x81002000 + SLIDE & 0xFFFFFFFF).to_bytes(4, "little")
    now[CALL + 1 : CALL + 5] = bytes.fromhex("3b9148ff")
    before, after = (np.frombuffer(bytes(text), dtype=np.uint8) for text in (BUILT, now))
    known = np.array([TEXT + at for at in boundaries], dtype=np.uint64)
    places = relocated_by_difference(before, after, TEXT, SLIDE, (TEXT, TEXT + 0x4000000), 0, known)
    assert (places.places - np.uint64(TEXT)).tolist() == found
    assert set(places.signs.tolist()) == {1}


class MadeProbes:
    """One optimised probe, in front of an operand that its jump ends inside."""

    def __init__(self, address: int) -> None:
        self.armed = [Probe(0x1000, address, 0x2000, "probed", bytes(5))]


def test_the_jump_of_a_probe_ends_where_it_ends() -> None:
    """That says nothing of instructions; a place of any other kind is made of whole ones."""
    locks = SmpLocksPass.__new__(SmpLocksPass)
    locks.places = make_spans([TEXT + 0x10], [3])
    probes = OptprobesPass(cast("Any", MadeProbes(TEXT + 0x20)))
    assert boundaries_of([locks, probes]).tolist() == [TEXT + 0x10, TEXT + 0x13, TEXT + 0x20]

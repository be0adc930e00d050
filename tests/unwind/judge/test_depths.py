"""Where functions keep registers, by outline: beside what following their instructions one by one proves."""

from __future__ import annotations

import random

from orcdbg.orc.cfa import sp_rule
from orcdbg.target.session import Session
from orcdbg.unwind.judge.depths import FrameDepths
from orcdbg.unwind.registers.saves import FunctionSaves

FUNCTIONS = 60
REGISTERS = ("rbx", "r12", "r13", "r14", "r15")  # rbp is the walk's own


def test_registers_are_where_following_every_instruction_finds_them(sample: Session) -> None:
    """At each call of some functions of the sample, drawn anew in every run."""
    terrain = sample.kernel.terrain
    code, overlay = terrain.code, terrain.overlay
    quick, careful = FrameDepths(code), FunctionSaves(code, overlay)
    seed = random.SystemRandom().randrange(1 << 32)
    draw = random.Random(seed)
    first, end = sample.linux.address("_stext"), sample.linux.address("_etext")
    functions, same, wrong = 0, 0, []
    while functions < FUNCTIONS:
        place = code.locate(draw.randrange(first, end))
        if place is None or not place.is_text or overlay.at(place.start, True).rule != sp_rule(8):
            continue
        depths = quick.function(place.start, True)
        if depths is None:
            continue
        functions += 1
        for behind in depths.calls:
            mine, proved = quick.row(behind, False), careful.row(behind, False)
            if mine is None or proved is None:
                continue
            for register in REGISTERS:
                # Absent is untouched, None is not known.
                one, other = (row.saved.get(register, "untouched") for row in (mine, proved))
                same += one is not None and one == other
                wrong += [] if None in (one, other) or one == other else [(place.symbol, hex(behind), register)]
    assert wrong == [], seed
    assert same > 100, seed

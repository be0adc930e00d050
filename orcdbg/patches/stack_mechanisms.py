"""Which mechanisms put instructions there that move the stack pointer otherwise than the text as built?

A walk asks about these alone, and loads no other.
"""

from __future__ import annotations

from orcdbg.base.errors import OrcdbgError
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.mechanisms.alternative import ALTERNATIVE
from orcdbg.patches.mechanisms.paravirt import PARAVIRT, writes_instructions
from orcdbg.patches.site import PatchPass

# In the order of `replay.BOOT`, of which these are the ones that say `moves_stack`.
MOVE_STACK: tuple[Mechanism, ...] = (PARAVIRT, ALTERNATIVE)


def with_paravirt_placed(order: tuple[Mechanism, ...], build: Build) -> tuple[Mechanism, ...]:
    """The mechanisms, paravirt where this kernel has it.

    To 5.11 it came last, because it wrote instructions itself; since 5.13 (4e6292114c74) it comes first. Which it is shows
    in the instruction at the sites.
    """
    try:
        is_last = writes_instructions(build)
    except OrcdbgError:
        is_last = False  # its passes cannot be made either, and that is said there
    if not is_last:
        return order
    return (*(mechanism for mechanism in order if mechanism is not PARAVIRT), PARAVIRT)


def stack_passes(build: Build) -> list[PatchPass]:
    """The passes whose instructions may move the stack pointer otherwise than the text as built: what a walk asks about.

    None of them is told what ran before: how a replacement calls and returns moves no stack otherwise.

    Raises:
        OrcdbgError: a table cannot be read. A walk that did without would take rows for true that a patch made wrong.
    """
    order = with_paravirt_placed(MOVE_STACK, build)
    return [the_pass for mechanism in order for the_pass in mechanism.make(build, ())]

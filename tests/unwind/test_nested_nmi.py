"""Saved registers above the stack pointer that they hold (an NMI in an NMI), and below a stack (an overflow).

Crosses judge/evidence and the walker.
"""

from __future__ import annotations

import pytest

from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.unwind.frame import Mark
from orcdbg.unwind.judge.evidence import is_nested_nmi
from orcdbg.unwind.reasons import InterruptedPointerNotUp, Overflowed
from orcdbg.unwind.walker import Walk, WalkEnd
from orcdbg.views.reasons import words
from orcdbg.views.stacks import reasons
from tests.build.stacks import END, FUNCTION, STACK, TEXT, TOP, World, call

NMI_TOP = 0xFFFFFE000000E000
TASK = TOP - 192
HANDLER_SP = NMI_TOP - 0x200


def walk(kind: StackKind, sp: int) -> Walk:
    """A stop in the entry of an NMI or other exception that interrupted function 1 at a stack pointer on its own stack."""
    nmi = Stack(kind, NMI_TOP - 0x2000, NMI_TOP, 0)
    partial = OrcRow(OrcRegister.SP, 8, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
    first = OrcRow(OrcRegister.SP, 0x100, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
    world = World({0: partial, 1: first, 2: call(8), 3: END}, (STACK, nmi))
    nested = (TEXT + FUNCTION + 4, 0x10, 0x2, sp, 0x18)
    outer = (TEXT + 2 * FUNCTION + 4, 0x10, 0x202, TASK, 0x18)
    world.words |= {NMI_TOP - 40 + 8 * number: word for number, word in enumerate(nested)}
    world.words |= {HANDLER_SP + 0x100 + 8 * number: word for number, word in enumerate(outer)}
    world.words |= {TASK: TEXT + 3 * FUNCTION + 5}
    return world.walk(TEXT + 4, NMI_TOP - 48)


def test_the_walk_goes_down_once_to_the_handler_that_was_interrupted() -> None:
    """Then up again, out of the NMI stack, to what the first NMI interrupted."""
    found = walk(StackKind.NMI, HANDLER_SP)
    assert [(frame.ip - TEXT, frame.sp) for frame in found.frames[1:]] == [
        (FUNCTION + 4, HANDLER_SP),
        (2 * FUNCTION + 4, TASK),
        (3 * FUNCTION + 5, TASK + 8),
    ]
    assert (found.end, {frame.mark for frame in found.frames}) == (WalkEnd.FIRST_FRAME, {Mark.AS_BUILT})


@pytest.mark.parametrize(("kind", "sp"), [(StackKind.DB, HANDLER_SP), (StackKind.NMI, NMI_TOP - 48)])
def test_elsewhere_an_interrupted_stack_pointer_must_be_above(kind: StackKind, sp: int) -> None:
    """On another stack, and where the first NMI's own registers would be."""
    found = walk(kind, sp)
    assert (found.end, len(found.frames)) == (WalkEnd.STOPPED, 1)
    assert isinstance(found.end_reason, InterruptedPointerNotUp)


def test_going_down_twice_is_refused() -> None:
    """Registers that lead to the same entry again would make a circle."""
    nmi = Stack(StackKind.NMI, NMI_TOP - 0x2000, NMI_TOP, 0)
    partial = OrcRow(OrcRegister.SP, 8, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
    far = OrcRow(OrcRegister.SP, 0x200 - 40, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
    world = World({0: partial, 1: far, 3: END}, (STACK, nmi))
    nested = (TEXT + FUNCTION + 4, 0x10, 0x2, HANDLER_SP, 0x18)
    world.words |= {NMI_TOP - 40 + 8 * number: word for number, word in enumerate(nested)}
    found = world.walk(TEXT + 4, NMI_TOP - 48)
    assert (found.end, len(found.frames)) == (WalkEnd.STOPPED, 2)


def test_only_the_top_of_an_nmi_stack_is_such_a_place() -> None:
    """And only for a stack pointer below the copies that the first NMI's entry made."""
    nmi = Stack(StackKind.NMI, NMI_TOP - 0x2000, NMI_TOP, 0)
    assert is_nested_nmi(nmi, NMI_TOP, HANDLER_SP)
    assert not is_nested_nmi(nmi, NMI_TOP - 8, HANDLER_SP)
    assert not is_nested_nmi(nmi, NMI_TOP, nmi.begin - 8)


def test_a_stack_pointer_in_the_guard_page_is_said_to_be() -> None:
    """Right below the stack and not on another one; at its last word it has not overflowed yet."""
    df = Stack(StackKind.DF, NMI_TOP - 0x2000, NMI_TOP, 0)
    regs = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
    for sp, is_over in [(STACK.begin - 8, True), (STACK.begin, False), (STACK.begin - 4096, True)]:
        world = World({0: regs, 1: call(16), 2: END}, (STACK, df))
        saved = (TEXT + FUNCTION + 4, 0x10, 0x202, sp, 0x18)
        world.words |= {NMI_TOP - 40 + 8 * number: word for number, word in enumerate(saved)}
        found = world.walk(TEXT + 4, NMI_TOP - 40)
        evidence = world.terrain().evidence
        frames = evidence.judge(found.frames, (STACK, df), False)
        assert (Overflowed() in frames[1].notes) == is_over
        assert (words(Overflowed()) in reasons(frames[1])) == is_over

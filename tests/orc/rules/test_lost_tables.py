"""Patched pushes and pops are found by the instructions of a row alone, and what is not followed is in doubt."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.reasons import Reason
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.reasons import FillsReturnStack, NotABoundarySinceRow, NoText, TookMoreThanPut
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.lost_tables import Moved, UnrecordedPatches
from orcdbg.orc.table import OrcEntry
from tests.build.code import MadeKernelCode
from tests.build.memory import SparseMemory

START = 0xFFFF_FFFF_8100_0000
SP16 = CfaRule(OrcRegister.SP, 16)
PLACE = Location("f", START, 64, None, True)


def entry(kind: RowType = RowType.CALL) -> OrcEntry:
    """A row that begins at START."""
    return OrcEntry(
        "vmlinux", 0, START, None, bytes(6), OrcRow(OrcRegister.SP, 16, OrcRegister.UNDEFINED, 0, kind, False)
    )


def before(text: bytes, offset: int, rule: CfaRule = SP16, kind: RowType = RowType.CALL) -> Moved | Reason | None:
    """What is said of the boundary at `offset`."""
    memory = SparseMemory()
    memory.put(START - 64, bytes(64) + text + b"\xcc" * 64)
    return UnrecordedPatches(MadeKernelCode(memory, lambda address: PLACE)).before(START + offset, entry(kind), rule)


# nop; pushfq; pop %rax; nop
SAVED = b"\x90\x9c\x58\x90"


@pytest.mark.parametrize(("offset", "pushed"), [(0, None), (1, None), (2, 8), (3, None), (4, None)])
def test_between_push_and_pop_the_rule_moves(offset: int, pushed: int | None) -> None:
    """And nowhere else; the site begins at the push."""
    found = before(SAVED, offset)
    assert not isinstance(found, Reason)
    assert (None if found is None else found.pushed) == pushed
    if found is not None:
        assert ([insn.mnemonic for insn in found.path], found.text) == (["pushfq"], b"\x9c")


def test_what_follows_a_jump_is_counted_anew() -> None:
    """A push before an unconditional jump says nothing of the code behind it: push; jmp; nop."""
    assert before(b"\x50\xeb\x00\x90", 4) is None


@pytest.mark.parametrize(
    ("text", "offset", "why"),
    [
        (b"\x48\x8d\x64\x24\x08\x90", 5, TookMoreThanPut()),  # lea 8(%rsp),%rsp
        (b"\x58\x90", 1, TookMoreThanPut()),  # pop %rax
        (b"\xe8\x01\x00\x00\x00\xcc\xe8\x01\x00\x00\x00\xcc", 6, FillsReturnStack()),
        (b"\x48\xc7\xc0\x00\x00\x00\x00\x90", 3, NotABoundarySinceRow(START + 3)),
    ],
)
def test_what_is_not_followed_is_in_doubt(text: bytes, offset: int, why: Reason) -> None:
    """Never a row as built without a word."""
    assert before(text, offset) == why


def test_missing_text_is_in_doubt() -> None:
    """Nobody knows what stood there."""
    memory = SparseMemory()
    with pytest.raises(NotInSnapshot):
        memory.read(START, 1)
    found = UnrecordedPatches(MadeKernelCode(memory, lambda address: PLACE)).before(START + 3, entry(), SP16)
    assert found == NoText()


def test_rows_that_hold_whatever_is_pushed_are_left_alone() -> None:
    """Those on rbp, those of saved registers, and code that the kernel has given back."""
    assert before(SAVED, 2, CfaRule(OrcRegister.BP, 16)) is None
    assert before(SAVED, 2, kind=RowType.REGS) is None
    memory = SparseMemory()
    memory.put(START, SAVED)
    assert UnrecordedPatches(MadeKernelCode(memory, lambda address: None)).before(START + 2, entry(), SP16) is None

"""Compiled functions without ORC rows: their rules at each instruction, beside what an emulator's stack says."""

from __future__ import annotations

import pytest

from orcdbg.formats.call_frame_row import Place, Row
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.effective import Derived, Source
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRegister, OrcRow, RowType
from orcdbg.orc.table import OrcEntry
from tests.build.code import MadeKernelCode, MadeRows
from tests.build.memory import SparseMemory

START, FENTRY, SIZE = 0xFFFFFFFF81000100, 0xFFFFFFFF81000000, 0x80
UNDEFINED = OrcRow(OrcRegister.UNDEFINED, 0, OrcRegister.UNDEFINED, 0, RowType.UNDEFINED, False)
CALL_FENTRY = b"\xe8" + (FENTRY - START - 5).to_bytes(4, "little", signed=True)
CALL = b"\xe8\x00\x00\x10\x00"
# As gcc makes __crash_kexec: call __fentry__; push %rbp; sub $0xb0,%rsp; test %rdi,%rdi; je 1f; mov %rsp,%rbp; call;
# 1: add $0xb0,%rsp; pop %rbp; ret; int3
BODY = (
    CALL_FENTRY
    + bytes.fromhex("55 4881ecb0000000 4885ff 7408 4889e5")
    + CALL
    + bytes.fromhex("4881c4b0000000 5d c3 cc")
)
# Depth of the CFA, and of the slot of rbp, at each boundary.
TRUE = {
    0: (8, 0), 5: (8, 0), 6: (16, 16), 13: (192, 16), 16: (192, 16), 18: (192, 16), 21: (192, 16), 26: (192, 16),
    33: (16, 16), 34: (8, 0),
}  # fmt: skip


def overlay(body: bytes, row: OrcRow = UNDEFINED, described: dict[int, Row] | None = None) -> OrcOverlay:
    """One function whose text is `body`, with one row, and call frame information by offset."""
    memory = SparseMemory()
    memory.put(START, body.ljust(SIZE, b"\xcc"))
    place = Location("function", START, SIZE, None, True)

    def find(address: int) -> OrcEntry | None:
        return OrcEntry("test", 0, START, None, bytes(6), row) if START <= address < START + SIZE else None

    rows = {START + offset: row for offset, row in (described or {}).items()}
    code = MadeKernelCode(memory, lambda address: place, {"__fentry__": (FENTRY, 16)}, described=rows)
    return OrcOverlay(code, MadeRows(find))


def test_the_rule_follows_at_every_instruction() -> None:
    """With the caller's rbp where it was pushed; the word for it is `instructions`."""
    for offset, (depth, rbp) in TRUE.items():
        found = overlay(BODY).at(START + offset, True)
        bp = (OrcRegister.PREV_SP, -rbp) if rbp else (OrcRegister.UNDEFINED, 0)
        assert isinstance(found, Derived)
        assert (found.rule, found.row) == (
            CfaRule(OrcRegister.SP, depth),
            OrcRow(OrcRegister.SP, depth, *bp, RowType.CALL, False),
        )
        assert found.source is Source.INSTRUCTIONS


def test_a_return_address_has_the_depth_of_its_call() -> None:
    """And one that follows no call of the function has no rule."""
    assert overlay(BODY).at(START + 26, False).rule == CfaRule(OrcRegister.SP, 192)
    assert overlay(BODY).at(START + 33, False).rule is None


def test_between_instructions_and_behind_the_end_is_no_rule() -> None:
    """What no path leads to is not known."""
    assert [overlay(BODY).at(START + offset, True).rule for offset in (7, 19, 35, 36)] == [None] * 4


@pytest.mark.parametrize(
    ("offset", "row", "rule"),
    [
        (26, None, None),  # behind the end of the function, as after a last call that does not return
        (18, Row(Place("rsp", 192, False), {"rbp": Place("cfa", -16)}), CfaRule(OrcRegister.SP, 192)),
        (18, Row(Place("rsp", 184, False), {"rbp": Place("cfa", -16)}), None),
        (18, Row(Place("rsp", 192, False), {"rbp": Place("cfa", -24)}), None),
        (18, Row(Place("rbp", 16, False), {"rbp": Place("cfa", -16)}), None),
    ],
)
def test_call_frame_information_may_confirm_or_refuse(offset: int, row: Row | None, rule: CfaRule | None) -> None:
    """Where it says something else than the instructions, nothing is known."""
    described = {0: Row(Place("rsp", 8, False))} | ({} if row is None else {offset: row})
    found = overlay(BODY, described=described).at(START + offset, True)
    assert found.rule == rule
    assert rule is None or found.source is Source.DWARF


@pytest.mark.parametrize(
    "body",
    [
        BODY[5:],  # no call of __fentry__: may be assembly
        CALL_FENTRY + bytes.fromhex("4885ff 7401 50 90 90"),  # test; je 1f; push %rax; 1: reached with two depths
        CALL_FENTRY + bytes.fromhex("4883e4f0 90 90 90 90 90"),  # and $-16, %rsp
        CALL_FENTRY + bytes.fromhex("31ed 90 90 90 90 90 90 90"),  # xor %ebp, %ebp: the caller's is lost
        CALL_FENTRY + bytes.fromhex("58 90 90 90 90 90 90 90 90"),  # pop %rax: of the return address
        CALL_FENTRY + bytes.fromhex("e801000000 90 90 90 90"),  # a call into the function itself
    ],
)
def test_what_does_not_follow_is_left_alone(body: bytes) -> None:
    """At the end of each: none of these may give a rule."""
    assert overlay(body).at(START + len(body) - 1, True).rule is None


def test_a_row_that_is_defined_is_believed() -> None:
    """The instructions are not asked."""
    found = overlay(BODY, FUNCTION_ENTRY).at(START + 18, True)
    assert (found.rule, found.source) == (CfaRule(OrcRegister.SP, 8), Source.ORC)

"""Rules in code that the kernel makes at run time, on small pieces of it."""

from __future__ import annotations

import pytest

from orcdbg.base.sizes import U64
from orcdbg.kernel.generated_code import CodeKind, GeneratedCode
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.effective import Derived, Source
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.generated_code import StandsFor, generated_rule
from orcdbg.orc.table import OrcEntry
from tests.build.code import MadeKernelCode, MadeRows
from tests.build.memory import SparseMemory

ORIGIN, START = 0xFFFFFFFF81000000, 0xFFFFFFFFC0000000
OUTSIDE = b"\xe8\x00\x00\x00\x10"  # call of something far away
# push %rsp; pushf; sub $24,%rsp; push %rdi; call; pop %rdi; add $24,%rsp; add $8,%rsp; popf
DETOUR = bytes.fromhex("54 9c 4883ec18 57") + OUTSIDE + bytes.fromhex("5f 4883c418 4883c408 9d")
# nop; push %rbp; mov %rsp,%rbp; sub $16,%rsp; push %rbx; call; pop %rbx; leave; ret
PROGRAM = bytes.fromhex("0f1f4000 55 4889e5 4883ec10 53") + OUTSIDE + bytes.fromhex("5b c9 c3")
# the same frame, but the return address of the call at the traced function's entry is dropped
TRAMPOLINE = bytes.fromhex("55 4889e5") + OUTSIDE + bytes.fromhex("c9 4883c408 c3")


def overlay(code: GeneratedCode | None, body: bytes, row: OrcRow) -> OrcOverlay:
    """Text of one row at ORIGIN, and `body` at START."""
    memory = SparseMemory()
    memory.put(START, body)

    def find(address: int) -> OrcEntry | None:
        inside = ORIGIN <= address < ORIGIN + 0x100
        return OrcEntry("test", 0, ORIGIN, None, bytes(6), row) if inside else None

    made = MadeKernelCode(memory, lambda address: None, made=() if code is None else (code,))
    return OrcOverlay(made, MadeRows(find))


ROW = OrcRow(OrcRegister.SP, 40, OrcRegister.PREV_SP, -24, RowType.CALL, False)


def rule_at(code: GeneratedCode, body: bytes, offset: int, exact: bool, row: OrcRow = ROW) -> CfaRule | None:
    """The rule that holds at an offset."""
    return overlay(code, body, row).at(START + offset, exact).rule


def test_a_copy_is_described_by_the_rows_of_what_it_was_copied_from() -> None:
    """At the same offset; the return behind it has the caller on top of its stack; what follows is no code."""
    code = GeneratedCode(CodeKind.FTRACE, START, START + 45, "ftrace_trampoline", "x", ORIGIN + 0x10, 32)
    for offset, exact in ((0, True), (31, True), (20, False)):
        assert rule_at(code, b"", offset, exact) == CfaRule(OrcRegister.SP, 40)
    copied = overlay(code, b"", ROW).at(START + 3, True)
    assert isinstance(copied, Derived)
    assert copied.row == ROW
    assert rule_at(code, b"", 32, True) == CfaRule(OrcRegister.SP, 8)
    assert rule_at(code, b"", 38, True) is None


def test_a_copied_instruction_has_the_rule_of_the_probed_one() -> None:
    """And behind it that of the next one."""
    code = GeneratedCode(CodeKind.KPROBE, START, START + 15, "kprobe_insn_page", "x", ORIGIN + 4, 0, 3)
    found = [generated_rule(code, START + offset, True, SparseMemory()) for offset in (0, 3, 8)]
    assert [rule.ip for rule in found if isinstance(rule, StandsFor)] == [ORIGIN + 4, ORIGIN + 7, ORIGIN + 7]
    assert rule_at(code, b"", 0, True) == CfaRule(OrcRegister.SP, 40)
    # A call in the slot has not returned; the breakpoint behind has been hit, and its saved ip is one past it.
    inexact = [generated_rule(code, START + offset, False, SparseMemory()) for offset in (3, 4)]
    assert [(rule.ip, rule.exact) for rule in inexact if isinstance(rule, StandsFor)] == [
        (ORIGIN + 7, False),
        (ORIGIN + 7, True),
    ]


DEPTHS = [
    *((0, True, 0), (1, True, 8), (2, True, 16), (6, True, 40), (7, True, 48), (12, False, 48), (12, True, 48)),
    *((13, True, 40), (17, True, 16), (21, True, 8), (22, True, 0), (25, True, 0)),
]


@pytest.mark.parametrize(("offset", "exact", "pushed"), DEPTHS)
def test_a_detour_adds_what_it_pushed(offset: int, exact: bool, pushed: int) -> None:
    """To the rule of the probed instruction, until its copies are reached."""
    code = GeneratedCode(CodeKind.OPTPROBE, START, START + 64, "kprobe_optinsn_page", "x", ORIGIN + 4, len(DETOUR), 6)
    body = DETOUR + b"\x90" * 40
    assert rule_at(code, body, offset, exact) == CfaRule(OrcRegister.SP, 40 + pushed)
    by_frame = OrcRow(OrcRegister.BP, 16, OrcRegister.PREV_SP, -16, RowType.CALL, False)
    assert rule_at(code, body, offset, exact, by_frame) == CfaRule(OrcRegister.BP, 16)


def test_a_detour_from_a_rule_that_cannot_be_moved_has_none() -> None:
    """A word on the stack is where it was, but not as far from the stack pointer."""
    code = GeneratedCode(CodeKind.OPTPROBE, START, START + 64, "kprobe_optinsn_page", "x", ORIGIN + 4, len(DETOUR), 6)
    indirect = OrcRow(OrcRegister.SP_INDIRECT, 16, OrcRegister.UNDEFINED, 0, RowType.CALL, False)
    assert rule_at(code, DETOUR, 7, True, indirect) is None
    assert rule_at(code, DETOUR, 3, True) is None, "inside an instruction"


@pytest.mark.parametrize(
    ("body", "offset", "exact", "rule"),
    [
        (PROGRAM, 0, True, CfaRule(OrcRegister.SP, 8)),
        (PROGRAM, 4, True, CfaRule(OrcRegister.SP, 8)),
        (PROGRAM, 5, True, CfaRule(OrcRegister.SP, 16)),
        (PROGRAM, 8, True, CfaRule(OrcRegister.BP, 16)),
        (PROGRAM, 18, False, CfaRule(OrcRegister.BP, 16)),
        (PROGRAM, 19, True, CfaRule(OrcRegister.BP, 16)),
        (PROGRAM, 20, True, CfaRule(OrcRegister.SP, 8)),
        (PROGRAM, 6, True, None),
        (TRAMPOLINE, 10, True, CfaRule(OrcRegister.SP, 8)),
        (TRAMPOLINE, 14, True, CfaRule(OrcRegister.SP, 8)),
        (b"\x90\x90\xc3", 2, True, CfaRule(OrcRegister.SP, 8)),
    ],
)
def test_bpf_code_has_a_frame_pointer_between_prologue_and_leave(
    body: bytes, offset: int, exact: bool, rule: CfaRule | None
) -> None:
    """Before, behind, and in code without one its instructions tell; inside an instruction nothing does."""
    code = GeneratedCode(CodeKind.BPF, START, START + len(body), "bpf_prog_1", "bpf")
    found = overlay(code, body, ROW).at(START + offset, exact)
    assert found.rule == rule
    assert (found.source is Source.FRAME_POINTER) == (rule is not None and rule.base == OrcRegister.BP)


@pytest.mark.parametrize("kind", [CodeKind.FTRACE, CodeKind.KPROBE, CodeKind.OPTPROBE])
def test_made_code_that_stands_for_no_text_has_no_rule(kind: CodeKind) -> None:
    """A damaged snapshot may say that it was copied from itself, or from nowhere."""
    for origin in (START, START + 1, 0, U64):
        code = GeneratedCode(kind, START, START + 64, "x", "x", origin, 32, 8)
        for exact in (True, False):
            assert rule_at(code, bytes(64), 4, exact) is None

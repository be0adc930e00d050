"""Rows that no table has: what functions' instructions come to, beside what objtool's rows say of such code."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pytest

from orcdbg.kernel.names import Location
from orcdbg.orc.derivation import DerivedRow
from orcdbg.orc.derived_rows import DerivedRows
from orcdbg.orc.reasons import BehindUnreadTable, DepthsDiffer
from orcdbg.orc.rows import OrcRegister, RowType
from tests.build.code import MadeKernelCode
from tests.build.memory import SparseMemory

START, SIZE = 0xFFFFFFFF81000100, 0x80
CALLED = START + 0x100000
TABLE = 0xFFFFFFFF81010000
CALL = "e8 00001000 "
# push %rbx; sub $0x20,%rsp; test %rdi,%rdi; je 1f; call; 1: add $0x20,%rsp; pop %rbx; ret
BRANCH = f"53 4883ec20 4885ff 7405 {CALL} 4883c420 5b c3"
# test %rdi,%rdi; je 1f; push %rbx; 1: nop; ret
DIFFER = "4885ff 7401 53 90 c3"
# push %rbp; mov %rsp,%rbp; push %rbx; sub %rax,%rsp; call; lea -8(%rbp),%rsp; pop %rbx; pop %rbp; ret
FRAME = f"55 4889e5 53 4829c4 {CALL} 488d65f8 5b 5d c3"
# push %rbp; mov %rsp,%rbp; sub $0x10,%rsp; leave; ret
LEAVE = "55 4889e5 4883ec10 c9 c3"
# lea 8(%rsp),%r10; and $-16,%rsp; push -8(%r10); push %rbp; mov %rsp,%rbp; push %r10; call; mov -8(%rbp),%r10; leave;
# lea -8(%r10),%rsp; ret
ALIGNED = f"4c8d542408 4883e4f0 41ff72f8 55 4889e5 4152 {CALL} 4c8b55f8 c9 498d62f8 c3"
# sub $0x18,%rsp; test %rdi,%rdi; jne 1f; push %rbx; call; 1: add $0x18,%rsp; ret
NO_RETURN = f"4883ec18 4885ff 7506 53 {CALL} 4883c418 c3"
# push %rbx; pop %rbx; jmp elsewhere; push %rbx; nop
TAIL = "53 5b e900001000 53 90"
# push %rbx; test %rdi,%rdi; je 1f; push %rbx; ud2; nop; 1: pop %rbx; ret
WARNING = "53 4885ff 7404 53 0f0b 90 5b c3"
# call 1f; int3; 1: call 2f; int3; 2: add $0x10,%rsp; ret
FILLS = "e801000000 cc e801000000 cc 4883c410 c3"
# push %rbx; mov %rsp,(%rdi); mov %rdi,%rsp; call; pop %rsp; pop %rbx; ret
OTHER_STACK = f"53 488927 4889fc {CALL} 5c 5b c3"
# push %rbx; jmp *TABLE(,%rax,8); nop; nop; pop %rbx; ret
JUMPS = "53 ff24c500000181 90 90 5b c3"
# pop %rdx; push %rdx; movq $0,(%rsp); ret
REPLACED = "5a 52 48c7042400000000 c3"
# mov %rdi,%rdi; xor %ebp,%ebp; jmp -2: never returns, and keeps nobody's rbp
LOST = "4889ff 31ed ebfe"


def rows(body: str, callee: str = "callee", words: Mapping[int, int] | None = None) -> DerivedRows:
    """One function with this text, which may call `callee`."""
    memory = SparseMemory()
    text = bytes.fromhex(body)
    memory.put(START, text.ljust(SIZE, b"\xcc"))
    for address, word in (words or {}).items():
        memory.put(address, word.to_bytes(8, "little"))

    def find(address: int) -> Location | None:
        if START <= address < START + SIZE:
            return Location("function", START, SIZE, None, True)
        return Location(callee, address, 16, None, True) if CALLED <= address < CALLED + SIZE else None

    return DerivedRows(MadeKernelCode(memory, find, {"function": (START, SIZE)}))


def rules(body: str, *offsets: int, callee: str = "callee") -> list[str]:
    """The rules at offsets, those in doubt in brackets."""
    derived = rows(body, callee)
    return [_words(derived.at(START + offset)) for offset in offsets]


def _located(symbols: Mapping[str, tuple[int, int]], address: int) -> Location | None:
    found = [(name, *place) for name, place in symbols.items() if place[0] <= address < sum(place)]
    return Location(*found[0], None, True) if found else None


def _words(row: DerivedRow | None) -> str:
    if row is None:
        return "-"
    return f"[{row.rule}]" if row.doubt is not None else str(row.rule)


@pytest.mark.parametrize(
    ("body", "offsets", "expected"),
    [
        (BRANCH, (0, 1, 5, 10, 15, 19, 20), ["sp+8", "sp+16", "sp+48", "sp+48", "sp+48", "sp+16", "sp+8"]),
        (BRANCH, (12, 14), ["sp+48", "sp+48"]),  # inside the call, as its return address less one is
        (DIFFER, (5, 6, 7), ["sp+8", "[sp+16]", "[sp+16]"]),
        (FRAME, (1, 4, 5, 8, 13, 17, 18, 19), ["sp+16", "sp+16", "sp+24", "bp+16", "bp+16", "sp+24", "sp+16", "sp+8"]),
        (LEAVE, (4, 8, 9), ["sp+16", "sp+32", "sp+8"]),
        (TAIL, (1, 2, 7), ["sp+16", "sp+8", "-"]),
        (WARNING, (7, 9, 10, 11), ["sp+24", "sp+24", "sp+16", "sp+8"]),
        (FILLS, (5, 6, 12, 16), ["-", "sp+16", "sp+24", "sp+8"]),
        (OTHER_STACK, (4, 7, 12, 13, 14), ["sp+16", "(sp)+16", "(sp)+16", "sp+16", "sp+8"]),
        (REPLACED, (0, 1, 2, 10), ["sp+8", "-", "sp+8", "-"]),
    ],
)
def test_rules_follow_from_the_instructions(body: str, offsets: tuple[int, ...], expected: list[str]) -> None:
    """At joins, in frames by rbp, on other stacks; none where the return address is not in its place."""
    assert rules(body, *offsets) == expected


def test_a_stack_that_is_aligned_is_found_by_the_copies_of_its_address() -> None:
    """In r10, and where that was pushed, when a call may have changed it."""
    expected = ["r10", "r10", "r10", "(bp-8)", "r10", "r10", "sp+8"]
    assert rules(ALIGNED, 9, 14, 17, 24, 28, 29, 33) == expected


def test_what_never_returns_brings_nothing_behind_its_call() -> None:
    """By its name; behind any other call the stack pointers of two ways differ."""
    assert rules(NO_RETURN, 10, 15, callee="panic") == ["sp+40", "sp+32"]
    assert rules(NO_RETURN, 15) == ["[sp+40]"]


def test_a_label_that_code_runs_into_is_no_functions_start() -> None:
    """Unless the code arrives as a call would, as __put_user_8's does at __put_user_nocheck_8; behind a return stands one."""
    for before, is_doubted in (
        ("53", True),
        ("4889e5", True),
        ("4889ff", False),
        ("535b", False),
        ("c3", False),
        ("90", False),
    ):
        memory = SparseMemory()
        first = bytes.fromhex(before)
        start = START + len(first)
        memory.put(START, first + bytes.fromhex("53 5b c3") + b"\xcc" * 32)
        symbols = {"before": (START, len(first)), "label": (start, 3)}
        row = DerivedRows(MadeKernelCode(memory, functools.partial(_located, symbols), symbols)).at(start + 1)
        assert row is not None
        assert (str(row.rule), row.doubt is not None) == ("sp+16", is_doubted)


def test_why_a_row_is_in_doubt_is_said() -> None:
    """Depths that differ, and a table that is not there."""
    differ, unread = rows(DIFFER).at(START + 6), rows(JUMPS).at(START)
    assert differ is not None
    assert isinstance(differ.doubt, DepthsDiffer)
    assert unread is not None
    assert isinstance(unread.doubt, BehindUnreadTable)


def test_a_table_of_jumps_is_followed_as_far_as_it_stays_inside() -> None:
    """Then nothing is in doubt; what it does not lead to is not known."""
    derived = rows(JUMPS, words={TABLE: START + 9, TABLE + 8: START + 10, TABLE + 16: CALLED})
    assert [_words(derived.at(START + offset)) for offset in (0, 8, 9, 10, 11)] == [
        "sp+8",
        "-",
        "sp+16",
        "sp+16",
        "sp+8",
    ]


def test_the_callers_rbp_is_where_the_function_put_it() -> None:
    """In the register while that has it, in its slot once it has not; and where nothing keeps it, nowhere."""
    pushed, framed = (rows(FRAME).at(START + offset) for offset in (1, 8))
    assert pushed is not None
    assert framed is not None
    assert (pushed.row.bp_reg, pushed.row.bp_offset) == (OrcRegister.UNDEFINED, 0)
    assert (framed.row.bp_reg, framed.row.bp_offset) == (OrcRegister.PREV_SP, -16)
    aligned = rows(ALIGNED).at(START + 24)
    assert aligned is not None
    assert (aligned.row.bp_reg, aligned.row.bp_offset) == (OrcRegister.BP, 0)
    lost = rows(LOST).at(START + 5)
    assert lost is not None
    assert lost.row.bp_reg not in (OrcRegister.UNDEFINED, OrcRegister.PREV_SP, OrcRegister.BP)
    assert lost.row.type is RowType.CALL

"""What do operands in AT&T syntax name?"""

from __future__ import annotations

import pytest

from orcdbg.x86.operands import BasedMemory, memory_in, register_in, split_operands


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("%rbp", ["%rbp"]),
        ("%rsp, %rbp", ["%rsp", "%rbp"]),
        ("8(%rax, %rbx, 4), %rcx", ["8(%rax, %rbx, 4)", "%rcx"]),
        ("$5, (%rdi,%rsi)", ["$5", "(%rdi,%rsi)"]),
    ],
)
def test_commas_inside_parentheses_part_nothing(text: str, parts: list[str]) -> None:
    """They are an index and its scale."""
    assert split_operands(text) == parts


@pytest.mark.parametrize(
    ("operand", "register", "memory"),
    [
        ("%rbx", "rbx", None),
        ("(%rsp)", None, BasedMemory("rsp", 0)),
        ("-0x10(%rbp)", None, BasedMemory("rbp", -16)),
        ("8(%rip)", None, BasedMemory("rip", 8)),
        ("%gs:8(%rax)", None, None),
        ("8(%rax, %rbx, 4)", None, None),
        ("$8", None, None),
        ("0x1234", None, None),
        ("*%rax", None, None),
        ("%st(1)", None, None),
        ("", None, None),
    ],
)
def test_an_operand_is_a_register_or_memory_beside_one_or_neither(
    operand: str, register: str | None, memory: BasedMemory | None
) -> None:
    """A segment or an index makes it memory that does not follow from one register."""
    assert (register_in(operand), memory_in(operand)) == (register, memory)

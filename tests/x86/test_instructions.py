"""Which operands of an instruction can be an address of the kernel, where no list of relocations tells?"""

from __future__ import annotations

import pytest

from orcdbg.x86.instructions import Operand, wide_operands


@pytest.mark.parametrize(
    ("code", "operands"),
    [
        ("48c7c000008081", [Operand(3, False)]),  # movq $0xffffffff81800000, %rax
        ("483d00008081", [Operand(2, False)]),  # cmpq $0xffffffff81800000, %rax
        ("68000080 81", [Operand(1, False)]),  # pushq
        ("b800008081", []),  # movl $0x81800000, %eax: a number of 32 bits
        ("48257ffffd81", []),  # andq $0xffffffff81fdff7f, %rax: a mask, as setns() has one
        ("48a97ffffd81", []),  # testq
        ("48814e107ffffd81", []),  # orq to memory
        ("4881a00000808100000081", [Operand(3, False)]),  # andq $..., 0xffffffff81800000(%rax): the displacement alone
        ("488b0500008081", [Operand(3, True)]),  # movq 0x...(%rip), %rax
        ("6566f7052088637401ff", [Operand(4, True)]),  # testw $0xff01, %gs:0x...(%rip): four bytes, whatever the prefix
        ("e800008081", [Operand(1, True)]),  # callq
    ],
)
def test_a_wide_operand_may_be_an_address(code: str, operands: list[Operand]) -> None:
    """Immediates of masks are none."""
    assert wide_operands(bytes.fromhex(code), 0) == operands

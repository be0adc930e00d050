"""How far the stack pointer moves inside patched text, boundary by boundary; and the decoder behind it."""

from __future__ import annotations

import pytest

from orcdbg.x86.instructions import decode, decode_one, outline
from orcdbg.x86.stack_effects import call_before, stack_boundaries

BASE = 0xFFFFFFFF81000000
RSB_LOOP = "49c7c410000000e801000000cce801000000cc4883c41049ffcc75eb0faee8"


def depths(code: str) -> dict[int, int | None]:
    """Bytes pushed at each boundary, by offset."""
    text = bytes.fromhex(code)
    return {b.address - BASE: b.pushed for b in stack_boundaries(text, BASE).values()}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("9c586690666690", {0: 0, 1: 8, 2: 0, 4: 0, 7: 0}),  # pushfq; pop %rax; NOPs: irq.save_fl of 5.10
        ("579d66906690", {0: 0, 1: 8, 2: 0, 4: 0, 6: 0}),  # push %rdi; popfq: irq.restore_fl
        ("4883ec10c9", {0: 0, 4: 16, 5: None}),  # leave takes rsp from rbp
        ("4889dc90", {0: 0, 3: None, 4: None}),  # mov %rbx,%rsp
        ("488d642408", {0: 0, 5: -8}),  # lea 8(%rsp),%rsp
        ("ffd090", {0: 0, 2: 0, 3: 0}),  # a call comes back with the stack as it was
        ("eb0190 58", {0: 0, 3: 0, 4: -8}),  # a jump over a byte: the byte is no boundary that anything reaches
        ("7401 50 90", {0: 0, 2: 0, 3: None, 4: None}),  # two paths meet with different depths
    ],
)
def test_each_boundary_has_the_depth_that_execution_gives_it(code: str, expected: dict[int, int | None]) -> None:
    """Offsets of reachable boundaries, and the bytes pushed since the site's start."""
    assert depths(code) == expected


def test_the_loop_that_fills_the_return_stack_buffer_is_followed() -> None:
    """Its calls never return: each pushes a word that the add takes away (FILL_RETURN_BUFFER)."""
    found = depths(RSB_LOOP)
    assert [found[at] for at in (7, 13, 19, 23, 26, 28)] == [0, 8, 16, 0, 0, 0]


def test_what_lies_behind_a_call_of_other_code_is_said_to() -> None:
    """call; push; nop: error_entry comes back with a pt_regs pushed, so depths behind a call are not to be relied on."""
    text = bytes.fromhex("e8000100005090")
    assert {b.address - BASE: b.after_call for b in stack_boundaries(text, BASE).values()} == {
        0: False,
        5: True,
        6: True,
        7: True,
    }


def test_bytes_that_are_no_instruction_have_no_boundary_behind_them() -> None:
    """What cannot be decoded cannot be stepped over."""
    assert depths("5006") == {0: 0, 1: 8}


def test_the_call_that_a_return_address_belongs_to_is_found() -> None:
    """push; call *%rax; pop: returning to +3 means the call at +1, with one word pushed."""
    found = call_before(bytes.fromhex("50ffd058"), BASE, BASE + 3)
    assert found is not None
    assert (found.address - BASE, found.pushed) == (1, 8)
    assert call_before(bytes.fromhex("50ffd058"), BASE, BASE + 4) is None


@pytest.mark.parametrize(
    ("code", "size", "name"),
    [
        ("0f01ca", 3, "clac"),
        ("0f01cb", 3, "stac"),
        ("f20f01ca", 4, "erets"),
        ("f30f01ca", 4, "eretu"),
        ("0f01c6", 3, "(0f 01 group)"),  # WRMSRNS
        ("f30faee8", 4, "incsspd"),
        ("66666666669090", 6, "nop"),
        ("67480fb93a", 5, "ud1"),  # WARN: capstone 5 leaves the operand out
        ("0fb9c0", 3, "ud1"),
        ("0fb98424f0000000", 8, "ud1"),
        ("0fb90425f0000000", 8, "ud1"),
        ("0fb905f0000000", 7, "ud1"),
        ("0fb94008", 4, "ud1"),
    ],
)
def test_opcodes_that_alternatives_use_have_the_length_objdump_gives(code: str, size: int, name: str) -> None:
    """Lengths as binutils 2.40 disassembles them; capstone 5 alone gets some of them wrong."""
    found = decode_one(bytes.fromhex(code), BASE)
    assert found is not None
    assert found.size == size
    assert found.mnemonic.startswith(name)


def test_a_look_through_a_function_goes_on_behind_a_ud1() -> None:
    """Its operand, 3a, is not the beginning of a comparison."""
    assert [(it[1], it[2]) for it in outline(bytes.fromhex("67480fb93ac3"), BASE)] == [(5, "ud1"), (1, "retq")]


def test_decoding_stops_where_bytes_are_no_instruction() -> None:
    """It never invents a line."""
    assert [insn.size for insn in decode(bytes.fromhex("9c5806"), BASE)] == [1, 1]

"""What becomes of a compiled branch to a retpoline, on a few bytes of text: by features, by register, by opcode."""

from __future__ import annotations

import numpy as np
import pytest

from orcdbg.patches.mechanisms.retpoline import RetpolinePass, RetpolineStyle
from orcdbg.patches.moved_instructions import optimise_old_nops
from orcdbg.patches.state import nops
from orcdbg.patches.state.mitigations import RETPOLINE, RETPOLINE_LFENCE
from orcdbg.x86.instructions import decode
from tests.patches.world import TEXT, THUNKS, branch, image_of, machine, rows, text_of

OLD = RetpolineStyle(lambda data: optimise_old_nops(data, nops.P6), False, False)
STOPPING = RetpolineStyle(lambda data: optimise_old_nops(data, nops.P6), True, False)
PREFIXED = RetpolineStyle(lambda data: data, True, True)


def retpoline(code: bytes, bits: set[int], style: RetpolineStyle) -> bytes:
    """What becomes of one site at the start of the text."""
    linux, mitigations = machine(bits)
    text = text_of({0: code})
    the_pass = RetpolinePass(np.array([TEXT], dtype=np.uint64), image_of(text), linux, mitigations, style)
    the_pass.sweep(text, rows(1))
    return bytes(text.data[: len(code)])


def thunk_call(opcode: bytes, register: int) -> bytes:
    """A branch to the thunk of a register, at the start of the text."""
    return branch(opcode, TEXT, THUNKS + 32 * register)


@pytest.mark.parametrize("style", [OLD, STOPPING, PREFIXED], ids=["old", "stopping", "prefixed"])
@pytest.mark.parametrize(
    ("opcode", "register"),
    [
        *(
            (opcode, register)
            for opcode in (b"\xe8", b"\xe9", b"\x2e\xe9", b"\x0f\x84")
            for register in (0, 3, 7, 8, 15)
        ),
        *((b"\x2e\xe8", register) for register in (8, 15)),  # compilers prefix calls through r8 to r15 only
    ],
)
def test_without_retpolines_the_site_is_the_indirect_branch(
    opcode: bytes, register: int, style: RetpolineStyle
) -> None:
    """One indirect branch through the thunk's register, in a whole number of instructions, of the site's own length."""
    out = retpoline(thunk_call(opcode, register), set(), style)
    code = list(decode(out, TEXT))
    assert sum(insn.size for insn in code) == len(opcode) + 4
    indirect = [insn for insn in code if insn.operands.startswith("*")]
    assert len(indirect) == 1
    assert indirect[0].is_call == (opcode[-1] == 0xE8)
    assert indirect[0].raw[-1] & 7 == register & 7
    assert (0x41 in indirect[0].raw[:-2]) == (register >= 8)


def test_a_conditional_tail_call_is_jumped_over_when_its_condition_fails() -> None:
    """je thunk becomes jne past the site; jmp *reg."""
    out = retpoline(thunk_call(b"\x0f\x84", 2), set(), STOPPING)
    first = next(iter(decode(out, TEXT)))
    assert first.mnemonic == "jne"
    assert first.target == TEXT + 6


@pytest.mark.parametrize("opcode", [b"\xe8", b"\x2e\xe9", b"\x0f\x84"], ids=lambda code: code.hex())
def test_with_retpolines_sites_stay_as_built(opcode: bytes) -> None:
    """The thunk is what is wanted."""
    code = thunk_call(opcode, 1)
    assert retpoline(code, {RETPOLINE}, STOPPING) == code


@pytest.mark.parametrize(
    ("opcode", "register", "fits"), [(b"\xe8", 1, True), (b"\xe8", 9, False), (b"\x2e\xe9", 9, True)]
)
def test_an_lfence_that_does_not_fit_leaves_the_thunk(opcode: bytes, register: int, fits: bool) -> None:
    """3 + 2 bytes fit into five, 3 + 3 only into six, and behind a condition nothing fits."""
    code = thunk_call(opcode, register)
    out = retpoline(code, {RETPOLINE, RETPOLINE_LFENCE}, STOPPING)
    assert out.startswith(b"\x0f\xae\xe8") == fits
    assert (out == code) != fits


def test_a_site_that_calls_no_thunk_is_left_alone() -> None:
    """The kernel warns and goes on."""
    for target in (THUNKS - 32, THUNKS + 5, THUNKS + 16 * 32):
        code = branch(b"\xe8", TEXT, target)
        assert retpoline(code, set(), STOPPING) == code

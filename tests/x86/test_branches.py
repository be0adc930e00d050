"""Which call ends at an address, and where does it go?"""

from __future__ import annotations

import pytest

from orcdbg.x86.branches import calls_before, direct_call_target, ends_with_call, indirect_target
from orcdbg.x86.instructions import decode_one
from orcdbg.x86.operands import BasedMemory
from tests.build.memory import SparseMemory

BACK = 0xFFFFFFFF81000008


def _modrm_calls() -> list[bytes]:
    """Every form of ff /2: each mod and rm, and for those with an SIB byte each base; displacements of a's."""
    found = []
    for mod in range(4):
        for rm in range(8):
            sibs = [bytes([base | 0x20]) for base in range(8)] if mod != 3 and rm == 4 else [b""]
            for sib in sibs:
                no_base = mod == 0 and (rm == 5 or (sib != b"" and sib[0] & 7 == 5))
                size = 4 if no_base else {0: 0, 1: 1, 2: 4, 3: 0}[mod]
                found.append(bytes([0xFF, mod << 6 | 2 << 3 | rm]) + sib + b"\x61" * size)
    return found


@pytest.mark.parametrize("code", _modrm_calls(), ids=bytes.hex)
def test_every_form_of_an_indirect_call_is_seen_with_the_size_that_the_decoder_gives(code: bytes) -> None:
    """Behind bytes that are no call."""
    insn = decode_one(code, BACK - len(code))
    assert insn is not None
    assert (insn.is_call, insn.size) == (True, len(code))
    sizes = [call.size for call in calls_before(code.rjust(8, b"\x90"), BACK)]
    assert len(code) in sizes
    assert ends_with_call(code.rjust(8, b"\x90"))


@pytest.mark.parametrize("code", ["9090909090909090", "ff20", "ffe0", "ff15909090", "e8909090", "6690"])
def test_what_is_no_call_or_not_all_of_one_is_none(code: str) -> None:
    """Jumps through memory and registers, and calls of which bytes are missing at the end."""
    assert not ends_with_call(bytes.fromhex(code).rjust(8, b"\x90"))


def test_a_direct_call_is_told_with_its_target_which_may_lie_beyond_either_end() -> None:
    """Addresses have 64 bits."""
    memory = SparseMemory()
    memory.put(BACK - 5, b"\xe8\xf8\xff\xff\xff")
    assert direct_call_target(memory, BACK) == BACK - 8
    memory.put(0x100, b"\xe8" + (0x80000000).to_bytes(4, "little"))
    assert direct_call_target(memory, 0x105) == (0x105 - 0x80000000) & (1 << 64) - 1
    memory.put(0x200, b"\xff\x15\0\0\0\0")
    assert direct_call_target(memory, 0x206) is None
    assert direct_call_target(memory, 0x9000) is None  # no text there


@pytest.mark.parametrize(
    ("operands", "register", "memory"),
    [
        ("*%rax", "rax", None),
        ("*0x18(%r12)", None, BasedMemory("r12", 0x18)),
        ("*(%rbx)", None, BasedMemory("rbx", 0)),
        ("*-8(%rbp)", None, BasedMemory("rbp", -8)),
    ],
)
def test_an_indirect_call_goes_by_a_register_or_by_memory_beside_one(
    operands: str, register: str | None, memory: BasedMemory | None
) -> None:
    """And says which."""
    assert indirect_target(operands) == (register, memory)


@pytest.mark.parametrize(
    "operands", ["0xffffffff81000000", "*%gs:0x18(%rax)", "*(%rax, %rbx, 8)", "*0x1234", "%rax", ""]
)
def test_other_operands_name_no_place_that_follows_from_one_register(operands: str) -> None:
    """A direct call, a segment, an index, an absolute address."""
    assert indirect_target(operands) is None

"""Where is the stack pointer at each instruction? Over made code, and over all functions of the sample beside their rows."""

from __future__ import annotations

import pytest

from orcdbg.orc.cfa import sp_rule
from orcdbg.orc.effective import AsBuilt
from orcdbg.orc.rows import RowType
from orcdbg.target.session import Session
from orcdbg.x86.stack_depth import stack_depths

START = 0x1000
PUSH_RBP, MOV, PUSH_RBX = b"\x55", bytes.fromhex("4889e5"), b"\x53"  # push %rbp; mov %rsp,%rbp; push %rbx
SUB, ADD = bytes.fromhex("4883ec18"), bytes.fromhex("4883c418")  # sub, add $0x18,%rsp
ALIGN = bytes.fromhex("4883e4f0")  # and $-16,%rsp
LEAVE, RET, CALL, UD2 = b"\xc9", b"\xc3", bytes.fromhex("e8fb0f0000"), b"\x0f\x0b"
LEA = bytes.fromhex("488d65f8")  # lea -8(%rbp),%rsp
Depth = int | tuple[int, int] | None
CASES: dict[str, tuple[list[bytes], list[Depth]]] = {
    "pushes": ([PUSH_RBP, PUSH_RBX, RET], [8, 16, 24]),
    "room": ([SUB, CALL, ADD, RET], [8, 32, 32, 8]),
    "a frame that is left": ([PUSH_RBP, MOV, SUB, LEAVE, RET], [8, 16, 16, 40, 8]),
    "aligned, and back by rbp": ([PUSH_RBP, MOV, ALIGN, PUSH_RBX, LEA, RET], [8, 16, 16, (16, 31), (24, 39), 24]),
    "lowered by as much as a register says": ([SUB, bytes.fromhex("4829c4"), RET], [8, 32, None]),
    "an exchange of other registers": ([bytes.fromhex("4c876328"), PUSH_RBX, RET], [8, 8, 16]),
    "an exchange of the stack pointer": ([bytes.fromhex("4894"), PUSH_RBX, RET], [8, None, None]),
    "bits that are counted": ([bytes.fromhex("f3480fb8c1"), PUSH_RBX, RET], [8, 8, 16]),
    "behind the end": ([RET, PUSH_RBX], [8, None]),
    "behind a warning": ([PUSH_RBX, UD2, RET], [8, 16, 16]),
    "two ways that disagree": ([b"\x74\x01", PUSH_RBX, RET], [8, 8, None]),
    "two ways that agree": ([PUSH_RBX, b"\x74\x05", CALL, RET], [8, 16, 16, 16]),
}


@pytest.mark.parametrize("name", CASES)
def test_depths_follow_the_instructions(name: str) -> None:
    """Bytes from the stack pointer to the CFA before each, None where it is not known."""
    code, expected = CASES[name]
    found = stack_depths(b"".join(code), START)
    addresses = [START + len(b"".join(code[:number])) for number in range(len(code))]
    assert [shown(found.by_address.get(address)) for address in addresses] == expected


def shown(depth: range | None) -> Depth:
    """A depth as the cases have it: a number, or the least and the most."""
    return None if depth is None else depth.start if len(depth) == 1 else (depth.start, depth[-1])


SAVES: dict[str, tuple[bytes, dict[str, int], set[str]]] = {
    "pushed, then written": (PUSH_RBX + bytes.fromhex("89fb") + RET, {"rbx": 16}, {"rbx"}),
    "pushed again, as an argument": (PUSH_RBX + PUSH_RBX + RET, {"rbx": 16}, set()),
    "moved to a slot": (SUB + bytes.fromhex("48895c2410") + PUSH_RBX + RET, {}, {"rbx"}),
    "written without": (bytes.fromhex("4589e0") + bytes.fromhex("4189c4") + RET, {}, {"r12"}),
    "only read": (bytes.fromhex("4139c4") + bytes.fromhex("4885db") + RET, {}, set()),
    "given back": (PUSH_RBX + b"\x5b" + RET, {"rbx": 16}, set()),
    "pushed where the depth is not known": (bytes.fromhex("4829c4") + PUSH_RBX + RET, {}, {"rbx"}),
}


@pytest.mark.parametrize("name", SAVES)
def test_pushes_keep_registers(name: str) -> None:
    """The first slot of each, below the CFA; and what is written without one that is known."""
    code, pushed, written = SAVES[name]
    found = stack_depths(code, START)
    assert (found.pushed, set(found.written)) == (pushed, written)


def test_a_return_address_has_the_depth_of_its_call() -> None:
    """Whatever stands behind the call, and if nothing does."""
    found = stack_depths(SUB + CALL, START)
    behind = START + len(SUB + CALL)
    assert (shown(found.at(behind, False)), found.at(behind, True)) == (0x20, None)
    at_start = found.at(START, True)
    assert (shown(at_start), found.at(START + 1, True), found.at(START, False)) == (8, None, None)


def test_the_samples_functions_have_the_depths_of_their_rows(sample: Session) -> None:
    """Wherever a row counts from rsp; but for what only a call that never returns falls through to."""
    code, overlay = sample.kernel.terrain.code, sample.kernel.terrain.overlay
    address, end, compared, functions, wrong = sample.linux.address("_stext"), sample.linux.address("_etext"), 0, 0, []
    while address < end:
        place = code.locate(address)
        address = max(address + 1, place.start + place.size) if place is not None else address + 1
        if (
            place is None
            or not place.is_text
            or ".cold" in place.symbol
            or overlay.at(place.start, True).rule != sp_rule(8)
        ):
            continue
        functions += 1
        if functions % 8:
            continue  # an eighth of them is enough for a fast test
        for at, depth in stack_depths(code.built.read(place.start, place.size), place.start).by_address.items():
            effective = overlay.at(at, True)
            is_counted = isinstance(effective, AsBuilt) and effective.entry.row.type is RowType.CALL
            if is_counted and effective.rule is not None and effective.rule.counts_from_sp:
                compared += 1
                wrong += [] if effective.rule.offset in depth else [(place.symbol, hex(at), depth, str(effective.rule))]
    print(f"{compared} instructions of {functions} functions")
    assert compared > 10_000
    assert wrong == []

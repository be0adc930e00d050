"""Was a stack used up, by which recursion, or written over, by which bytes?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import Route, name_of
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, fact
from orcdbg.kernel.stacks import task_stack
from orcdbg.unwind.frame import Frame
from orcdbg.x86.instructions import Outlined, outline
from orcdbg.x86.operands import memory_in, split_operands

_MAX_FUNCTION = 1 << 16
_LEAST_RECURSION = 4
_COMPARES = ("sub", "subq", "xor", "xorq", "cmp", "cmpq")


def _overflows(case: Case) -> bool:
    return case.has_fault and case.site.route is Route.STACK_OVERFLOW


def _recursion(case: Case) -> Iterator[Finding]:
    sp = case.fault.registers.get("rsp", 0)
    stack = task_stack(case.session.linux, case.task.address)
    if stack is not None:
        yield fact(
            FindingKind.STACK_ROOM,
            Exhibit(f"rsp = {sp:#x}, stack {stack.begin:#x} to {stack.end:#x}", f"bt --why {case.fault.place}"),
            addresses=[sp],
            used=stack.end - sp,
            size=stack.end - stack.begin,
        )
    frames = [frame for frame in case.site.way if frame.reliable]
    for name, group in groupby(frames, key=name_of):
        same = list(group)
        if name is not None and len(same) >= _LEAST_RECURSION:
            each = (same[-1].sp - same[0].sp) // (len(same) - 1)
            yield fact(
                FindingKind.RECURSION,
                Exhibit(f"#{same[0].index} to #{same[-1].index}", "bt -p"),
                function=name,
                count=len(same),
                each=each,
            )


def _is_smashed(case: Case) -> bool:
    return case.panic_cpu is not None and case.site.route is Route.STACK_PROTECTOR


def _canary(case: Case) -> Iterator[Finding]:
    frame = case.site.way[0] if case.site.way else None
    if frame is None or not frame.reliable or frame.location is None:
        return
    place = _canary_slot(case, frame)
    expected = case.session.linux.member("task_struct", "stack_canary", case.task.address)
    found = None if place is None else case.word(place)
    if place is None or found is None:
        return
    data = found.to_bytes(8, "little")
    text = data.decode("ascii") if all(0x20 <= byte < 0x7F for byte in data) else ""
    yield fact(
        FindingKind.CANARY,
        Exhibit(f"{place:#x}: {found:#018x}", f"rd {place:#x} 1"),
        Exhibit(
            f"task_struct.stack_canary: {expected:#018x}", f"struct task_struct.stack_canary {case.task.address:#x}"
        ),
        addresses=[place],
        place=f"{place:#x}",
        expected=f"{expected:#x}",
        found=f"{found:#x}",
        text=text,
    )


def _canary_slot(case: Case, frame: Frame) -> int | None:
    """Where a function keeps its canary: what it loads from its frame right before the comparison with %gs's."""
    location = frame.location
    if location is None or location.size > _MAX_FUNCTION:
        return None
    data = case.session.text.read(location.start, location.size)
    insns = [Outlined(*fields) for fields in outline(data, location.start)]
    slots = set()
    for before, insn in pairwise(insns):
        operands = split_operands(insn.operands)
        if insn.mnemonic not in _COMPARES or not operands or not operands[0].startswith("%gs:"):
            continue
        memory = memory_in(split_operands(before.operands)[0]) if before.mnemonic in ("mov", "movq") else None
        if memory is None:
            continue
        register, offset = memory
        if register in ("rsp", "rbp") and register in frame.registers:
            slots.add(frame.registers[register].value + offset)
    return slots.pop() if len(slots) == 1 else None


OVERFLOW = Detector("a recursion", (Input.STACK, Input.REGISTERS), _overflows, _recursion)
CANARY = Detector("a stack's canary", (Input.STACK,), _is_smashed, _canary)

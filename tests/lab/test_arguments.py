"""What a function was called with, by its caller's call site, against the registers that the guest had at its entry."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from orcdbg.base.errors import MemoryFault
from orcdbg.formats.callframe import REGISTERS
from orcdbg.typed.objects import ValueUnavailable
from orcdbg.unwind.frame import FrameKind
from orcdbg.variables.expression import REG0
from tests.lab import scripts
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.draw import kernels_of
from tests.lab.gdbstub import WaitsForInterrupt
from tests.lab.live import LiveKernel, open_live
from tests.lab.stepping import stops_at_entries

pytestmark = pytest.mark.lab

FUNCTIONS, STEPS = 16, 6
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")


def compare(live: LiveKernel, entered: dict[str, int], counts: Counter[str]) -> list[str]:
    """Arguments that are shown with another value than they had at the function's entry."""
    trace = live.trace()
    place = live.session.names.at(trace.frames[0].ip)
    if place is None or len(trace.frames) < 2 or trace.frames[1].kind is not FrameKind.CALL:
        return []
    variables = live.session.local_variables.of(trace)
    if not variables.is_described(0):
        return []

    wrong = []
    for name in ARGUMENTS:
        state = variables.state(0)
        try:
            value = state.entry_value(bytes([REG0 + REGISTERS.index(name)]))
        except (ValueUnavailable, MemoryFault):
            counts["not told"] += 1
            continue
        if not all(trace.frames[index].mark.is_sure for index in (0, *state.leaned_on)):
            continue
        counts["compared"] += 1
        # A call site may describe an argument's lower bits alone: of an int the upper half of the register is anything.
        if value & 0xFFFF_FFFF != entered[name] & 0xFFFF_FFFF:
            wrong.append(f"{place.symbol}: {name} {value:#x}, was {entered[name]:#x}")
    return wrong


@pytest.mark.parametrize("kernel", kernels_of("arguments"))
@on_a_living_guest
def test_arguments_are_those_that_the_function_was_entered_with(kernel: str, seed: int, tmp_path: Path) -> None:
    """At the entries of functions chosen at random, and some instructions on."""
    random = Random(seed)
    counts: Counter[str] = Counter()
    with busy_guest(kernel, random, tmp_path) as (guest, found, console), guest.stub() as stub:
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        for _ in stops_at_entries(live, random, FUNCTIONS):
            counts["functions"] += 1
            entered = stub.read_registers()
            function = live.session.names.at(entered["rip"])
            assert function is not None
            for _ in range(STEPS):
                ip = stub.read_registers()["rip"]
                if not function.start <= ip < function.start + function.size:
                    break
                if stub.read_registers()["rsp"] > entered["rsp"]:
                    break
                assert compare(live, entered, counts) == []
                try:
                    stub.step()
                except WaitsForInterrupt:
                    break
            if counts["functions"] == FUNCTIONS:
                break
    print(f"{kernel}: {dict(counts)}")
    assert counts["compared"] > 0

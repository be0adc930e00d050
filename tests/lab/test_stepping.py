"""Truth by stepping: while a function runs, instruction by instruction, its callers must stay those found at its entry."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from orcdbg.unwind.frame import End
from tests.lab import scripts
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.conftest import KERNELS
from tests.lab.gdbstub import WaitsForInterrupt
from tests.lab.live import LiveKernel, open_live
from tests.lab.stepping import callers, contradictions, stops_at_entries

pytestmark = pytest.mark.lab

FUNCTIONS_VARIABLE = "ORCDBG_LAB_FUNCTIONS"
FUNCTIONS, STEPS = int(os.environ.get(FUNCTIONS_VARIABLE) or 4), 300


def follow(live: LiveKernel, name: str) -> tuple[int, list[str]]:
    """Steps through a function until it returns: the number of stops, and those where the walk said it did not know."""
    entry = live.trace()
    if entry.end == End.STOPPED or any(frame.doubt for frame in entry.frames):
        return 0, [f"{name}: {entry.end_reason}"]
    known, sp = callers(entry), entry.frames[0].sp
    unknown: list[str] = []
    for step in range(STEPS):
        try:
            live.stub.step()
        except WaitsForInterrupt:
            return step, unknown
        if live.stub.read_registers()["rsp"] > sp:
            return step, unknown
        trace = live.trace()
        where = live.session.names.describe(trace.frames[0].ip)
        assert contradictions(trace, known, sp) == [], (name, where)
        if callers(trace)[-len(known) :] != known:
            doubts = [frame.doubt for frame in trace.frames if frame.doubt]
            assert trace.end == End.STOPPED or doubts, (name, where)
            unknown.append(f"{where}: {trace.end_reason or doubts[0]}")
    return STEPS, unknown


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_callers_never_change_while_a_function_runs(kernel: str, seed: int, tmp_path: Path) -> None:
    """At every instruction of functions with patch sites, chosen at random: the same callers, or a word that they are lost.

    No frame that is shown as sure may be another than at the function's entry.
    """
    random = Random(seed)
    stops, functions, unknown = 0, 0, list[str]()
    with busy_guest(kernel, random, tmp_path) as (guest, found, console), guest.stub() as stub:
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        for ip in stops_at_entries(live, random, FUNCTIONS):
            count, lost = follow(live, live.session.names.describe(ip) or hex(ip))
            stops, unknown, functions = stops + count, unknown + lost, functions + 1
            if functions == FUNCTIONS:
                break
    print(f"{kernel}: {stops} stops in {functions} functions, {len(unknown)} without callers: {unknown[:5]}")
    assert stops > 0

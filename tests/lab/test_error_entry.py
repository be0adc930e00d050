"""Truth by stepping: through error_entry and paranoid_entry, whose callers are known at the first instruction."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from orcdbg.unwind.frame import End
from tests.lab import scripts
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.conftest import KERNELS
from tests.lab.live import LiveKernel, open_live

pytestmark = pytest.mark.lab

ENTRIES, STEPS, WAIT, ATTEMPTS = 5, 200, 30.0, 40


def follow(live: LiveKernel, entry: int, callers: str | tuple[str, ...]) -> int:
    """Steps from a function's first instruction until it has returned; the number of stops inside it."""
    start = live.trace()
    assert (start.end_reason, {frame.doubt for frame in start.frames}) == (None, {None})
    assert start.frames[1].location is not None
    assert start.frames[1].location.symbol.startswith(callers)
    known = [(frame.ip, frame.sp) for frame in start.frames[2:]]
    back, stops, unsure = start.frames[1].ip, 0, list[str]()
    for _ in range(STEPS):
        live.stub.step()
        ip = live.stub.read_registers()["rip"]
        if ip == back:
            assert [text for text in unsure if not text.startswith("sync_regs")] == []
            return stops
        trace = live.trace()
        where = live.session.names.describe(ip)
        if trace.end == End.STOPPED or any(frame.doubt for frame in trace.frames):
            unsure.append(f"{where}: {trace.end_reason or [frame.doubt for frame in trace.frames]}")
            continue
        shown = [(frame.ip, frame.sp) for frame in trace.frames]
        assert shown[-len(known) :] == known, where
        assert shown[-len(known) - 1][0] == back, where
        location = trace.frames[0].location
        stops += location is not None and location.start == entry
    raise AssertionError("it did not return")


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_the_caller_of_error_entry_is_found_at_every_instruction(kernel: str, seed: int, tmp_path: Path) -> None:
    """None is left out and none is lost, but said to be while 5.10 calls sync_regs with the address in r12."""
    random = Random(seed)
    with busy_guest(kernel, random, tmp_path) as (guest, found, console), guest.stub() as stub:
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        error_entry = live.session.linux.address("error_entry")
        stops = []
        for _ in range(ENTRIES):
            stub.set_breakpoint(error_entry)
            assert stub.resume(WAIT), "nothing happened"
            stub.clear_breakpoint(error_entry)
            assert stub.read_registers()["rip"] == error_entry
            stops.append(follow(live, error_entry, "asm_"))
    print(f"{kernel}: stops in error_entry: {stops}")
    assert min(stops) > 15


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_the_caller_of_paranoid_entry_is_found_at_every_instruction(kernel: str, seed: int, tmp_path: Path) -> None:
    """On the way of NMIs that strike the kernel, whose entry code calls it."""
    with busy_guest(kernel, Random(seed), tmp_path) as (guest, found, console), guest.stub() as stub:
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        entry = live.session.linux.address("paranoid_entry")
        stops = list[int]()
        for _ in range(ATTEMPTS):
            stub.set_breakpoint(entry)
            guest.qmp("inject-nmi")  # one that strikes user mode does not come this way
            is_hit = stub.resume(0.3)
            stub.clear_breakpoint(entry)
            # Right behind `syscall` the stack pointer is the user's still: a walk from there knows no caller.
            if is_hit and stub.read_registers()["rip"] == entry and live.trace().end != End.STOPPED:
                stops.append(follow(live, entry, ("end_repeat_nmi", "asm_exc_nmi")))
            if len(stops) == ENTRIES:
                break
    print(f"{kernel}: stops in paranoid_entry: {stops}")
    assert len(stops) == ENTRIES
    assert min(stops) > 15

"""Stops at the entries of functions with patch sites, and the callers that a stepped function must keep."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from orcdbg.unwind.frame import StackTrace
from tests.lab.live import LiveKernel

ATTEMPTS = 20  # to come to one function's entry
AT_ONCE = 64  # breakpoints: most of the kernel's functions never run in a guest of the lab
WAIT = 0.6  # seconds for one of them to be hit

Caller = tuple[int, int]


def callers(trace: StackTrace) -> list[Caller]:
    """ip and stack pointer of every frame but the innermost."""
    return [(frame.ip, frame.sp) for frame in trace.frames[1:]]


def patched_functions(live: LiveKernel) -> list[int]:
    """Entries of functions with a patch site; entry code is left out, whose callers are user mode or another stack."""
    session = live.session
    start, end = session.linux.address("__entry_text_start"), session.linux.address("__entry_text_end")
    last = session.linux.address("_etext")
    found = {session.names.at(cluster.address) for cluster in session.stack_ledger.clusters() if cluster.address < last}
    places = [place for place in found if place is not None and not start <= place.start < end]
    return sorted(place.start for place in places if not place.symbol.startswith(("__x86_", "__switch_to")))


def stops_at_entries(live: LiveKernel, random: Random, wanted: int) -> Iterator[int]:
    """Stops the guest at the entry of one function after another, none twice, in so many attempts as `wanted` may need."""
    functions = patched_functions(live)
    for _ in range(ATTEMPTS * wanted):
        chosen = random.sample(functions, min(AT_ONCE, len(functions)))
        for address in chosen:
            live.stub.set_breakpoint(address)
        is_hit = live.stub.resume(WAIT)
        for address in chosen:
            live.stub.clear_breakpoint(address)
        ip = live.stub.read_registers()["rip"]
        if is_hit and ip in chosen:
            functions.remove(ip)
            yield ip


def contradictions(trace: StackTrace, known: list[Caller], sp: int) -> list[Caller]:
    """Frames shown as sure, outside the function that was entered at stack pointer `sp`, that were not its callers."""
    shown = [frame for frame in trace.frames[1:] if frame.reliable and not frame.doubt and frame.sp > sp + 8]
    return [(frame.ip, frame.sp) for frame in shown if (frame.ip, frame.sp) not in known]

"""Callee-saved registers: by `.debug_frame` and by the functions' instructions, and both against a guest that is stepped."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from orcdbg.formats.call_frame_row import Place, Row
from orcdbg.orc.rows import OrcRegister
from orcdbg.patches.kernel_code import KernelCode
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind
from orcdbg.unwind.registers.finder import RegisterFinder
from orcdbg.x86.instructions import decode
from orcdbg.x86.registers import CALLEE_SAVED
from tests.lab import scripts
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.conftest import KERNELS, OpenScene
from tests.lab.gdbstub import WaitsForInterrupt
from tests.lab.live import LiveKernel, open_live
from tests.lab.stepping import callers, stops_at_entries

pytestmark = pytest.mark.lab

ADDRESSES, PER_FUNCTION = 2000, 10
FUNCTIONS, STEPS = 4, 120
FAR_BIT_STORE = re.compile(r"(lock )?bt[src]q? %r\w+, .*\(%r[sb]p\)")


def compare_rows(session: Session, ip: int) -> Counter[str]:
    """How the two accounts of one instruction agree, register by register."""
    table = session.debug.call_frames
    assert table is not None
    theirs, mine = table.row(ip - session.slide), session.kernel.function_saves.row(ip, True)
    _, rule = session.overlay.stated(ip)
    found: Counter[str] = Counter()
    if theirs is None or theirs.cfa is None or rule is None or mine is None:
        return Counter({"not compared": 1})
    if rule.base != OrcRegister.SP or (theirs.cfa.base, theirs.cfa.offset) != ("rsp", rule.offset):
        return Counter({"CFA from another register": 1})
    for name in CALLEE_SAVED:
        one, other = mine.saved.get(name, "register"), theirs.saved.get(name, "register")
        if one is None:
            found["only .debug_frame knows"] += 1
        elif one == other:
            found["equal"] += 1
        elif other == "register":
            found["in a slot too"] += 1  # saved already, and not changed yet: both places hold the value
        elif isinstance(other, Place) and other.base == "cfa" and other.offset < -rule.offset:
            found["popped already, says .debug_frame of split-off code"] += 1
        elif one == "register" and has_far_bit_store(session, ip):
            found["in the register too"] += 1  # not changed yet, and the slot may have been hit
        else:
            found["contradiction"] += 1
            print(f"{session.names.describe(ip)} {name}: {one} here, {other} in .debug_frame")
    return found


def has_far_bit_store(session: Session, ip: int) -> bool:
    """Whether the function sets bits on its stack whose numbers are in registers: any slot may hold them."""
    place = session.names.at(ip)
    assert place is not None
    text = session.built.read(place.start, place.size)
    return any(FAR_BIT_STORE.fullmatch(insn.text) for insn in decode(text, place.start))


@pytest.mark.parametrize("kernel", KERNELS)
def test_both_accounts_of_saved_registers_agree(kernel: str, seed: int, open_scene: OpenScene) -> None:
    """At instructions chosen at random, wherever .debug_frame has the CFA of the ORC row."""
    random = Random(seed)
    _, session = open_scene(kernel, "idle")
    functions = sorted({int(address) for address in session.symbols.entries["value"] if int(address) >> 63})
    found: Counter[str] = Counter()
    looked = 0
    first, end = session.text_ranges[0]  # without .init.text, which was given back
    while looked < ADDRESSES:
        place = session.names.at(random.choice(functions) + session.slide)
        if place is None or not place.is_text or not first <= place.start < end:
            continue
        text = session.built.read(place.start, min(place.size, 1 << 14))
        boundaries = [insn.address for insn in decode(text, place.start)]
        for ip in random.sample(boundaries, min(len(boundaries), PER_FUNCTION)):
            found += compare_rows(session, ip)
            looked += 1
    print(f"{kernel}: {looked} instructions: {dict(found)}")
    assert found["equal"] > looked
    assert found["contradiction"] == 0


def wrong_values(
    live: LiveKernel, finder: RegisterFinder, caller: tuple[int, int], entered: dict[str, int]
) -> list[str]:
    """Registers of the function's caller that are shown with another value than they had at the function's entry."""
    trace = live.trace()
    index = next((frame.index for frame in trace.frames[1:] if (frame.ip, frame.sp) == caller), None)
    if index is None:
        return []
    known = finder.all(trace, index)[-1].values
    shown = {name: known[name] for name in CALLEE_SAVED if name in known}
    where = live.session.names.describe(trace.frames[0].ip)
    wrong = [
        f"{where}: {n} {v.value:#x} ({v.source}), was {entered[n]:#x}"
        for n, v in shown.items()
        if v.value != entered[n]
    ]
    return [*wrong, *(f"known: {name}" for name in shown)]


class _WithoutCallFrames(KernelCode):
    """Code of an image that was built without `.debug_frame`."""

    def call_frame(self, address: int) -> Row | None:
        """There is none."""
        return None


def without_call_frames(code: KernelCode) -> KernelCode:
    """The same code, as far as its instructions tell."""
    return _WithoutCallFrames(code.image, code.linux, code.names, code.patches)


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_registers_of_callers_are_those_they_had_at_the_call(kernel: str, seed: int, tmp_path: Path) -> None:
    """Through functions chosen at random, with .debug_frame and without: at every instruction each value shown is true."""
    random = Random(seed)
    counts: Counter[str] = Counter()
    with busy_guest(kernel, random, tmp_path) as (guest, found, console), guest.stub() as stub:
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        session = live.session
        finders = {
            ".debug_frame": session.register_finder,
            "instructions": RegisterFinder(without_call_frames(session.code), session.kernel.function_saves),
        }
        for _ in stops_at_entries(live, random, FUNCTIONS):
            counts["functions"] += 1
            step_through(live, finders, counts)
            if counts["functions"] == FUNCTIONS:
                break
    print(f"{kernel}: {dict(counts)}")
    assert counts["stops"] > 0
    assert all(counts[f"known by {name}"] > counts["stops"] for name in finders)


def step_through(live: LiveKernel, finders: dict[str, RegisterFinder], counts: Counter[str]) -> None:
    """Steps through the function at whose entry the guest stands, and compares at every instruction."""
    entry = live.trace()
    if entry.end == End.STOPPED or len(entry.frames) < 2 or entry.frames[1].kind != FrameKind.CALL:
        return
    registers = live.stub.read_registers()
    caller = callers(entry)[0]
    for _ in range(STEPS):
        for name, finder in finders.items():
            found = wrong_values(live, finder, caller, registers)
            assert [text for text in found if not text.startswith("known: ")] == [], name
            counts[f"known by {name}"] += len(found)
        counts["stops"] += 1
        try:
            live.stub.step()
        except WaitsForInterrupt:
            return
        if live.stub.read_registers()["rsp"] > registers["rsp"]:
            return

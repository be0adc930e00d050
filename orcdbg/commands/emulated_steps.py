"""What would this code have done from here? A copy of the snapshot is moved, from the selected frame on."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.sizes import U64
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.steps import SteppedPlace, Steps, displays_of
from orcdbg.commands.stops import Stops
from orcdbg.unwind.frame import FrameKind

if TYPE_CHECKING:
    from orcdbg.commands.emulation import Emulation
    from orcdbg.emulation.motions import Motions
    from orcdbg.emulation.stops import Stop


_ASSIGNMENT = re.compile(r"([a-z]\w+)([+-]?)=(.+)")
NO_LIMIT = 1 << 62  # instructions, where only something else is to stop a run
Move = Callable[["Emulation", "Motions"], "Stop"]


def _value(debugger: Debugger, text: str) -> int:
    """A number or an address; negative numbers wrap around."""
    try:
        return int(text, 0) & U64
    except ValueError:
        return debugger.address(text)


def _assigned(debugger: Debugger, known: dict[str, int], words: list[str]) -> dict[str, int]:
    """Registers with `rdi=1`, `rsp+=8`, `rip=schedule` carried out."""
    from orcdbg.emulation.engine import REGISTERS

    for word in words:
        found = _ASSIGNMENT.fullmatch(word)
        if found is None or found[1] not in REGISTERS:
            raise UsageError(f"cannot set a register so: {word}", "REG=VALUE, REG+=N or REG-=N; " + " ".join(REGISTERS))
        name, sign, value = found[1], found[2], _value(debugger, found[3])
        if sign and name not in known:
            raise NotFound("register", name, "its value in this frame is not known, so nothing can be added to it")
        known[name] = (known[name] + (value if sign == "+" else -value) if sign else value) & U64
    return known


def begin(debugger: Debugger, at: str | None, words: list[str], zero: bool) -> Emulation:
    """A new emulation from the selected frame."""
    from orcdbg.commands.emulation import Emulation, limits
    from orcdbg.emulation.start import called, complete

    frame, pushed = debugger.frame(), dict[int, int]()
    if frame.kind is FrameKind.USER:
        raise OrcdbgError("user code cannot be run: only kernel memory is in the snapshot")
    values = debugger.session.register_finder.all(debugger.trace(), frame.index)[-1].values
    known = {name: found.value for name, found in values.items()}
    source = f"frame {frame.index} of task {debugger.task.pid}"
    if at:
        known, pushed = called(known, debugger.address(at))
        source = f"a call from {source}"
    start = complete(_assigned(debugger, known, words), zero, pushed)
    source += f", with {' '.join(words)}" if words else ""
    made = Emulation(
        debugger.session, debugger.task, start, source, limits(debugger.settings), frame=debugger.frame_index
    )
    made.motions.breakpoints, made.motions.watches = debugger.breakpoints, debugger.watches
    return made


def current(debugger: Debugger) -> Emulation:
    """The emulation that goes on, begun at the selected frame if there is none of that."""
    emulation = debugger.selected_emulation
    if emulation is None:
        emulation = debugger.emulation = begin(debugger, None, [], False)
    return emulation


def run(debugger: Debugger, emulation: Emulation, arguments: argparse.Namespace, move: Move) -> Steps:
    """Moves an emulation, and says what was run and where it stands."""
    motions, emulator = emulation.motions, emulation.emulator
    places: list[SteppedPlace] = []
    before, first = emulator.registers(), emulator.executed
    latest = before

    def observe() -> None:
        nonlocal latest
        _note_changes(places, emulation, latest)
        latest = emulator.registers()
        places.append(emulation.place({}))

    motions.observe = observe if arguments.trace else None
    motions.skip, motions.skipped = arguments.skip, []
    try:
        stop = move(emulation, motions)
    finally:
        motions.observe = None
    _note_changes(places, emulation, latest)
    trace = emulation.trace()
    places.append(emulation.place({} if arguments.trace else emulation.changes(before), trace))
    return Steps(
        stop.by,
        stop.why,
        emulator.executed - first,
        emulator.executed,
        places,
        emulator.registers(),
        trace,
        emulation.source,
        emulation.start.zeroed,
        motions.skipped,
        traced=arguments.trace,
        displays=displays_of(debugger),
    )


def _note_changes(places: list[SteppedPlace], emulation: Emulation, latest: dict[str, int]) -> None:
    """Adds to the last place of a trace what its instruction changed."""
    if places:
        last = places[-1]
        places[-1] = SteppedPlace(last.instruction, last.frame, last.caller, emulation.changes(latest))


def checked_count(count: int) -> int:
    """A number of instructions; UsageError for a negative one."""
    if count < 0:
        raise UsageError(f"not a number of instructions: {count}")
    return count


def stops(debugger: Debugger) -> Stops:
    """The breakpoints and the watched memory of emulated runs, of whatever task."""
    names = debugger.session.names
    pairs = [(address, 0) for address in sorted(debugger.breakpoints)] + debugger.watches
    return Stops([(number, at, size, names.describe(at)) for number, (at, size) in enumerate(pairs, 1)])

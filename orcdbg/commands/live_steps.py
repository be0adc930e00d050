"""How is a live guest stepped? There the guest moves, and not a copy of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError, UsageError
from orcdbg.base.sizes import U64
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.instructions import line_at
from orcdbg.commands.live import guest_of
from orcdbg.commands.steps import SteppedPlace, Steps, displays_of
from orcdbg.commands.stops import Stops
from orcdbg.emulation.stops import StoppedBy
from orcdbg.gdb.stops import BreakKind, GuestStop, StopReason
from orcdbg.unwind.frame import FrameKind

if TYPE_CHECKING:
    from orcdbg.gdb.guest import Guest


MAX_STEPS = 100_000
MAX_PASSES = 1000  # times that others may come by a place before the one that is waited for
Move = Callable[["_Moving", argparse.Namespace], GuestStop]
_STOPPED_BY = {
    StopReason.BREAKPOINT: StoppedBy.BREAKPOINT,
    StopReason.WATCHPOINT: StoppedBy.WATCHPOINT,
    StopReason.STEP: StoppedBy.COUNT,
}


class _Moving:
    """A guest on its way: the CPU that is stepped, how far it came, and what it went past."""

    def __init__(self, debugger: Debugger, traced: bool) -> None:
        self.debugger = debugger
        self.guest: Guest = guest_of(debugger)
        running = debugger.session.unwinder.running.get(debugger.task.address)
        self.cpu = running[0] if running and running[0] < self.guest.cpus else self.guest.stop.cpu
        self.traced = traced
        self.steps = 0
        self.places: list[SteppedPlace] = []

    def registers(self) -> dict[str, int]:
        """The CPU's registers, by the names of snapshots."""
        return dict(self.guest.cpu_state(self.cpu).registers)

    def place(self, changed: Mapping[str, int]) -> SteppedPlace:
        """Where the CPU stands."""
        self.debugger.move(self.cpu)
        session, frames = self.debugger.session, self.debugger.trace().frames
        if not frames:
            raise OrcdbgError("no frame is known where the guest stands")
        try:
            line = line_at(session, session.memory, frames[0].ip, session.overlay)
        except MemoryFault as error:
            raise OrcdbgError(f"the guest stands where no kernel memory is mapped: {error}") from error
        return SteppedPlace(line, frames[0], frames[1] if len(frames) > 1 else None, changed)

    def step(self) -> GuestStop:
        """Runs one instruction."""
        before = self.registers()
        if self.traced:
            self.places.append(self.place({}))
        stop = self.guest.step(self.cpu)
        self.steps += 1
        if self.traced:
            self.places[-1] = replace(self.places[-1], changed=changes(before, self.registers()))
        return stop

    def run_to(self, address: int, sp: int | None) -> GuestStop:
        """Runs on until this CPU comes to an address, with that stack pointer if one is given, or something else stops it."""
        own = (BreakKind.HARDWARE, address, 1) not in self.guest.breakpoints
        if own:
            self.guest.set_breakpoint(address)
        try:
            for _ in range(MAX_PASSES):
                stop = self.guest.resume()
                self.steps += 1
                if stop.reason is not StopReason.BREAKPOINT or stop.ip != address or not own:
                    return stop
                if sp is None or self.guest.registers(stop.cpu)["rsp"] == sp:
                    return stop
            raise OrcdbgError(f"others came by {address:#x} {MAX_PASSES} times")
        finally:
            if own:
                self.guest.clear_breakpoint(address)


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """The registers that are not as they were, rip aside."""
    return {name: value for name, value in now.items() if value != before.get(name) and name != "rip"}


def _steps(debugger: Debugger, arguments: argparse.Namespace, move: Move) -> Steps:
    """Moves the guest, and says how far it came and where it stands."""
    moving = _Moving(debugger, arguments.trace)
    before = moving.registers()
    try:
        stop = move(moving, arguments)
    finally:
        debugger.move(moving.cpu)  # whatever happened on the way, nothing of what was known holds
    moving.cpu = stop.cpu
    now = moving.registers()
    here = moving.place({} if arguments.trace else changes(before, now))
    by, why = _STOPPED_BY.get(stop.reason, StoppedBy.LIMIT), None
    if stop.watched is not None:
        why = f"{stop.watched:#x} was accessed"
    elif by is StoppedBy.LIMIT:
        why = stop.reason.value if stop.signal is None else f"{stop.reason.value} {stop.signal}"
    places, trace = [*moving.places, here], debugger.trace()
    source, displays = "the live guest", displays_of(debugger)
    return Steps(
        by, why, moving.steps, moving.steps, places, now, trace, source, traced=arguments.trace, displays=displays
    )


def _count(arguments: argparse.Namespace) -> int:
    count = 1 if arguments.count is None else int(arguments.count)
    if not 0 <= count <= MAX_STEPS:
        raise UsageError(f"not a number of instructions: {count}", f"at most {MAX_STEPS} on a live guest")
    return count


def _step(moving: _Moving, arguments: argparse.Namespace) -> GuestStop:
    stop = replace(moving.guest.stop, reason=StopReason.STEP, cpu=moving.cpu, ip=moving.registers()["rip"])
    for _ in range(_count(arguments)):
        stop = moving.step()
        if stop.reason is not StopReason.STEP:
            break
    return stop


def _next(moving: _Moving, arguments: argparse.Namespace) -> GuestStop:
    stop = replace(moving.guest.stop, reason=StopReason.STEP, cpu=moving.cpu, ip=moving.registers()["rip"])
    for _ in range(_count(arguments)):
        registers = moving.registers()
        session = moving.debugger.session
        session.move(moving.guest.snapshot())
        line = line_at(session, session.memory, registers["rip"], session.overlay)
        if line.mnemonic.startswith("call"):
            stop = moving.run_to(registers["rip"] + len(line.raw) & U64, registers["rsp"])
            stop = replace(stop, reason=StopReason.STEP) if stop.ip == registers["rip"] + len(line.raw) else stop
        else:
            stop = moving.step()
        if stop.reason is not StopReason.STEP:
            break
    return stop


def _until(moving: _Moving, arguments: argparse.Namespace) -> GuestStop:
    return moving.run_to(moving.debugger.address(arguments.where), None)


def _finish(moving: _Moving, arguments: argparse.Namespace) -> GuestStop:
    moving.debugger.move(moving.cpu)
    frames = moving.debugger.trace().frames
    if len(frames) < 2 or frames[0].cfa is None or frames[1].kind is not FrameKind.CALL or frames[1].doubt:
        raise OrcdbgError("where this function returns to is not known", "`bt` shows what is known of its callers")
    return moving.run_to(frames[1].ip, frames[0].cfa)


def _stops(debugger: Debugger) -> Stops:
    names, guest = debugger.session.names, guest_of(debugger)
    found = sorted(guest.breakpoints, key=lambda one: (one[0] is BreakKind.WRITE, one[1]))
    rows = [(at, size if kind is BreakKind.WRITE else 0) for kind, at, size in found]
    return Stops([(number, at, size, names.describe(at)) for number, (at, size) in enumerate(rows, 1)])


def step(debugger: Debugger, arguments: argparse.Namespace) -> Steps:
    """Runs instructions on the CPU of the selected task."""
    return _steps(debugger, arguments, _step)


def next_(debugger: Debugger, arguments: argparse.Namespace) -> Steps:
    """Runs instructions, a call with all that it does as one."""
    return _steps(debugger, arguments, _next)


def until(debugger: Debugger, arguments: argparse.Namespace) -> Steps:
    """Runs up to an address."""
    return _steps(debugger, arguments, _until)


def finish(debugger: Debugger, arguments: argparse.Namespace) -> Steps:
    """Runs until the function returns."""
    return _steps(debugger, arguments, _finish)


def set_breakpoint(debugger: Debugger, arguments: argparse.Namespace) -> Stops:
    """Sets a hardware breakpoint where an address is given; answers with all of them."""
    if arguments.where:
        guest_of(debugger).set_breakpoint(debugger.address(arguments.where))
    return _stops(debugger)


def watch(debugger: Debugger, arguments: argparse.Namespace) -> Stops:
    """Has the CPUs watch memory; answers with all that is watched."""
    if arguments.size not in (1, 2, 4, 8):
        raise UsageError(f"a CPU cannot watch {arguments.size} bytes", "1, 2, 4 or 8 bytes")
    guest_of(debugger).set_breakpoint(debugger.address(arguments.where), BreakKind.WRITE, arguments.size)
    return _stops(debugger)


def delete(debugger: Debugger, arguments: argparse.Namespace) -> Stops:
    """Forgets one breakpoint or watched memory, or all; answers with what is left."""
    chosen = [stop for stop in _stops(debugger).stops if arguments.number in (None, stop[0])]
    if not chosen and arguments.number is not None:
        raise NotFound("breakpoint", str(arguments.number), "`break` lists them")
    for _, address, size, _ in chosen:
        guest_of(debugger).clear_breakpoint(address, BreakKind.WRITE if size else BreakKind.HARDWARE, size or 1)
    return _stops(debugger)

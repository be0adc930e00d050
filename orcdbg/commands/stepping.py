"""step, next, until, finish, rsi, break, watch, delete, context: what would this code have done from here?"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError, UsageError
from orcdbg.base.sizes import U64
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command
from orcdbg.commands.results import Result
from orcdbg.commands.stepped import Context, Place, Stack, Steps, Stops
from orcdbg.unwind.frame import FrameKind

if TYPE_CHECKING:
    from orcdbg.commands.emulation import Emulation
    from orcdbg.emulation.motions import Motions
    from orcdbg.emulation.stops import Stop

_ASSIGNMENT = re.compile(r"([a-z]\w+)([+-]?)=(.+)")
_STACK_WORDS = 12
_LIMIT_LAST = 1 << 62
Move = Callable[["Emulation", "Motions"], "Stop"]


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trace", action="store_true", help="show every instruction that is run, not only the last")
    parser.add_argument("--skip", action="store_true", help="go past instructions that the emulator does not run")


def _step_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("count", nargs="?", type=int, help="how many instructions; 1 without")
    _run_arguments(parser)
    parser.add_argument("--at", metavar="ADDR|SYMBOL", help="begin anew, as if the selected frame had called this")
    parser.add_argument(
        "--args", nargs="+", metavar="REG=VALUE", default=[], help="begin anew, with these registers; also += and -="
    )
    parser.add_argument("--restart", action="store_true", help="begin anew, at the selected frame")
    parser.add_argument("--frame", type=int, metavar="N", help="begin anew, at frame N, which is selected by that")
    parser.add_argument("--zero", action="store_true", help="take registers that nobody knows as 0")
    parser.add_argument("--text", metavar="image|patched|alternative=N", help="run a patch site with this text")
    parser.add_argument(
        "--site", metavar="ADDR|SYMBOL", help="the site for --text; the next one in the function without"
    )


def _count_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("count", nargs="?", type=int, default=1, help="how many instructions; 1 without")
    _run_arguments(parser)


def _until_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="ADDR|SYMBOL", help="where to stop")
    _run_arguments(parser)


def _back_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("count", nargs="?", type=int, default=1, help="how many instructions; 1 without")


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
            raise UsageError(f"not a register's value: {word}", "REG=VALUE, REG+=N or REG-=N; " + " ".join(REGISTERS))
        name, sign, value = found[1], found[2], _value(debugger, found[3])
        if sign and name not in known:
            raise NotFound("register", name, "its value is not known in this frame, so nothing can be added to it")
        known[name] = (known[name] + (value if sign == "+" else -value) if sign else value) & U64
    return known


def _begin(debugger: Debugger, at: str | None, words: list[str], zero: bool) -> Emulation:
    """A new emulation from the selected frame."""
    from orcdbg.commands.emulation import Emulation, limits
    from orcdbg.emulation.start import called, complete

    frame, pushed = debugger.frame(), dict[int, int]()
    if frame.kind is FrameKind.USER:
        raise OrcdbgError("user code cannot be run: the snapshot's kernel memory is all there is")
    values = debugger.session.register_finder.all(debugger.trace(), frame.index)[-1].values
    known = {name: found.value for name, found in values.items()}
    source = f"frame {frame.index} of task {debugger.task.pid}"
    if at:
        known, pushed = called(known, debugger.address(at))
        source = f"a call from {source}"
    start = complete(_assigned(debugger, known, words), zero, pushed)
    source += f", with {' '.join(words)}" if words else ""
    return Emulation(debugger.session, debugger.task, start, source, limits(debugger.settings))


def _current(debugger: Debugger) -> Emulation:
    """The emulation that goes on, begun at the selected frame if there is none."""
    if debugger.emulation is None:
        debugger.emulation = _begin(debugger, None, [], False)
    return debugger.emulation


def _run(emulation: Emulation, arguments: argparse.Namespace, move: Move) -> Steps:
    """Moves an emulation, and says what was run and where it stands."""
    motions, emulator = emulation.motions, emulation.emulator
    places: list[Place] = []
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
    )


def _note_changes(places: list[Place], emulation: Emulation, latest: dict[str, int]) -> None:
    """Adds to the last place of a trace what its instruction changed."""
    if places:
        last = places[-1]
        places[-1] = Place(last.instruction, last.frame, last.caller, emulation.changes(latest))


def _positive(count: int) -> int:
    if count < 0:
        raise UsageError(f"not a count of instructions: {count}")
    return count


def _step(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    from dataclasses import replace

    is_new = bool(arguments.at or arguments.args or arguments.restart or arguments.frame is not None)
    if arguments.frame is not None:
        debugger.frame_index = debugger.frame(arguments.frame).index
    if is_new or debugger.emulation is None:
        old = debugger.emulation
        new = _begin(debugger, arguments.at, arguments.args, arguments.zero)
        if old is not None:
            new.motions.breakpoints, new.motions.watches = old.motions.breakpoints, old.motions.watches
        debugger.emulation = new
    comparison = None
    if arguments.text:
        from orcdbg.commands.site_versions import compare

        debugger.emulation, comparison = compare(debugger.emulation, debugger, arguments.text, arguments.site)
    elif arguments.site:
        raise UsageError("--site says which site --text is about")
    count = arguments.count if arguments.count is not None else 0 if is_new or arguments.text else 1
    steps = _run(debugger.emulation, arguments, lambda _, motions: motions.run(_positive(count)))
    return replace(steps, comparison=comparison)


def _next(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    return _run(_current(debugger), arguments, lambda _, motions: motions.next(_positive(arguments.count)))


def _until(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    address = debugger.address(arguments.where)
    return _run(_current(debugger), arguments, lambda _, motions: motions.run(_LIMIT_LAST, {address}))


def _finish(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    emulation = _current(debugger)
    frames = emulation.trace().frames
    if len(frames) < 2 or frames[0].cfa is None or frames[1].kind is not FrameKind.CALL:
        raise OrcdbgError("where this function returns to is not known", "`context` shows what is known of its callers")
    caller, cfa = frames[1].ip, frames[0].cfa
    return _run(emulation, arguments, lambda _, motions: motions.finish(caller, cfa))


def _back(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    if debugger.emulation is None:
        raise OrcdbgError("nothing was stepped yet", "`step` begins at the selected frame")
    arguments.trace = arguments.skip = False
    return _run(debugger.emulation, arguments, lambda one, _: one.emulator.back(_positive(arguments.count)))


def _context(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    emulation = _current(debugger)
    trace, registers = emulation.trace(), emulation.emulator.registers()
    changed = emulation.changes(emulation.shown)
    emulation.shown = registers
    words: list[tuple[int, str | None]] = []
    try:
        for at in range(registers["rsp"], registers["rsp"] + 8 * _STACK_WORDS, 8):
            word = int.from_bytes(emulation.emulator.memory.read(at, 8), "little")
            words.append((word, debugger.session.names.describe(word) if debugger.session.is_text(word) else None))
    except MemoryFault:
        pass  # the stack ends here
    place, code = emulation.place(changed, trace), emulation.around(4, 6)
    return Context(place, code, registers, Stack(registers["rsp"], words), trace, emulation.emulator.executed)


def _stops(debugger: Debugger) -> Stops:
    motions, names = _current(debugger).motions, debugger.session.names
    pairs = [(address, 0) for address in sorted(motions.breakpoints)] + motions.watches
    return Stops([(number, at, size, names.describe(at)) for number, (at, size) in enumerate(pairs, 1)])


def _break_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", nargs="?", metavar="ADDR|SYMBOL", help="where to stop; lists what there is without")


def _break(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    if arguments.where:
        _current(debugger).motions.breakpoints.add(debugger.address(arguments.where))
    return _stops(debugger)


def _watch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="ADDR|SYMBOL", help="the memory to watch")
    parser.add_argument("size", nargs="?", type=int, default=8, help="how many bytes; 8 without")


def _watch(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    address = debugger.address(arguments.where)
    if not 0 < arguments.size <= 4096:
        raise UsageError(f"not a size that can be watched: {arguments.size}", "1 to 4096 bytes")
    emulation = _current(debugger)
    emulation.emulator.memory.read(address, arguments.size)
    emulation.motions.watches.append((address, arguments.size))
    return _stops(debugger)


def _delete_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", nargs="?", type=int, help="which, as `break` numbers them; all without")


def _delete(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    motions, stops = _current(debugger).motions, _stops(debugger).stops
    if arguments.number is None:
        motions.breakpoints, motions.watches = set(), []
        return _stops(debugger)
    found = next((one for one in stops if one[0] == arguments.number), None)
    if found is None:
        raise NotFound("breakpoint", str(arguments.number), "`break` lists them")
    _, address, size, _ = found
    if size:
        motions.watches.remove((address, size))
    else:
        motions.breakpoints.discard(address)
    return _stops(debugger)


COMMANDS = (
    Command(
        "step",
        "run instructions on a copy of the snapshot, from the selected frame on",
        "stepping",
        _step,
        _step_arguments,
        aliases=("si", "stepi"),
        examples=(
            ("step 3 --trace", "three instructions, each with its rule, CFA and caller"),
            ("step --at schedule --zero", "at the entry of a function, as if the selected frame had called it"),
            ("step 9 --trace --text image", "the next patch site as it was built, and what that does to the stack"),
        ),
        operands=("symbol",),
    ),
    Command(
        "next",
        "run instructions, a call with all that it does as one",
        "stepping",
        _next,
        _count_arguments,
        aliases=("ni", "nexti"),
    ),
    Command("until", "run up to an address", "stepping", _until, _until_arguments, operands=("symbol",)),
    Command("finish", "run until the function returns", "stepping", _finish, _run_arguments, aliases=("fin",)),
    Command(
        "rsi",
        "go back by instructions",
        "stepping",
        _back,
        _back_arguments,
        aliases=("reverse-stepi",),
        examples=(("rsi 100", "the state a hundred instructions ago"),),
    ),
    Command(
        "break",
        "stop runs at an address, or list where they stop",
        "stepping",
        _break,
        _break_arguments,
        aliases=("b",),
        operands=("symbol",),
    ),
    Command("watch", "stop runs when memory changes", "stepping", _watch, _watch_arguments, operands=("symbol",)),
    Command("delete", "forget a breakpoint or watched memory", "stepping", _delete, _delete_arguments),
    Command("context", "show code, registers, stack and callers of what is stepped", "stepping", _context),
)

"""Local variables and source lines of stacks as drgn has them, compared with ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from orcdbg.commands.lines import lookup, positions_of
from orcdbg.target.session import Session
from orcdbg.typed.objects import Absent, Immediate, InMemory
from orcdbg.unwind.frame import FrameKind, StackTrace
from orcdbg.variables.local_variables import Variable


def frames_of(stack: Any) -> Iterator[tuple[int, list[Any]]]:
    """drgn's frames by address: a function with those that are inlined there, which drgn shows as frames of their own."""
    group: list[Any] = []
    for frame in stack:
        group.append(frame)
        if not frame.is_inline:
            yield frame.pc, group
            group = []


def compare(ours: Variable, theirs: Any, counts: Counter[str]) -> Iterator[str]:
    """Counts how a variable is known to both; yields contradictions."""
    place = ours.object.place_
    if theirs.absent_ or isinstance(place, Absent):
        known = (not isinstance(place, Absent), not theirs.absent_)
        counts[{(True, False): "more", (False, True): "missing", (False, False): "absent"}[known]] += 1
        if known == (False, True):
            assert isinstance(place, Absent)
            print(f"missing: {ours.function} {ours.name}: {place.why}")
        return
    counts["values"] += 1
    if theirs.address_ is not None:
        if not isinstance(place, InMemory) or place.address != theirs.address_:
            yield f"{ours.function} {ours.name}: {place}, not at {theirs.address_:#x}"
    elif not isinstance(place, Immediate) or place.data != theirs.to_bytes_():
        yield f"{ours.function} {ours.name}: {place}, not {theirs.to_bytes_()!r}"


def compared_stack(session: Session, trace: StackTrace, stack: Any, counts: Counter[str]) -> Iterator[str]:
    """All variables of the frames that both have."""
    variables = session.local_variables.of(trace)
    by_address = {(pc, number): group for number, (pc, group) in enumerate(frames_of(stack))}
    for frame in trace.frames:
        group = by_address.get((frame.ip, frame.index))
        if group is None or frame.kind is FrameKind.USER:
            continue
        counts["frames"] += 1
        left = variables.of_frame(frame.index)
        for part in group:
            # Of several of one name drgn gives the innermost, which is our first.
            for name in dict.fromkeys(part.locals()):
                mine = next((each for each in left if (each.name, each.function) == (name, part.name)), None)
                if mine is None:
                    yield f"{part.name} {name}: not there"
                    continue
                left.remove(mine)
                yield from compare(mine, part[name], counts)


def compared_lines(session: Session, trace: StackTrace, stack: Any, counts: Counter[str]) -> Iterator[str]:
    """Source lines of the module frames that both have, with the functions inlined there."""
    by_index = {number: group for number, (_, group) in enumerate(frames_of(stack))}
    for frame in trace.frames:
        group = by_index.get(frame.index)
        if group is None or frame.location is None or frame.location.module is None or group[-1].pc != frame.ip:
            continue
        position = positions_of(session, [lookup(frame)])[0].get(lookup(frame))
        if position is None or position.function_line is None:
            yield f"{frame.location.symbol}: no position"
            continue
        ours = [(each.at.file, each.at.line) for each in position.inlined if each.at is not None]
        ours.append((position.function_line.file, position.function_line.line))
        theirs = [part.source() for part in group]
        counts["lines"] += len(ours)
        if len(ours) != len(theirs):
            yield f"{frame.location.symbol}: {ours}, not {theirs}"
            continue
        for (file, line), source in zip(ours, theirs, strict=True):
            if line != source.line or not (source.filename.endswith(file) or file.endswith(source.filename)):
                yield f"{frame.location.symbol}: {file}:{line}, not {source}"

"""How do many stacks leave piece by piece, and equal ones at the price of what differs in them?

Of stacks that came the same way the first is written as any other; what follows from it for the others is a pattern with
the addresses left open. The second is written both ways, and the pattern is kept only if they agree.
"""

from __future__ import annotations

import abc
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from orcdbg.commands.lines import lookup
from orcdbg.commands.stacks import Stacks
from orcdbg.unwind.batch.equal_stacks import EqualStacks, Level, SharedFrames
from orcdbg.unwind.frame import End, Frame, StackTrace
from orcdbg.views import stacks
from orcdbg.views.page import Line, plain, problem_lines
from orcdbg.views.stacks import frame_json, stack_json

_HOLE = "\0"  # stands in JSON for what is left open; no name from a file has one


class _Pattern(NamedTuple):
    """Text with numbers left open, `before` and `after` the user's part.

    `holes` says what fills them: distances from the stack's end, and None for the next frame's rbp.
    """

    before: str
    after: str
    holes: tuple[int | None, ...]

    def fill(self, frames: SharedFrames) -> str:
        """`before` with the numbers of one stack."""
        top, bps = frames.top, iter(frames.bps() if None in self.holes else ())
        return self.before % tuple([next(bps) if hole is None else top + hole for hole in self.holes])


class _Writer(abc.ABC):
    """Writes the stacks of a result, equal ones by a pattern that the second of them proved."""

    def __init__(self, result: Stacks) -> None:
        self._syscalls = result.syscalls
        self.result = result
        self.positions = result.positions
        self.patterns: dict[EqualStacks, _Pattern] = {}
        self.proved: dict[EqualStacks, bool] = {}

    def text(self, trace: StackTrace) -> str:
        """One stack."""
        frames, syscall = trace.frames, self._syscalls.get(trace.task)
        if not isinstance(frames, SharedFrames) or self.result.words or self.result.variables:
            # No two stacks have the same words and variables.
            return self.whole(trace, syscall)
        shape = frames.shape
        if self.proved.get(shape):
            return self.by_pattern(self.patterns[shape], trace, frames, syscall)
        text = self.whole(trace, syscall)
        if shape not in self.patterns:
            self.patterns[shape] = self.pattern(trace, frames, syscall, text)
        elif shape not in self.proved:
            self.proved[shape] = self.by_pattern(self.patterns[shape], trace, frames, syscall) == text
        return text

    @abc.abstractmethod
    def whole(self, trace: StackTrace, syscall: str | None) -> str:
        """A stack on its own."""

    @abc.abstractmethod
    def pattern(self, trace: StackTrace, frames: SharedFrames, syscall: str | None, text: str) -> _Pattern:
        """What follows for its equals from a stack whose text is `text`."""

    @abc.abstractmethod
    def by_pattern(self, pattern: _Pattern, trace: StackTrace, frames: SharedFrames, syscall: str | None) -> str:
        """The same as `whole`, from the pattern."""


class TextWriter(_Writer):
    """Stacks for people, without colour and of any width."""

    def lines(self, trace: StackTrace, syscall: str | None) -> Iterator[Line]:
        """All lines of a stack."""
        return stacks.trace_lines(trace, self.result, None)

    def header(self, trace: StackTrace) -> Line:
        """The first of them."""
        return stacks.header(trace)

    def user_lines(self, frame: Frame, syscall: str | None) -> Iterable[Line]:
        """Those of the user's frame."""
        return [stacks.user_line(frame, syscall)]

    def whole(self, trace: StackTrace, syscall: str | None) -> str:
        """Its lines."""
        return plain(self.lines(trace, syscall))

    def pattern(self, trace: StackTrace, frames: SharedFrames, syscall: str | None, text: str) -> _Pattern:
        """Without its header and its user's line, the addresses of its stack left open."""
        body = text.removeprefix(plain([self.header(trace)])).replace("%", "%%")
        user = self._user_text(trace, syscall).replace("%", "%%")
        before, _, after = body.partition(user) if user else (body, "", "")
        top, shape = frames.top, frames.shape
        distances = [shape.start, *(distance for level in shape.levels for distance in _distances(level))]
        places = {f"{top + distance:016x}": distance for distance in distances}
        found: list[int] = []

        def leave_open(match: re.Match[str]) -> str:
            found.append(places[match[0]])
            return "%016x"

        before = re.sub("|".join(places), leave_open, before)
        return _Pattern(before, after.replace("%%", "%"), tuple(found))

    def by_pattern(self, pattern: _Pattern, trace: StackTrace, frames: SharedFrames, syscall: str | None) -> str:
        """Its own header and user's line around the others' frames."""
        body, user = pattern.fill(frames), self._user_text(trace, syscall)
        return f"{plain([self.header(trace)])}{body}{user}{pattern.after}"

    def _user_text(self, trace: StackTrace, syscall: str | None) -> str:
        return plain(self.user_lines(trace.frames[-1], syscall)) if trace.end is End.USER else ""


def _distances(level: Level) -> list[int]:
    distances = (level.came_from, level.sp, level.cfa, level.return_slot)
    return [distance for distance in distances if distance is not None]


class JsonWriter(_Writer):
    """Stacks of the contract."""

    def whole(self, trace: StackTrace, syscall: str | None) -> str:
        """Its object."""
        return json.dumps(stack_json(trace, self.result), ensure_ascii=True)

    def pattern(self, trace: StackTrace, frames: SharedFrames, syscall: str | None, text: str) -> _Pattern:
        """The frames alone, that of the user not among them."""
        written, holes = [], list[int | None]()
        for frame, level in zip(frames, frames.shape.levels, strict=False):
            fields = frame_json(frame, self.positions.get(lookup(frame)))
            open_fields: Mapping[str, int | None] = {
                "sp": level.sp, "bp": None, "cfa": level.cfa, "return_slot": level.return_slot
            }  # fmt: skip
            for name, distance in open_fields.items():
                if fields[name] is not None:
                    fields[name] = _HOLE
                    holes.append(distance)
            written.append(json.dumps(fields, ensure_ascii=True).replace("%", "%%"))
        return _Pattern(", ".join(written).replace(json.dumps(_HOLE), '"%#x"'), "", tuple(holes))

    def by_pattern(self, pattern: _Pattern, trace: StackTrace, frames: SharedFrames, syscall: str | None) -> str:
        """Its own fields, and user's frame, around the others' frames."""
        written = pattern.fill(frames)
        if frames.shape.ends_in_user:
            user = frames[-1]
            written += ", " + json.dumps(frame_json(user, self.positions.get(lookup(user))), ensure_ascii=True)
        whole = json.dumps(stack_json(trace, self.result, [_HOLE]), ensure_ascii=True)
        head, _, tail = whole.partition(json.dumps([_HOLE]))
        return f"{head}[{written}]{tail}"


def text_pieces(writer: TextWriter, result: Stacks) -> Iterator[str]:
    """The text of stacks without colour, a stack a piece, then what could not be read."""
    for index, trace in enumerate(result.stacks):
        yield ("\n" if index else "") + writer.text(trace)
    yield plain(stacks.left_out_lines(result))
    yield plain(problem_lines(result.problems))


def json_pieces(result: Stacks) -> Iterator[str]:
    """The JSON of STACKS, a stack a piece."""
    others = {"idle_cpus": list(result.idle_cpus), "problems": list(result.problems)}
    head, _, tail = json.dumps({"stacks": [], **others}, ensure_ascii=True).partition("[]")
    yield head + "["
    writer = JsonWriter(result)
    for index, trace in enumerate(result.stacks):
        yield (", " if index else "") + writer.text(trace)
    yield "]" + tail

"""What leaves piece by piece is what would have left as a whole."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.stacks import Stacks
from orcdbg.unwind.batch.equal_stacks import SharedFrames
from orcdbg.views.as_json import envelope, json_pieces
from orcdbg.views.as_text import lines_of, text_pieces
from orcdbg.views.page import plain
from orcdbg.views.stack_pieces import JsonWriter, TextWriter


def all_stacks(debugger: Debugger, registry: Registry) -> Stacks:
    """`foreach bt`, each stack three times, so that patterns are made, proved and used."""
    result = registry.run(debugger, "foreach bt")
    assert isinstance(result, Stacks)
    return replace(result, stacks=[*result.stacks] * 3, problems=['% "stacks": [] %s'])


@pytest.mark.parametrize("command", ["foreach bt", "bt", "bt -a", "ps", "sys", "patch at schedule"])
def test_pieces_join_to_the_whole(command: str, debugger: Debugger, registry: Registry) -> None:
    """Text of any width, and JSON to the last byte."""
    result = registry.run(debugger, command)
    for width in (None, 70):
        assert "".join(text_pieces(result, width)) == plain(lines_of(result, width))
    assert "".join(json_pieces(command, result)) == json.dumps(envelope(command, result)) + "\n"


def test_equal_stacks_written_by_pattern_read_as_if_written_alone(debugger: Debugger, registry: Registry) -> None:
    """Header, addresses, rbps, user registers and system calls are each stack's own."""
    result = all_stacks(debugger, registry)
    assert "".join(text_pieces(result, None)) == plain(lines_of(result, None))
    assert "".join(json_pieces("%s", result)) == json.dumps(envelope("%s", result)) + "\n"


@pytest.mark.parametrize("kind", [TextWriter, JsonWriter])
def test_patterns_are_proved_and_used(
    kind: type[TextWriter | JsonWriter], debugger: Debugger, registry: Registry
) -> None:
    """Every shape of the sample that two stacks have is written by its pattern."""
    result = all_stacks(debugger, registry)
    writer = kind(result)
    for trace in result.stacks:
        writer.text(trace)
    shapes = {trace.frames.shape for trace in result.stacks if isinstance(trace.frames, SharedFrames)}
    assert len(shapes) > 3
    assert set(writer.proved) == set(writer.patterns) == shapes
    assert all(writer.proved.values())


def test_a_pattern_that_does_not_hold_is_not_used(debugger: Debugger, registry: Registry) -> None:
    """A view that shows something that the pattern does not leave open: the second stack's text is its own, and later ones'."""

    class Forgetful(TextWriter):
        def whole(self, trace, syscall):  # type: ignore[no-untyped-def]
            return super().whole(trace, syscall) + f"{trace.pid}\n"

    result = all_stacks(debugger, registry)
    writer = Forgetful(result)
    assert all(writer.text(trace).endswith(f"\n{trace.pid}\n") for trace in result.stacks)
    assert not all(writer.proved.values())

"""info, thread, disassemble and where, over the sample."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.dis import Disassembly
from orcdbg.commands.info import SourcePlace
from orcdbg.commands.registry import Registry
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ("info registers", "regs"),
        ("i r", "regs"),
        ("info frame 6", "frame 6"),
        ("info symbol schedule", "sym schedule"),
        ("info threads", "ps -A"),
        ("info stack", "bt"),
        ("where", "bt"),
        ("backtrace 1", "bt 1"),
    ],
)
def test_gdbs_questions_are_answered_by_the_command_for_them(
    registry: Registry, debugger: Debugger, asked: str, same: str
) -> None:
    """Word by word."""
    assert encode(registry.run(debugger, asked)) == encode(registry.run(debugger, same))


def test_a_line_of_the_source_says_why_it_is_not_known(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """The sample has no DWARF; by default it is about the selected frame."""
    found = registry.run(debugger, "info line *schedule+4")
    assert isinstance(found, SourcePlace)
    assert found.address == sample.linux.address("schedule") + 4
    assert "no debugging information" in found.problems[0]
    frame = registry.run(debugger, "info line")
    assert isinstance(frame, SourcePlace)
    assert frame.address == debugger.frame().ip
    with pytest.raises(UsageError):
        registry.run(debugger, "info weather")


def test_threads_are_cpus_by_gdbs_count(registry: Registry, debugger: Debugger) -> None:
    """From one on; a number that is no CPU's says so."""
    first = debugger.task
    assert encode(registry.run(debugger, "thread -t 1"))["pid"] == 1
    assert encode(registry.run(debugger, "thread 1"))["task"] == f"{first.address:#x}"
    assert encode(registry.run(debugger, "thread"))["cpu"] == 0
    for wrong, error in (("thread 0", UsageError), ("thread x", UsageError), ("thread 9000", NotFound)):
        with pytest.raises(error):
            registry.run(debugger, wrong)


def test_disassemble_shows_whole_functions_and_ranges(registry: Registry, debugger: Debugger) -> None:
    """The selected frame's with an arrow at its ip."""
    whole, expected = registry.run(debugger, "disassemble schedule+8"), registry.run(debugger, "dis schedule")
    assert isinstance(whole, Disassembly)
    assert isinstance(expected, Disassembly)
    assert whole.instructions == expected.instructions
    range_ = registry.run(debugger, "disas schedule,+8")
    assert isinstance(range_, Disassembly)
    assert range_.instructions == [
        line for line in expected.instructions if line.offset is not None and line.offset < 8
    ]
    text = plain(lines_of(registry.run(debugger, "disassemble"), None))
    arrows = [line for line in text.splitlines() if line[1] == ">"]
    assert [f"{debugger.frame().ip:016x}" in line for line in arrows] == [True]
    for wrong in ("disas /z schedule", "disas schedule,+x", "disas schedule,schedule"):
        with pytest.raises(UsageError):
            registry.run(debugger, wrong)

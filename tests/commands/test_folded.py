"""bt --folded and --speedscope: every stack once, with the number of its tasks, as programs read it."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.folded import FoldedFrame, FoldedStack, FoldedStacks, SpeedscopeStacks
from orcdbg.commands.registry import Registry
from orcdbg.commands.stacks import Stacks
from orcdbg.unwind.frame import FrameKind
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import text_pieces

HOSTILE = FoldedStacks(
    [
        FoldedStack("a;b c\x1b", [FoldedFrame("f", "mod", 16, True), FoldedFrame(None, None, 0x20, False)], 3),
        FoldedStack("x", [FoldedFrame("f", "mod", 16, True)], 1),
    ],
    ["cut short at 7"],
)


def shown(result: FoldedStacks | SpeedscopeStacks) -> str:
    """The text, whatever the terminal's width."""
    text = "".join(text_pieces(result, None))
    assert "".join(text_pieces(result, 20)) == text
    return text


def test_all_tasks_are_counted(debugger: Debugger, registry: Registry) -> None:
    """The same functions are one stack, whatever the offsets; the innermost one is last."""
    stacks = registry.run(debugger, "foreach bt")
    assert isinstance(stacks, Stacks)
    expected: Counter[str] = Counter()
    for trace in stacks.stacks:
        names = [f.location.symbol for f in trace.frames if f.kind is not FrameKind.USER and f.location is not None]
        expected[";".join([trace.comm, *reversed(names)])] += 1

    result = registry.run(debugger, "foreach bt --folded")
    assert isinstance(result, FoldedStacks)
    lines = [line.rpartition(" ") for line in shown(result).splitlines()]
    assert {names: int(count) for names, _, count in lines} == expected
    assert sum(expected.values()) == 42
    assert lines[0][0].startswith("sleep;entry_SYSCALL_64_after_hwframe;do_syscall_64;")


def test_doubt_and_separators(debugger: Debugger, registry: Registry) -> None:
    """A frame in doubt has the kernel's own mark; no name holds a separator or a control character."""
    assert shown(HOSTILE) == "a\\x3bb c\\x1b;f [mod];? 0x20 3\nx;f [mod] 1\n! cut short at 7.\n"


def test_speedscope(debugger: Debugger, registry: Registry) -> None:
    """A sampled profile: each stack weighs its tasks, and names are numbered."""
    found = json.loads(shown(SpeedscopeStacks(HOSTILE)))
    assert found == encode(SpeedscopeStacks(HOSTILE))
    assert found["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert [frame["name"] for frame in found["shared"]["frames"]] == ["a\\x3bb c\\x1b", "f [mod]", "? 0x20", "x"]
    profile = found["profiles"][0]
    assert (profile["type"], profile["samples"], profile["weights"]) == ("sampled", [[0, 1, 2], [3, 1]], [3, 1])
    assert (profile["startValue"], profile["endValue"]) == (0, 4)

    of_sample = registry.run(debugger, "foreach UN bt --speedscope")
    assert encode(of_sample)["shared"]["frames"][0] == {"name": "s_vfork"}


@pytest.mark.parametrize("line", ["bt --folded --speedscope", "bt --folded --locals"])
def test_what_does_not_go_together(debugger: Debugger, registry: Registry, line: str) -> None:
    """It is refused."""
    with pytest.raises(UsageError):
        registry.run(debugger, line)

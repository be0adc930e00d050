"""kmem and search over the sample, which has little memory besides stacks: what is there is told, what is not is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.made_kernel_memory import RESULTS

Json = dict[str, Any]


def shown(registry: Registry, debugger: Debugger, command: str) -> str:
    """A command's text."""
    return plain(lines_of(registry.run(debugger, command), None))


def findings(registry: Registry, debugger: Debugger, command: str) -> dict[str, Json]:
    """The findings of one address, by their kinds."""
    answer = encode(registry.run(debugger, command))
    json.dumps(answer)
    return {finding["kind"]: finding for finding in answer["addresses"][0]["findings"]}


def test_text_has_its_symbol_section_and_patched_place(registry: Registry, debugger: Debugger) -> None:
    """The first instruction of a function is ftrace's."""
    found = findings(registry, debugger, "kmem schedule+2")
    assert (found["symbol"]["symbol"], found["symbol"]["offset"], found["symbol"]["section"]) == (
        "schedule",
        2,
        ".text",
    )
    assert found["symbol"]["text"] is True
    assert (found["patch"]["mechanism"], found["patch"]["size"]) == ("ftrace", 5)
    assert found["region"]["region"] == "image"
    assert "patched: ftrace off" in shown(registry, debugger, "kmem schedule+2")


def test_a_stack_names_its_task(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """By any address on it."""
    task = sample.tasks[3]
    found = findings(registry, debugger, f"kmem {task.stack + 0x3FF0:x}")
    assert (found["stack"]["stack"], found["stack"]["pid"], found["stack"]["comm"]) == ("task", task.pid, task.comm)


def test_what_is_not_mapped_says_at_which_level(registry: Registry, debugger: Debugger) -> None:
    """And that it is in no area."""
    found = findings(registry, debugger, "kmem ffffc80000000000")
    assert found["region"]["physical"] is None
    assert "entry is not present" in found["region"]["why"]


def test_what_the_snapshot_lacks_is_a_line_and_no_failure(registry: Registry, debugger: Debugger) -> None:
    """The sample has no struct page."""
    assert "not in the snapshot" in findings(registry, debugger, "kmem init_task")["problem"]["what"]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("kmem", UsageError),
        ("kmem no_such_symbol", NotFound),
        ("kmem -S", UsageError),
        ("kmem -s no_such_cache", OrcdbgError),
        ("kmem --limit 0 schedule", UsageError),
        ("kmem -i -s", UsageError),
        ("search -c", UsageError),
        ("search -c ''", UsageError),
        ("search -c -m ff text", UsageError),
        ("search -w 123456789", UsageError),
        ("search -s ffffffff81000000 -e ffffffff80000000 1", UsageError),
        ("search -u -s ffffffff81000000 1", UsageError),
        ("search -s schedule -l ten 1", UsageError),
        ("search --limit 0 1", UsageError),
        ("rd -u 400000", OrcdbgError),
        ("vtop -u ffffffff81000000", UsageError),
    ],
)
def test_what_is_no_question_is_refused(
    registry: Registry, debugger: Debugger, command: str, error: type[OrcdbgError]
) -> None:
    """In one sentence."""
    with pytest.raises(error):
        registry.run(debugger, command)


def test_a_search_of_all_memory_finds_what_memory_has(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """Every place of a text, by physical address, up to the limit."""
    answer = encode(registry.run(debugger, "search -p -c 'Linux version'"))
    places = [int(hit["address"], 16) for hit in answer["hits"]]
    assert places == sorted(places)
    banner = sample.memory.translate(sample.linux.address("linux_banner"))
    assert banner in places
    assert all(sample.snapshot.physical.read(place, 13) == b"Linux version" for place in places)
    assert len(encode(registry.run(debugger, "search -p 0 --limit 3"))["hits"]) == 3
    assert encode(registry.run(debugger, "search -p 0 --limit 3"))["whole"] is False


def test_a_search_of_a_range_stays_in_it(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """And names the symbols of what it finds."""
    answer = encode(registry.run(debugger, "search -s linux_banner -l 64 -c version"))
    assert [hit["symbol"].partition("+")[0] for hit in answer["hits"]] == ["linux_banner"]
    text = shown(registry, debugger, "search -s linux_banner -l 64 -c version")
    assert "linux_banner+0x6/" in text


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_each_shape_of_answer_has_a_text(name: str) -> None:
    """Without control bytes, whatever names memory gives."""
    text = plain(lines_of(RESULTS[name], None))
    assert text.strip()
    assert text.isascii()

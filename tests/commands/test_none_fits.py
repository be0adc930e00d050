"""A question that nothing fits has an answer; a name of nothing is an error."""

from __future__ import annotations

import json

import pytest

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.conftest import RunProgram


@pytest.mark.parametrize(
    ("line", "text", "key"),
    [
        ("foreach ZO bt", "0 tasks", "stacks"),
        ("foreach ZO bt --group", "0 tasks", "groups"),
        ("foreach ZO bt -R schedule", "0 tasks", "stacks"),
        ("foreach ZO ps", "0 tasks", "tasks"),
        ("foreach ZO files", "0 tasks", "tasks"),
        ("foreach ZO vm", "0 tasks", "tasks"),
        ("foreach ZO sig", "0 tasks", "tasks"),
        ("foreach ZO task", "0 tasks", "tasks"),
        ("foreach kernel user bt", "0 tasks", "stacks"),
        ("foreach 'no.*such' bt", "0 tasks", "stacks"),
        ("ps -k -u", "0 tasks", "tasks"),
        ("ps 'no.*such'", "0 tasks", "tasks"),
        ("ps -k 135", "0 tasks", "tasks"),
        ("bt -R kernel_clone", "0 stacks", "stacks"),
        ("bt --has kernel_clone", "0 stacks", "stacks"),
        ("sym -q nothing_is_called_so", "0 symbols", "symbols"),
        ("files -R nothing_is_called_so", "0 open files", "tasks"),
        ("foreach user files -R nothing_is_called_so", "0 open files", "tasks"),
        ("irq -u", "0 interrupts with a handler", "interrupts"),  # the sample lacks their tree
        ("irq", "0 interrupts", "interrupts"),
    ],
)
def test_what_nothing_fits_is_answered_with_none(
    debugger: Debugger, registry: Registry, line: str, text: str, key: str
) -> None:
    """The text counts none, the JSON is the command's own with an empty list."""
    result = registry.run(debugger, line)
    assert plain(lines_of(result, None)).splitlines()[0] == text
    assert encode(result)[key] == []
    assert result.exit_status == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ps 99999", "no such task: 99999"),
        ("ps 135 99999", "no such task: 99999"),
        ("ps nosuch", "no such task: nosuch"),
        ("ps ffff888000000000", "no such task: ffff888000000000"),
        ("foreach nosuch bt", "no such task: nosuch"),
        ("foreach cat 99999 bt", "no such task: 99999"),
        ("task 99999", "no such task: 99999"),
        ("files 99999", "no such task: 99999"),
        ("vm 99999", "no such task: 99999"),
        ("sig 99999", "no such task: 99999"),
        ("net -n 99999", "no such task: 99999"),
        ("mount -n 99999", "no such task: 99999"),
        ("waits 99999", "no such task: 99999"),
        ("locks 99999", "no such task: 99999"),
        ("gcore 99999", "no such task: 99999"),
        ("bt nosuch", "no such task: nosuch"),
        ("set nosuch", "no such task: nosuch"),
        ("vm nosuch", "no such task: nosuch"),
        ("frame 99", "no such frame: 99 of task 135 cat"),
        ("bt --why 99 1", "no such frame: 99 of task 1 init"),
        ("bt -R nosuch", "no such symbol or address: nosuch"),
        ("bt --has nosuch", "no such symbol or address: nosuch"),
        ("foreach bt -R nosuch", "no such symbol or address: nosuch"),
        ("bt -c 99", "no such CPU: 99"),
        ("irq -c 99", "no such CPU: 99"),
        ("timer -C 99", "no such CPU: 99"),
        ("runq -c 99", "no such CPU: 99"),
        # The sample lacks nodes of the tree of interrupts.
        ("irq 99999", "no such interrupt among those that can be read: 99999"),
        ("mod -s nosuch", "no such module: nosuch"),
        ("sym -m nosuch", "no such module: nosuch"),
        ("sym nosuch_symbol", "no such symbol or address: nosuch_symbol"),
    ],
)
def test_what_does_not_exist_is_an_error(orcdbg_run: RunProgram, line: str, message: str) -> None:
    """Of status 1, in one line that names it."""
    status, out, err = orcdbg_run("demo", "-e", line)
    assert (status, out) == (1, "")
    assert err.splitlines()[0] == f"orcdbg: {line.split()[0]}: {message}"


def test_json_says_that_there_are_none_and_that_it_went_well(orcdbg_run: RunProgram) -> None:
    """As of any other answer."""
    status, out, _ = orcdbg_run("demo", "--format", "json", "-e", "foreach ZO bt")
    answer = json.loads(out)
    assert (status, answer["ok"], answer["result"]["stacks"]) == (0, True, [])


def test_a_task_is_named_by_its_address_as_it_is_printed(debugger: Debugger, registry: Registry) -> None:
    """With `0x` or as 16 digits, in `ps` and in `foreach`."""
    address = debugger.task.address
    for word in (f"{address:x}", f"{address:#x}"):
        assert encode(registry.run(debugger, f"ps {word}"))["tasks"][0]["pid"] == 135
        assert encode(registry.run(debugger, f"foreach {word} bt"))["stacks"][0]["pid"] == 135


@pytest.mark.parametrize("line", ["bt cat", "set cat", "vtop -c cat 0"])
def test_a_name_in_a_pids_place_is_answered_with_the_pids(debugger: Debugger, registry: Registry, line: str) -> None:
    """Which of the tasks is meant is not guessed, even where there is one."""
    with pytest.raises(UsageError, match="a pid or a task's address is needed, not a name: cat") as refused:
        registry.run(debugger, line)
    assert refused.value.hint == "tasks called cat: 33, 36, 39, 135"


@pytest.mark.parametrize("line", ["log -l 8", "log 8", "log -l -1", "log loud"])
def test_a_level_that_there_is_not_is_refused_with_those_that_there_are(
    debugger: Debugger, registry: Registry, line: str
) -> None:
    """Not taken for one that all records fit."""
    with pytest.raises(UsageError) as refused:
        registry.run(debugger, line)
    assert "0 to 7, or one of emerg, alert, crit, err, warn, notice, info, debug" in (refused.value.hint or "")


def test_the_end_of_a_stack_is_named_with_its_task(debugger: Debugger, registry: Registry) -> None:
    """`up` and `down` say which frame it is, and whose."""
    with pytest.raises(OrcdbgError, match="already at frame 0, the innermost of task 135 cat"):
        registry.run(debugger, "down")
    registry.run(debugger, "up 99")
    with pytest.raises(OrcdbgError, match="already at frame 15, the outermost of task 135 cat"):
        registry.run(debugger, "up")

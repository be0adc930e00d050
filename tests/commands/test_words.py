"""Crash's words, on the sample and on answers that are made: each has text and JSON, and says what it cannot read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.list import ListNodes
from orcdbg.commands.ps import TaskSummary
from orcdbg.commands.registry import Registry
from orcdbg.commands.task import TaskStructures
from orcdbg.commands.tree import TreeEntries
from orcdbg.views.as_json import encode, json_pieces
from orcdbg.views.as_text import lines_of, text_pieces
from orcdbg.views.page import plain
from tests.build.answers import RESULTS, made
from tests.conftest import RunProgram


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("result_type", RESULTS, ids=lambda found: found.__name__)
def test_an_answer_says_the_same_to_people_and_to_programs(result_type: type) -> None:
    """Its problems, and whatever has a name, are in the text and in the JSON; the JSON is JSON."""
    result = made(result_type)
    shown, told = plain(lines_of(result, None)), encode(result)
    assert json.loads(json.dumps(told)) == told
    assert "a word" in shown
    assert "a word" in _texts(told)
    if hasattr(result, "problems"):
        assert "! a word\n" in shown
        assert told["problems"] == ["a word"]


def test_a_list_shows_its_structures_with_the_members_that_are_asked_for(
    debugger: Debugger, registry: Registry
) -> None:
    """The task list, whose head is a task as well: the same tasks as `ps` has, in the same order."""
    result = registry.run(debugger, "list task_struct.tasks -h init_task -s task_struct.pid,comm")
    assert isinstance(result, ListNodes)
    leaders = [task for task in debugger.session.tasks if task.tgid == task.pid]
    assert [node["values"] for node in encode(result)["nodes"]] == [
        {"pid": task.pid, "comm": task.comm} for task in leaders
    ]
    assert result.broken is None
    assert not result.problems


def test_a_list_is_the_same_backwards(debugger: Debugger, registry: Registry) -> None:
    """By prev, with the head first in both."""
    forward = registry.run(debugger, "list -h init_task -o task_struct.tasks")
    backward = registry.run(debugger, "list -h init_task -o task_struct.tasks -r")
    assert isinstance(forward, ListNodes)
    assert isinstance(backward, ListNodes)
    assert [node.address for node in backward.nodes[1:]] == [node.address for node in forward.nodes[:0:-1]]


def test_a_list_with_a_head_of_its_own_does_not_show_the_head(debugger: Debugger, registry: Registry) -> None:
    """`-H VARIABLE.MEMBER` gives all tasks but the one that the head is in; --limit says that there are more."""
    whole = registry.run(debugger, "list -H init_task.tasks -o task_struct.tasks")
    cut = registry.run(debugger, "list -H init_task.tasks -o task_struct.tasks --limit 2")
    assert isinstance(whole, ListNodes)
    assert isinstance(cut, ListNodes)
    assert [node.address for node in whole.nodes][:2] == [node.address for node in cut.nodes]
    assert (whole.is_cut, cut.is_cut) == (False, True)
    assert debugger.session.linux.address("init_task") not in [node.address for node in whole.nodes]


@pytest.mark.parametrize(
    "expression",
    [
        "&init_task.tasks",
        "(&init_task.tasks)",
        "&((struct task_struct *) &init_task)->tasks",
        "&(&init_task)->tasks",
        "init_task.tasks.prev->next",
    ],
)
def test_an_expression_leads_to_a_list(debugger: Debugger, registry: Registry, expression: str) -> None:
    """A pointer to the head, with arrows and blanks in it, is the head that its symbol and member name."""
    named = registry.run(debugger, "list -H init_task.tasks -o task_struct.tasks")
    computed = registry.run(debugger, f"list -H {expression} -o task_struct.tasks")
    assert isinstance(named, ListNodes)
    assert isinstance(computed, ListNodes)
    assert [node.address for node in computed.nodes] == [node.address for node in named.nodes] != []


def test_an_expression_leads_to_a_tree(debugger: Debugger, registry: Registry) -> None:
    """Of what it points to, or of where the structure is that it means."""
    address = debugger.session.linux.address("init_pid_ns")
    named = registry.run(debugger, f"tree -t xarray -r pid_namespace.idr {address:x}")
    assert isinstance(named, TreeEntries)
    for expression in (
        "&init_pid_ns.idr.idr_rt",
        "(&init_pid_ns)->idr",
        "&((struct pid_namespace *)&init_pid_ns)->idr",
    ):
        computed = registry.run(debugger, f"tree -t xarray {expression}")
        assert isinstance(computed, TreeEntries)
        assert (computed.entries, computed.problems) == (named.entries, named.problems)


@pytest.mark.parametrize("line", ["tree &", "list -H (init_task", "list -H &init_task.nosuch", "tree &nosuch->x"])
def test_an_expression_that_means_nothing_is_refused(debugger: Debugger, registry: Registry, line: str) -> None:
    """One line says which part."""
    with pytest.raises((UsageError, NotFound)):
        registry.run(debugger, line)


@pytest.mark.parametrize(
    "line",
    [
        "list",
        "list a b c",
        "list -o task_struct.tasks",
        "list -H init_task.tasks --limit 0",
        "tree init_task --limit 0",
        "sig -s words",
        "foreach dance",
        "foreach",
    ],
)
def test_a_line_that_means_nothing_is_a_usage_error(debugger: Debugger, registry: Registry, line: str) -> None:
    """With a hint."""
    with pytest.raises(UsageError) as caught:
        registry.run(debugger, line)
    assert caught.value.hint


@pytest.mark.parametrize(
    "line", ["list -H no_such_thing", "task -R no_such_member", "task 99999", "tree -t maple no_such_thing"]
)
def test_what_is_not_there_is_not_found(debugger: Debugger, registry: Registry, line: str) -> None:
    """Symbols, members and tasks."""
    with pytest.raises(NotFound):
        registry.run(debugger, line)


def test_members_of_a_task_are_those_of_ps(debugger: Debugger, registry: Registry) -> None:
    """`task -R` for the selected task, for named ones, and by foreach for all."""
    result = registry.run(debugger, "foreach task -R pid,comm,cpu")
    tasks = encode(result)["tasks"]
    assert [one["members"] for one in tasks] == [
        {"pid": task.pid, "comm": task.comm, "cpu": task.cpu} for task in debugger.session.tasks
    ]
    assert encode(registry.run(debugger, "task -R pid"))["tasks"][0]["members"] == {"pid": debugger.task.pid}


def test_foreach_takes_any_of_several_names_and_all_kinds_of_words(debugger: Debugger, registry: Registry) -> None:
    """Names and pids are alternatives; user, kernel, gleader, active and states narrow them."""

    def pids(line: str) -> list[int]:
        return [one["pid"] for one in encode(registry.run(debugger, line))["tasks"]]

    assert pids("foreach init kthreadd task -R pid") == [1, 2]
    assert pids("foreach 1 2 user task -R pid") == [1]
    assert pids("foreach active task -R pid") == [debugger.task.pid]
    assert pids("foreach gleader IN 1 task -R pid") == [1]
    assert pids("foreach kernel init task -R pid") == []


def test_foreach_bt_takes_its_options_on_either_side(debugger: Debugger, registry: Registry) -> None:
    """As before other words could stand there."""
    assert encode(registry.run(debugger, "foreach sleep bt --group")) == encode(
        registry.run(debugger, "foreach --group sleep bt")
    )


def test_the_states_of_tasks_add_up(debugger: Debugger, registry: Registry) -> None:
    """`ps -S` counts each task once."""
    result = registry.run(debugger, "ps -S")
    assert isinstance(result, TaskSummary)
    assert sum(result.counts.values()) == len(debugger.session.tasks)


def test_ps_names_parents_by_their_pid(debugger: Debugger, registry: Registry) -> None:
    """PPID, and with `-p` the whole line."""
    told = {task["pid"]: task["ppid"] for task in encode(registry.run(debugger, "ps"))["tasks"]}
    assert (told[1], told[2], told[3]) == (0, 0, 2)
    line = encode(registry.run(debugger, "ps -p 3"))["tasks"][0]
    assert (line["pid"], [one["pid"] for one in line["ancestors"]]) == (3, [2, 0])


def test_memory_that_the_sample_lacks_is_a_problem_and_no_failure(orcdbg_run: RunProgram) -> None:
    """Files and user memory of a task were left out of it: the answer says so."""
    for line in ("files 1", "vm 1"):
        status, text, _ = orcdbg_run("demo", "--format", "json", "-e", line)
        assert status == 0
        assert any("not in the snapshot" in problem for problem in json.loads(text)["result"]["problems"])


def test_list_keeps_h_for_itself(debugger: Debugger, registry: Registry) -> None:
    """`-h` is crash's; `--help` is help."""
    shown = plain(lines_of(registry.run(debugger, "list --help"), None))
    assert "-h START" in shown or "-h [START]" in shown


def test_structures_of_many_tasks_are_read_as_they_are_shown(debugger: Debugger, registry: Registry) -> None:
    """Twice the same, in one piece as in many; what cannot be read is known without looking at the rest first."""
    answer = registry.run(debugger, "foreach task -R pid,comm,tasks")
    whole = encode(answer)
    assert len(whole["tasks"]) == len(debugger.session.tasks)
    assert json.loads("".join(json_pieces("task", answer)))["result"] == whole
    assert "".join(text_pieces(answer, None)) == plain(lines_of(answer, None))
    assert [task["members"]["pid"] for task in whole["tasks"]] == [task.pid for task in debugger.session.tasks]
    everything = registry.run(debugger, "foreach task")
    assert isinstance(everything, TaskStructures)
    problems = list(everything.problems)
    assert problems == list(everything.problems) == encode(everything)["problems"]

"""Equal stacks are shown once, and only those that were asked for."""

from __future__ import annotations

import json

import pytest

from orcdbg.base.errors import NotFound
from orcdbg.commands.crash import CrashStacks
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.stacks import StackGroups, Stacks
from orcdbg.unwind.frame import FrameKind, StackTrace
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain


def every_stack(debugger: Debugger, registry: Registry, command: str = "foreach bt") -> list[StackTrace]:
    """The stacks that a command answers with."""
    result = registry.run(debugger, command)
    assert isinstance(result, Stacks)
    return list(result.stacks)


def addresses(trace: StackTrace) -> tuple[object, ...]:
    """What makes two stacks equal."""
    return (*((f.ip, f.kind, f.mark) for f in trace.frames if f.kind != FrameKind.USER), trace.end, trace.end_reason)


def test_groups_hold_every_task_once_with_its_equals(debugger: Debugger, registry: Registry) -> None:
    """Largest first; equal means the same return addresses and end, wherever the stacks lie."""
    traces = every_stack(debugger, registry)
    result = registry.run(debugger, "foreach bt --group")
    assert isinstance(result, StackGroups)
    by_pid = {trace.pid: addresses(trace) for trace in traces if trace.pid}
    seen = [pid for group in result.groups for pid in group.pids]
    assert sorted(seen) == sorted(trace.pid for trace in traces)
    for group in result.groups:
        assert {by_pid[pid] for pid in group.pids if pid} <= {addresses(group.trace)}
    assert len({addresses(group.trace) for group in result.groups}) == len(result.groups)
    sizes = [len(group.pids) for group in result.groups]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 > sizes[-1]


def test_groups_as_text_and_json(debugger: Debugger, registry: Registry) -> None:
    """A line with number and pids before each stack, which is that of the first; a last line that counts."""
    result = registry.run(debugger, "foreach bt --group")
    assert isinstance(result, StackGroups)
    text = plain(lines_of(result, None))
    assert text.startswith(f"{len(result.groups[0].pids)} tasks have this stack  PIDs: ")
    total = sum(len(group.pids) for group in result.groups)
    assert text.endswith(f"{total} tasks, {len(result.groups)} different stacks\n")
    alone = plain(lines_of(registry.run(debugger, f"bt {result.groups[0].pids[0]}"), None))
    assert alone in text
    groups = json.loads(json.dumps(encode(result)))["groups"]
    assert [(group["count"], group["pids"]) for group in groups] == [(len(g.pids), list(g.pids)) for g in result.groups]
    assert [group["stack"]["pid"] for group in groups] == [group["pids"][0] for group in groups]


def test_only_stacks_with_a_function(debugger: Debugger, registry: Registry) -> None:
    """Named exactly; all of them, and no other."""
    traces = every_stack(debugger, registry)
    names = {f.location.symbol for trace in traces for f in trace.frames if f.location}
    assert {"schedule", "kthread", "do_syscall_64"} <= names
    for name in ("schedule", "kthread", "do_syscall_64"):
        expected = [t.pid for t in traces if any(f.location and f.location.symbol == name for f in t.frames)]
        assert [trace.pid for trace in every_stack(debugger, registry, f"foreach bt --has {name}")] == expected
        assert 0 < len(expected) < len(traces)


def test_a_function_that_no_stack_has(debugger: Debugger, registry: Registry) -> None:
    """It is an error, as a task that is not there."""
    with pytest.raises(NotFound, match="no_such_function"):
        registry.run(debugger, "foreach bt --has no_such_function")


def test_options_go_together(debugger: Debugger, registry: Registry) -> None:
    """A choice, then its groups or crash's lines; `bt` has the same options."""
    result = registry.run(debugger, "foreach kernel bt --has kthread --group")
    assert isinstance(result, StackGroups)
    assert all(any(f.location and f.location.symbol == "kthread" for f in g.trace.frames) for g in result.groups)
    assert isinstance(registry.run(debugger, "bt --crash"), CrashStacks)
    assert isinstance(registry.run(debugger, "bt --group"), StackGroups)

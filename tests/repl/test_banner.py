"""The banner."""

from __future__ import annotations

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.sys import Fact, System
from orcdbg.repl.banner import HELP_LINE, KEYS, closing_lines, find_fact, known_facts


def test_the_banner_has_the_labels_that_eyes_look_for(debugger: Debugger, registry: Registry) -> None:
    """Those of crash, in its order, and none whose value is unknown."""
    system = registry.run(debugger, "sys")
    assert isinstance(system, System)
    facts = known_facts(system).facts
    assert [fact.key for fact in facts] == [key for key in KEYS if find_fact(system, key) is not None]
    assert {"KERNEL", "DUMPFILE", "RELEASE", "PID", "COMMAND", "TASK"} <= {fact.label for fact in facts}


def test_a_panicked_machine_says_which_task_is_selected() -> None:
    """And why; a task's name is shown safely."""
    facts = [Fact("panic", "PANIC", "on CPU 0"), Fact("pid", "PID", 7), Fact("command", "COMMAND", "a\x1bb")]
    assert closing_lines(System(facts)) == ["", 'Selected: the task that panicked, PID 7 "a\\x1bb".', HELP_LINE]


def test_a_machine_that_did_not_panic_is_not_said_to_have() -> None:
    """Only the line on help follows."""
    assert closing_lines(System([Fact("panic", "PANIC", None), Fact("pid", "PID", 7)])) == ["", HELP_LINE]

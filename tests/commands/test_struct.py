"""struct and vtop over the sample: text, JSON, and each way to fail."""

from __future__ import annotations

import json

import pytest

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain


def shown(registry: Registry, debugger: Debugger, command: str) -> str:
    """A command's text."""
    return plain(lines_of(registry.run(debugger, command), None))


def test_a_structure_is_shown_as_c_writes_it(registry: Registry, debugger: Debugger) -> None:
    """With offsets where they are asked for."""
    text = "struct list_head {\n    struct list_head *next;\n    struct list_head *prev;\n}\nSIZE: 16\n"
    assert shown(registry, debugger, "struct list_head") == text
    assert "      [8]    struct list_head *prev;" in shown(registry, debugger, "struct -o list_head")


def test_anonymous_structures_stand_between_braces(registry: Registry, debugger: Debugger) -> None:
    """And a bit-field has its bits."""
    text = shown(registry, debugger, "struct page")
    assert text.count("{") == text.count("}")
    assert "            unsigned int objects : 15;\n" in text


def test_values_are_those_in_memory(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """Also of a member of a member, with the names of what is pointed to."""
    text = shown(registry, debugger, "struct task_struct.pid,comm,sched_class,tasks.next init_task")
    lines = text.splitlines()
    following = sample.linux.member("task_struct", "tasks.next", sample.linux.address("init_task"))
    assert lines[1:3] == ["  pid = 0", '  comm = "swapper/0"']
    assert lines[3].endswith("<idle_sched_class>")
    assert lines[4] == f"  tasks.next = {following:#x}"
    assert "= 0x" in shown(registry, debugger, "struct -x task_struct.prio init_task")


def test_the_json_has_types_offsets_and_values(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """A pointer is an address, a structure an object, characters are text."""
    answer = encode(registry.run(debugger, "struct task_struct.comm,tasks init_task"))
    json.dumps(answer)
    comm, tasks = answer["members"]
    assert (comm["declaration"], comm["value"], comm["size"]) == ("char comm[16]", "swapper/0", 16)
    assert comm["offset"] == sample.types.offset("task_struct", "comm")
    assert set(tasks["value"]) == {"next", "prev"}
    assert tasks["value"]["next"].startswith("0x")


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("struct no_such_thing", NotFound),
        ("struct list_head.last", NotFound),
        ("struct list_head.", UsageError),
        ("struct list_head 8", OrcdbgError),
        ("struct list_head no_such_symbol", NotFound),
        ("vtop no_such_symbol", NotFound),
    ],
)
def test_what_is_not_there_is_named(
    registry: Registry, debugger: Debugger, command: str, error: type[OrcdbgError]
) -> None:
    """By class, and in one sentence."""
    with pytest.raises(error):
        registry.run(debugger, command)


def test_an_address_is_translated_level_by_level(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """The sample has five levels, and its text is in large pages."""
    text = shown(registry, debugger, "vtop schedule")
    address = sample.linux.address("schedule")
    assert f"{address:016x}  {sample.memory.translate(address):016x}" in text
    assert [line.split()[0] for line in text.splitlines()[4:-1]] == ["PGD", "P4D", "PUD", "PMD"]
    assert text.endswith("  a page of 2048 KiB\n")


def test_an_address_that_is_not_mapped_says_at_which_level(registry: Registry, debugger: Debugger) -> None:
    """It is an answer, not an error."""
    text = shown(registry, debugger, "vtop ff00000000000000")
    assert "(not mapped)" in text
    assert "entry is not present" in text
    assert encode(registry.run(debugger, "vtop ff00000000000000"))["physical"] is None


def test_neighbours_cpus_and_embedded_members_are_shown(
    registry: Registry, debugger: Debugger, sample: Session
) -> None:
    """With an address each; a per-CPU variable's have their CPUs."""
    start = sample.linux.address("init_task")
    two = encode(registry.run(debugger, "struct list_head init_task 2"))["structures"]
    assert [(each["cpu"], each["address"]) for each in two] == [(None, f"{start:#x}"), (None, f"{start + 16:#x}")]
    one = encode(registry.run(debugger, f"struct list_head {start + 16:x}"))
    assert two[1] == {"cpu": None, **one}
    (rq,) = encode(registry.run(debugger, "struct rq.cpu runqueues:a"))["structures"]
    assert (rq["cpu"], rq["address"]) == (0, f"{sample.linux.per_cpu('runqueues', 0):#x}")
    tasks = registry.run(debugger, "p &init_task.tasks")
    place = encode(tasks)["values"][0]["value"]
    by_member = registry.run(debugger, f"struct task_struct.comm -l task_struct.tasks {place}")
    assert encode(by_member) == encode(registry.run(debugger, "struct task_struct.comm init_task"))
    for wrong in ("struct list_head init_task 0", "struct list_head init_task 99999999", "struct rq runqueues:x"):
        with pytest.raises(OrcdbgError):
            registry.run(debugger, wrong)


@pytest.mark.parametrize("line", ["*list_head init_task -x", "list_head -x init_task", "struct -x list_head init_task"])
def test_the_word_may_be_left_out_and_options_stand_anywhere(registry: Registry, debugger: Debugger, line: str) -> None:
    """As crash takes them."""
    assert encode(registry.run(debugger, line)) == encode(registry.run(debugger, "struct list_head init_task"))
    assert "0x" in plain(lines_of(registry.run(debugger, line), None))


@pytest.mark.parametrize("word", ["*", "*no_such_structure", "no_such_structure", "no.such", "swap"])
def test_a_word_that_is_no_structure_is_no_command(registry: Registry, debugger: Debugger, word: str) -> None:
    """And says so, or what another debugger's word is here."""
    with pytest.raises(UsageError, match="no such command"):
        registry.run(debugger, word)


def test_elements_of_arrays_are_members_too(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """With what they are declared as; one that the array has not, and one behind a pointer, is refused."""
    (member,) = encode(registry.run(debugger, "struct task_struct.comm[1] init_task"))["members"]
    whole = encode(registry.run(debugger, "struct task_struct.comm init_task"))["members"][0]
    assert (member["name"], member["offset"], member["size"]) == ("comm[1]", whole["offset"] + 1, 1)
    assert member["value"] == ord(whole["value"][1])
    path = "thread.tls_array[1].base0"
    (inner,) = encode(registry.run(debugger, f"task_struct.{path} init_task"))["members"]
    value = sample.object("task_struct", sample.linux.address("init_task")).thread.tls_array[1].base0
    assert (inner["value"], inner["name"]) == (int(value), path)
    for wrong in ("comm[16]", "comm[", "comm[x]", "mm.pgd[0]"):
        with pytest.raises(OrcdbgError):
            registry.run(debugger, f"struct task_struct.{wrong} init_task")

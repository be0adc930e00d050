"""A module that nobody else has, seen through: what the lab's driver said in the guest's log is what its snapshot shows.

Its types are known without its file by the BTF that the kernel keeps, where kernel and module have it; with the file, on all
kernels, its variables, source lines and local variables as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orcdbg
from orcdbg.base.errors import NotFound, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.mod import Modules
from orcdbg.commands.standard import standard_commands
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from tests.lab.apt import run
from tests.lab.conftest import FindScene, OpenScene
from tests.lab.draw import kernels_of
from tests.lab.drgn_locals import compared_lines, compared_stack
from tests.lab.drgn_types import opened
from tests.lab.driven import said
from tests.lab.kbuild import DRIVER, NAME, BuiltModule, built_driver
from tests.lab.scenes import Scene
from tests.lab.skips import skipped_if_unavailable

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("own driver"))]

Json = dict[str, Any]
Ask = Callable[[str], Json]
Said = dict[str, list[list[str]]]

MODES = {"ORCLAB_IDLE": 0, "ORCLAB_BUSY": 7, "ORCLAB_LOST": -3}
TYPES = (
    *("struct orclab_item", "struct orclab_device", "struct orclab_tally", "struct orclab_point"),
    *("union orclab_word", "enum orclab_mode"),
)
# What compilers keep for these is in memory; the others may be gone where the thread sleeps.
IN_MEMORY = {"orclab_rest here.x", "orclab_rest here.y", *(f"orclab_search seen[{number}]" for number in range(3))}
# Values that the driver says of each item, beside its tail.
VALUES_OF_ITEM = 17


def asking(session: Session) -> Ask:
    """Runs a command over a session; its answer as JSON, without problems."""
    debugger, registry = Debugger(session), standard_commands()

    def run(line: str) -> Json:
        found: Json = encode(registry.run(debugger, line))
        assert not found.get("problems"), found["problems"]
        return found

    return run


@pytest.fixture
def scene(kernel: str, find_scene: FindScene) -> Scene:
    """The scene."""
    return find_scene(kernel, "driver")


@pytest.fixture
def told(scene: Scene) -> Said:
    """What the driver said; all of it."""
    found = said(scene)
    assert [int(words[0]) for words in found["end"]] == [len(found["item"])]
    return found


@pytest.fixture
def built(kernel: str, scene: Scene) -> BuiltModule:
    """The driver's file."""
    with skipped_if_unavailable(f"{kernel} driver"):
        return built_driver(kernel)


@pytest.fixture
def without_file(kernel: str, scene: Scene, open_scene: OpenScene) -> Session:
    """The session over the snapshot and the kernel's files alone."""
    return open_scene(kernel, "driver")[1]


@pytest.fixture
def with_file(scene: Scene, built: BuiltModule) -> Session:
    """A session over the snapshot that has the driver's file too."""
    session = orcdbg.open(scene.vmlinux, scene.snapshot)
    session.add_module_folder(str(built.file.parent))
    return session


@pytest.fixture(params=["without its file", "with its file"])
def ask(request: pytest.FixtureRequest, built: BuiltModule) -> Ask:
    """Commands over the snapshot, without the driver's file where the kernel keeps its types."""
    if request.param == "with its file":
        return asking(request.getfixturevalue("with_file"))
    if not built.has_btf:
        pytest.skip("kernels before 5.11 keep no types of modules: nothing in the snapshot tells them")
    return asking(request.getfixturevalue("without_file"))


def value_of(ask: Ask, expression: str) -> Any:
    """The one value of an expression; an enumerator as its number."""
    (found,) = ask(f"p {expression}")["values"]
    assert found["error"] is None
    value = found["value"]
    return MODES.get(value, value) if isinstance(value, str) else value


def at_path(value: Any, path: str) -> Any:
    """A part of a value: `here.x`, `seen[1]`."""
    for name, index in re.findall(r"(\w+)|\[(\d+)\]", path):
        value = value[name] if name else value[int(index)]
    return value


def address_of(word: str) -> str:
    """An address in our spelling."""
    return f"{int(word, 16):#x}"


# Data


def test_every_member_has_the_value_that_the_driver_said(kernel: str, told: Said, ask: Ask) -> None:
    """Of each item: plain ones, bit-fields, enumerations, structures, unions, arrays, the flexible one at its end."""
    for address, path, number in told["value"]:
        assert value_of(ask, f"((struct orclab_item *)0x{address})->{path}") == int(number), path
    print(f"{kernel}: {len(told['value'])} values of {len(told['item'])} items")
    assert len(told["value"]) >= VALUES_OF_ITEM * len(told["item"])


def test_types_are_those_of_drgn(kernel: str, scene: Scene, told: Said, built: BuiltModule, ask: Ask) -> None:
    """Size of each type and offset, width and type of each member; drgn reads them in the file."""
    drgn = pytest.importorskip("drgn")
    program = opened(drgn, scene, [built.file])
    for name in TYPES:
        theirs = program.type(name)
        ours = ask(f"whatis {name}")
        assert ours["size"] == drgn.sizeof(theirs)
        if theirs.kind == drgn.TypeKind.ENUM:
            expected = [(each.name, each.value) for each in theirs.enumerators]
            assert [(each["name"], each["value"]) for each in ours["enumerators"]] == expected
            continue
        assert [
            (member["name"], 8 * member["offset"] + member["bit_offset"], member["bit_size"])
            for member in ours["members"]
        ] == [(member.name, member.bit_offset, member.bit_field_size) for member in theirs.members], name
    print(f"{kernel}: {len(TYPES)} types")


def test_strings_and_functions_are_named(told: Said, ask: Ask) -> None:
    """A string in the item, one in the module's read-only data, a function pointer by the function's name."""
    for address, member, text in told["text"]:
        (found,) = ask(f"p ((struct orclab_item *)0x{address})->{member}")["values"]
        assert text in (found["value"], found["words"].get("", "").strip('"')), member
    for address, member, function in told["function"]:
        (found,) = ask(f"p ((struct orclab_item *)0x{address})->{member}")["values"]
        assert found["symbols"] == {found["value"]: function.partition(" ")[0]}


def test_the_list_is_in_the_order_in_which_it_was_made(told: Said, ask: Ask) -> None:
    """Each item's address, and a member of each."""
    head = told["device"][0][0]
    answer = ask(f"list -H 0x{head} -o orclab_item.link -s orclab_item.number")
    expected = [(address_of(words[0]), {"number": 100 + number}) for number, words in enumerate(told["item"])]
    assert [(node["address"], node["values"]) for node in answer["nodes"]] == expected
    assert (answer["broken"], answer["cut"]) == (None, False)
    by_expression = ask(f"list -H &((struct orclab_device *)0x{head})->items -o orclab_item.link -s orclab_item.number")
    assert by_expression == answer


def test_the_tree_is_sorted(told: Said, ask: Ask) -> None:
    """As the driver itself walked it."""
    answer = ask(f"tree -r orclab_device.tree -o orclab_item.node 0x{told['device'][0][0]}")
    assert [entry["address"] for entry in answer["entries"]] == [address_of(words[0]) for words in told["sorted"]]


def test_per_cpu_variables_have_a_value_for_each_cpu(told: Said, ask: Ask) -> None:
    """A structure and a number, by name and CPU, where the driver said that they are."""
    for cpu, path, number in told["per_cpu"]:
        name, _, member = path.partition(".")
        (found,) = ask(f"p {name}:{cpu}")["values"]
        assert at_path(found["value"], member) == int(number), path
    tallies = ask("p orclab_tally:a")["values"]
    assert [(one["cpu"], one["address"]) for one in tallies] == [
        (int(cpu), address_of(address)) for cpu, address in told["per_cpu_at"]
    ]
    for cpu, address in told["per_cpu_at"]:
        (place,) = (each for each in ask(f"kmem 0x{address}")["addresses"][0]["findings"] if each["kind"] == "per-cpu")
        assert (place["cpu"], place["pointer"]) == (int(cpu), value_of(ask, "&orclab_tally"))
        assert (place["variable"], place["offset"], place["module"]) == ("orclab_tally", 0, NAME)


def test_slab_objects_are_told_apart(told: Said, without_file: Session) -> None:
    """Those that the driver holds are allocated, those that it gave back are free, all of them of its cache."""
    ask = asking(without_file)
    states = {"item": "allocated", "free": "free"}
    found = {key: [ask(f"kmem 0x{words[0]}")["addresses"][0]["findings"] for words in told[key]] for key in states}
    for key, state in states.items():
        for findings, words in zip(found[key], told[key], strict=True):
            (slab,) = (each for each in findings if each["kind"] == "slab")
            shown = (slab["cache"], slab["object"], slab["offset"], slab["state"])
            assert shown == ("orclab_item", address_of(words[0]), 0, state)
            assert slab["problems"] == []


# What waits


def test_timers_are_due_when_the_driver_said(told: Said, without_file: Session) -> None:
    """The driver's own, by its function's name, and that of its delayed work."""
    timers = {one["address"]: one for one in asking(without_file)("timer")["timers"]}
    ((own, expires),) = told["timer"]
    assert (timers[address_of(own)]["expires"], timers[address_of(own)]["symbol"].split()[0]) == (
        int(expires),
        "orclab_expired",
    )
    ((of_work, work_expires),) = told["work_timer"]
    assert timers[address_of(of_work)]["expires"] == int(work_expires)
    assert timers[address_of(of_work)]["symbol"] == "delayed_work_timer_fn"


def test_work_runs_and_waits_in_the_drivers_queue(told: Said, without_file: Session) -> None:
    """One work runs, and blocks; the other is behind it, since the queue is ordered; the delayed one is in none yet."""
    answer = asking(without_file)("workqueue")
    works = {which: address_of(address) for which, address, _ in told["work"]}
    running = [worker for pool in answer["pools"] for worker in pool["workers"] if worker["work"] == works["running"]]
    assert [(one["queue"], one["symbol"].split()[0]) for one in running] == [("orclab_queue", "orclab_run")]
    (queue,) = (each for each in answer["workqueues"] if each["name"] == "orclab_queue")
    assert [(one["address"], one["symbol"].split()[0]) for one in queue["inactive"]] == [
        (works["waiting"], "orclab_wait")
    ]
    pending = [work["address"] for pool in answer["pools"] for work in pool["pending"]]
    assert works["later"] not in [*pending, *(work["address"] for work in queue["inactive"])]


# The thread


def test_the_threads_stack_is_what_the_guest_says(scene: Scene, told: Said, without_file: Session) -> None:
    """Through the module's functions, without a mark."""
    pid = int(told["thread"][0][0])
    trace = without_file.unwinder.trace(without_file.task(pid))
    ours = [without_file.names.describe(frame.ip, frame.exact) for frame in trace.frames]
    assert ours[-len(scene.stacks[pid]) :] == scene.stacks[pid]
    assert {frame.location.symbol.partition(".")[0] for frame in trace.frames if frame.location} >= {
        "orclab_rest",
        "orclab_search",
        "orclab_thread",
    }
    assert [frame.doubt for frame in trace.frames if frame.doubt] == []


def test_without_its_file_the_driver_has_no_lines_and_no_variables(told: Said, without_file: Session) -> None:
    """Its frames say so; its variables' types are not known, but for those per CPU, which BTF describes."""
    answer = asking(without_file)(f"bt --locals {told['thread'][0][0]}")
    own = [frame for frame in answer["stacks"][0]["frames"] if frame["module"] == NAME]
    assert len(own) == 3
    assert not any(frame["variables"] for frame in own)
    with pytest.raises(UsageError):
        asking(without_file)("p orclab_device->item_count")


def test_local_variables_have_the_values_that_the_driver_said(kernel: str, told: Said, with_file: Session) -> None:
    """Each is as said, or says why it is not known; what is in memory is known."""
    answer = asking(with_file)(f"bt --locals {told['thread'][0][0]}")
    variables = {
        (variable["function"], variable["name"]): variable
        for frame in answer["stacks"][0]["frames"]
        if frame["module"] == NAME
        for variable in frame["variables"]
    }
    shown = set[str]()
    for function, path, word in told["local"]:
        variable = variables[function, re.split(r"[.\[]", path)[0]]
        if variable["why"] is not None:
            continue
        value = at_path(variable["value"], path.removeprefix(variable["name"]))
        expected = address_of(word) if isinstance(value, str) and value.startswith("0x") else int(word)
        assert (MODES.get(value, value) if isinstance(value, str) else value) == expected, path
        shown.add(f"{function} {path}")
    print(f"{kernel}: {len(shown)} of {len(told['local'])} values of local variables")
    assert shown >= IN_MEMORY


def test_lines_are_those_of_the_drivers_calls(told: Said, with_file: Session) -> None:
    """Each frame's line has the call that it is in, that of a function that was inlined too."""
    source = (DRIVER / f"{NAME}.c").read_text().splitlines()
    answer = asking(with_file)(f"bt -l {told['thread'][0][0]}")
    lines = []
    for frame in answer["stacks"][0]["frames"]:
        if frame["module"] == NAME:
            inlined = [(each["symbol"], each["file"], each["line"]) for each in frame["inlined"]]
            lines += [*inlined, (frame["symbol"].partition(".")[0], frame["function_file"], frame["function_line"])]
    assert {Path(file).name for _, file, _ in lines} == {f"{NAME}.c"}
    assert [(symbol, re.findall(r"(\w+)\(", source[line - 1])) for symbol, _, line in lines] == [
        ("orclab_rest", ["schedule"]),
        ("orclab_search", ["orclab_rest"]),
        ("orclab_attempt", ["orclab_search"]),
        ("orclab_thread", ["orclab_attempt"]),
    ]


def test_lines_and_variables_are_those_of_drgn(
    kernel: str, scene: Scene, told: Said, built: BuiltModule, with_file: Session
) -> None:
    """Of the thread's stack, by the same file."""
    drgn = pytest.importorskip("drgn")
    program = opened(drgn, scene, [built.file])
    task = with_file.task(int(told["thread"][0][0]))
    stack = program.stack_trace(drgn.Object(program, "struct task_struct *", task.address))
    counts: Counter[str] = Counter()
    trace = with_file.unwinder.trace(task)
    wrong = [*compared_stack(with_file, trace, stack, counts), *compared_lines(with_file, trace, stack, counts)]
    print(f"{kernel}: {dict(counts)}")
    assert wrong == []
    assert counts["lines"] == 4
    assert counts["values"] > 0


def test_the_file_is_loaded_at_the_prompt(scene: Scene, told: Said, built: BuiltModule) -> None:
    """`mod -s` makes the driver's variables known; before it, a type that nothing describes is not found."""
    debugger, registry = Debugger(orcdbg.open(scene.vmlinux, scene.snapshot)), standard_commands()
    if not built.has_btf:
        with pytest.raises(NotFound):
            registry.run(debugger, "whatis struct orclab_item")
    loaded = registry.run(debugger, f"mod -s {NAME} {built.file}")
    assert isinstance(loaded, Modules)
    assert list((loaded.files or {}).values()) == [str(built.file)]
    found: Json = encode(registry.run(debugger, "p orclab_device->item_count"))
    assert [one["value"] for one in found["values"]] == [len(told["item"])]


def test_symbols_have_the_letters_of_the_file(built: BuiltModule, ask: Ask) -> None:
    """As nm prints them of it, but for upper case, which in the kernel are the exported ones: the driver exports none."""
    printed = run(["nm", str(built.file)]).splitlines()
    letters = {words[2]: words[1].lower() for line in printed if len(words := line.split()) == 3}
    shown = {symbol["name"]: symbol["type"] for symbol in ask("sym -m orclab")["symbols"]}
    compared = {name: letter for name, letter in shown.items() if letters.get(name, "?") in "tdbr"}
    assert compared == {name: letters[name] for name in compared}
    assert set(compared.values()) >= {"t", "d", "b", "r"}

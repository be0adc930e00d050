"""p, whatis, ptype, eval, ascii and x/FMT over the sample, and where a line with an expression ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.redirections import split_redirection
from orcdbg.commands.registry import Registry
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.conftest import RunProgram


def shown(registry: Registry, debugger: Debugger, line: str) -> str:
    """A command's text."""
    return plain(lines_of(registry.run(debugger, line), None))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("p 1 + 2", "$1 = 3\n"),
        ("p -1", "$1 = -1\n"),
        ("p/x -1", "$1 = 0xffffffff\n"),
        ("p /x -1", "$1 = 0xffffffff\n"),
        ("p -x -1", "$1 = 0xffffffff\n"),
        ("px 17", "$1 = 0x11\n"),
        ("pd 0x11", "$1 = 17\n"),
        ("print/o 8", "$1 = 010\n"),
        ("p/t 10", "$1 = 1010\n"),
        ("p/z (short)10", "$1 = 0x000a\n"),
        ("p/u -1", "$1 = 4294967295\n"),
        ("p/c 65", "$1 = 65 'A'\n"),
        ("p'A'", "$1 = 65 'A'\n"),
        ("p(1)", "$1 = 1\n"),
        ("p*&init_task.comm", '$1 = "swapper/0"\n'),
        ("p (void *)-12", "$1 = (void *) 0xfffffffffffffff4 (ERR_PTR(-ENOMEM))\n"),
        ("p (dev_t)0x800001", "$1 = 8388609 (8:1)\n"),
        ("p init_task.state", "$1 = 0 (TASK_RUNNING)\n"),
        ("p/x init_task.comm[0]@4", '$1 = "swap"\n'),
        ("p (_Bool)1", "$1 = true\n"),
        ("p PIDTYPE_PID", "$1 = PIDTYPE_PID\n"),
    ],
)
def test_values_are_printed_in_the_readers_words(registry: Registry, debugger: Debugger, line: str, text: str) -> None:
    """With the format that is asked for, wherever it stands."""
    assert shown(registry, debugger, line) == text


def test_structures_are_written_as_struct_does(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """With the names of what is pointed to, and lists that are empty."""
    following = sample.linux.member("task_struct", "tasks.next", sample.linux.address("init_task"))
    assert shown(registry, debugger, "p init_task.tasks").startswith(f"$1 = {{\n  next = {following:#x}\n  prev = 0x")
    assert "<idle_sched_class>" in shown(registry, debugger, "p init_task.sched_class")
    assert shown(registry, debugger, "p init_task.children").endswith("}\n")
    assert "  }  (empty list)\n" in shown(registry, debugger, "p init_task")


def test_a_pointer_is_named_by_what_holds_it_alone(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """Text has no symbol of its own and lies far behind one; code is named by the symbol before it all the same."""
    inside = sample.linux.address("init_task") + 8
    assert f"{inside:#x} <init_task+0x8/" in shown(registry, debugger, f"p (void *){inside:#x}")
    symbol = sample.symbols.get("linux_proc_banner")
    behind = symbol.address + sample.slide + symbol.size
    location = sample.names.at(behind)
    assert location is not None
    assert location.symbol == "linux_proc_banner", "the sample has another layout: choose another symbol"
    assert shown(registry, debugger, f"p (void *){behind:#x}").endswith(f"{behind:#x}\n")
    assert "<schedule+0x5/" in shown(registry, debugger, "p (void *)((char *)schedule + 5)")


def test_values_are_numbered_and_asked_for_again(registry: Registry, debugger: Debugger) -> None:
    """By number, the last, the one before; the last is shown by `p` alone."""
    assert shown(registry, debugger, "p 5") == "$1 = 5\n"
    assert shown(registry, debugger, "p &init_task").startswith("$2 = (struct task_struct *) 0xffff")
    assert shown(registry, debugger, "p $->comm") == '$3 = "swapper/0"\n'
    assert shown(registry, debugger, "p $1 + $1") == "$4 = 10\n"
    assert shown(registry, debugger, "p $$2.pid") == "$5 = 0\n"
    assert shown(registry, debugger, "p") == "$6 = 0\n"
    for word in ("$9", "$$9", "$_"):
        with pytest.raises(NotFound):
            registry.run(debugger, f"p {word}")


def test_registers_are_those_of_the_selected_frame(registry: Registry, debugger: Debugger) -> None:
    """Under gdb's names too."""
    registry.run(debugger, "frame 6")
    frame = debugger.frame(6)
    assert encode(registry.run(debugger, "p $rip"))["values"][0]["value"] == f"{frame.ip:#x}"
    assert encode(registry.run(debugger, "p $sp"))["values"][0]["value"] == f"{frame.sp:#x}"
    with pytest.raises(NotFound, match=r"\$nothing"):
        registry.run(debugger, "p $nothing")


def test_a_register_that_is_not_known_says_why(registry: Registry, debugger: Debugger) -> None:
    """And has no number."""
    registry.run(debugger, "set 46")
    registry.run(debugger, "frame 4")
    unknown = debugger.session.register_finder.all(debugger.trace(), 4)[-1].unknown
    assert set(unknown) == {"rbx", "r12", "r13", "r14", "r15"}
    for name in unknown:
        with pytest.raises(OrcdbgError, match=f"{name} of frame #4 is not known"):
            registry.run(debugger, f"p ${name}")
    assert shown(registry, debugger, "whatis $rbx") == "type = unsigned long\n"


def test_the_json_has_values_types_and_words(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """Of each CPU that is asked for."""
    answer = encode(registry.run(debugger, "p runqueues:a"))
    json.dumps(answer)
    (value,) = answer["values"]
    assert (value["cpu"], value["type"], value["number"]) == (0, "struct rq", 1)
    assert value["address"] == f"{sample.linux.per_cpu('runqueues', 0):#x}"
    assert value["value"]["cpu"] == 0
    answer = encode(registry.run(debugger, "p (void *)-2"))
    assert answer["values"][0]["words"] == {"": "ERR_PTR(-ENOENT)"}


def test_long_arrays_say_how_many_elements_are_left_out(registry: Registry, debugger: Debugger) -> None:
    """In text; JSON has all."""
    line = "p *(unsigned long *)$rsp@300"
    assert shown(registry, debugger, line).rstrip().endswith("... 100 more}")
    assert len(encode(registry.run(debugger, line))["values"][0]["value"]) == 300


def test_types_are_shown_with_what_they_are_made_of(registry: Registry, debugger: Debugger) -> None:
    """Of an expression `whatis` has the type alone."""
    definition = "struct list_head {\n    struct list_head *next;\n    struct list_head *prev;\n}\nSIZE: 16\n"
    assert shown(registry, debugger, "whatis init_task.tasks.next") == "type = struct list_head *\n"
    assert shown(registry, debugger, "ptype init_task.tasks.next") == f"type = struct list_head *\n{definition}"
    assert shown(registry, debugger, "whatis list_head") == f"type = struct list_head\n{definition}"
    assert shown(registry, debugger, "whatis init_task.in_execve") == "type = unsigned int : 1\n"
    assert "typedef int __kernel_pid_t;\nSIZE: 4\n" in shown(registry, debugger, "ptype pid_t")
    assert "    PIDTYPE_TGID = 1,\n" in shown(registry, debugger, "ptype enum pid_type")
    assert shown(registry, debugger, "whatis schedule") == "type = void (void)\n"
    assert encode(registry.run(debugger, "ptype init_task.tasks"))["members"][1]["offset"] == 8


def test_numbers_in_each_base(registry: Registry, debugger: Debugger) -> None:
    """With crash's units and its hexadecimal without 0x."""
    lines = shown(registry, debugger, "eval 128m").splitlines()
    assert lines[0] == "hexadecimal: 8000000  (128MB)"
    assert [line.split(": ")[1] for line in lines[1:3]] == ["134217728", "1000000000"]
    assert lines[3] == f"     binary: {1 << 27:064b}"
    assert encode(registry.run(debugger, "eval ffffffff81000000 + 0x10"))["hexadecimal"] == "0xffffffff81000010"
    assert encode(registry.run(debugger, "eval -1"))["signed"] == -1
    assert "bits set: 19 10 5" in shown(registry, debugger, "eval -b 0x80420")
    assert shown(registry, debugger, "ascii 62696c2f7273752f 0x0a41") == "62696c2f7273752f: /usr/lib\n0a41: A<LF>\n"
    assert len(shown(registry, debugger, "ascii").splitlines()) == 17


def test_memory_is_examined_in_gdbs_formats(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """Numbers, strings, instructions, and on from where the last line ended; plain x is rd."""
    address = sample.linux.address("linux_banner")
    words = sample.memory.read(address, 16)
    first, second = (int.from_bytes(words[i : i + 8], "little") for i in (0, 8))
    assert (
        shown(registry, debugger, "x/2gx &linux_banner")
        == f"{address:#x} <linux_banner>:  {first:#018x}  {second:#018x}\n"
    )
    assert encode(registry.run(debugger, "p $_"))["values"][0]["value"] == f"{address + 8:#x}"
    assert encode(registry.run(debugger, "x/h"))["places"][0]["address"] == f"{address + 16:#x}"
    assert '"Linux version 5.10' in shown(registry, debugger, "x/s linux_banner")
    assert shown(registry, debugger, "x/3i $rip") == shown(registry, debugger, f"dis {debugger.frame().ip:x} 3")
    assert "76 'L'  105 'i'" in shown(registry, debugger, "x/4c &linux_banner")
    assert [place["value"] for place in encode(registry.run(debugger, "x/2xb init_task.comm"))["places"]] == [
        "0x73",
        "0x77",
    ]
    assert shown(registry, debugger, "x linux_banner 2") == shown(registry, debugger, "rd linux_banner 2")
    for line in ("x/q 1", "x/0x $rsp", "x/9999999x $rsp", "x/2gx 8"):
        with pytest.raises(OrcdbgError):
            registry.run(debugger, line)


@pytest.mark.parametrize(
    "line", ["p struct list_head", "p/y 1", "p runqueues", "whatis", "ptype", "eval", "ascii xyz", "p"]
)
def test_what_is_no_question_says_what_to_write(registry: Registry, debugger: Debugger, line: str) -> None:
    """In one sentence."""
    with pytest.raises((UsageError, NotFound)) as refused:
        registry.run(debugger, line)
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("p init_task.mm->pgd", ("p init_task.mm->pgd", "", "")),
        ("p a>b", ("p a>b", "", "")),
        ("p a|b", ("p a|b", "", "")),
        ("p (a > b)", ("p (a > b)", "", "")),
        ("p (a | b)", ("p (a | b)", "", "")),
        ("p x[a > b]", ("p x[a > b]", "", "")),
        ("p a || b", ("p a || b", "", "")),
        ("p a >= b", ("p a >= b", "", "")),
        ("p '>'", ("p '>'", "", "")),
        ("p ' >'", ("p ' >'", "", "")),
        ("p a > b", ("p a", ">", "b")),
        ("p a >b", ("p a", ">", "b")),
        ("p a >> b", ("p a", ">>", "b")),
        ("p a->b > c", ("p a->b", ">", "c")),
        ("p a | grep 'x > y'", ("p a", "|", "grep 'x > y'")),
        ("p a || b | cat", ("p a || b", "|", "cat")),
        ("p/x (a > b) > c d", ("p/x (a > b)", ">", "c d")),
        ("p a > ./3", ("p a", ">", "./3")),
        ("print a->b", ("print a->b", "", "")),
        ("x/8gx a->b", ("x/8gx a->b", "", "")),
        ("x a->b", ("x a-", ">", "b")),
        ("p*a->b", ("p*a->b", "", "")),
        ("eval 1|2", ("eval 1|2", "", "")),
        ("bt > p", ("bt", ">", "p")),
        ("sym x|cat", ("sym x", "|", "cat")),
        ("list -H &a->b", ("list -H &a->b", "", "")),
        ("list -H &a->b>c", ("list -H &a->b", ">", "c")),
        ("list a>b", ("list a", ">", "b")),
        ("tree &a->b|cat", ("tree &a->b", "|", "cat")),
        ("tree (a > b ? c : d) > e", ("tree (a > b ? c : d)", ">", "e")),
    ],
)
def test_the_line_is_parsed_for_its_command_first(registry: Registry, line: str, parts: tuple[str, str, str]) -> None:
    """In an expression a pipe or redirection has a blank before it and stands outside of brackets."""
    assert split_redirection(registry, line) == parts


@pytest.mark.parametrize("line", ["p a > 3", "p a >> 3", "p a | 4", "p a >", "p a |"])
def test_a_number_is_no_file(registry: Registry, line: str) -> None:
    """Nor is nothing: what was meant is said."""
    with pytest.raises(UsageError):
        split_redirection(registry, line)


@pytest.mark.parametrize(
    "line",
    [
        "p &init_task.tasks.next->next",
        "p init_task.pid>made",
        "p (3 > made)",
        "p 1 | 2",
        "p 3 > 2",
        "p 1 || made",
        "p 5 >= 3",
    ],
)
def test_an_expression_never_becomes_a_file(
    orcdbg_run: RunProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Whatever its value is."""
    monkeypatch.chdir(tmp_path)
    _, out, err = orcdbg_run("demo", "-e", line)
    assert out or err
    assert list(tmp_path.iterdir()) == []


def test_an_answer_goes_where_the_line_says(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """With -e and from a file of commands."""
    target, script = tmp_path / "answer", tmp_path / "script"
    assert orcdbg_run("demo", "-e", f"p init_task.comm > {target}") == (0, "", "")
    assert target.read_text() == '$1 = "swapper/0"\n'
    script.write_text(f"p (3 > 2)\np 3 >> {target}\np init_task.comm | tr a-z A-Z\n")
    status, out, _ = orcdbg_run("demo", "-x", str(script))
    assert (status, out) == (0, '$1 = 1\n$3 = "SWAPPER/0"\n')
    assert target.read_text() == '$1 = "swapper/0"\n$2 = 3\n'


@pytest.mark.parametrize("written", ["0x{0:x}", "{0:016x}", " 0X{0:X} "])
def test_whatis_of_an_address_tells_what_is_there(
    registry: Registry, debugger: Debugger, sample: Session, written: str
) -> None:
    """As `kmem` does, which takes one as well; another number, a name and a sum have a type as before."""
    address = sample.linux.address("schedule") + 2
    found = registry.run(debugger, "whatis " + written.format(address))
    assert encode(found) == encode(registry.run(debugger, f"kmem {address:x}"))
    assert "code: schedule+0x2/" in plain(lines_of(found, None))
    assert shown(registry, debugger, "whatis 16") == "type = int\n"
    assert shown(registry, debugger, f"whatis {address:#x} + 1") == "type = unsigned long\n"
    assert shown(registry, debugger, "whatis schedule").startswith("type = void (void)")


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("dis (schedule)", "dis schedule"),
        ("dis (schedule + 5)", "dis schedule+5"),
        ("dis (&*schedule) 3", "dis schedule 3"),
        ("dis -r (schedule > 0 ? schedule + 5 : 0)", "dis -r schedule+5"),
        ("dis --diff (schedule)  2", "dis --diff schedule 2"),
    ],
)
def test_dis_takes_an_expression_in_brackets(registry: Registry, debugger: Debugger, line: str, same: str) -> None:
    """As crash does, with a number behind it."""
    assert encode(registry.run(debugger, line)) == encode(registry.run(debugger, same))
    assert split_redirection(registry, line) == (line, "", "")


def test_an_expression_of_dis_ends_at_a_pipe(registry: Registry, debugger: Debugger) -> None:
    """Outside of its brackets; where nothing is in brackets words are split as ever."""
    assert split_redirection(registry, "dis (init_task.mm->pgd) 2 | head") == ("dis (init_task.mm->pgd) 2", "|", "head")
    assert split_redirection(registry, "dis schedule>out") == ("dis schedule", ">", "out")
    for wrong in ("dis (schedule", "dis (struct list_head)", "dis ()", "dis (schedule) x", "bt (1)"):
        with pytest.raises(OrcdbgError):
            registry.run(debugger, wrong)

"""Words that a command does not take."""

from __future__ import annotations

import json

import pytest

from orcdbg.base.errors import UsageError, WordPlace
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import CommandParser, Registry
from orcdbg.views.as_text import failure_text
from tests.conftest import RunProgram


def test_a_long_usage_is_brief_and_one_line() -> None:
    """What must be given, and where the rest is; an end of line in a hint would be shown by its escape."""
    parser = CommandParser(prog="long")
    for number in range(20):
        parser.add_argument(f"--option-{number}", type=int)
    parser.add_argument("--needed", required=True)
    parser.add_argument("what", nargs="+")
    with pytest.raises(UsageError) as caught:
        parser.parse_args(["--option-3", "word"])
    assert caught.value.hint == "usage: long [OPTION ...] --needed NEEDED what [what ...]; `help long` has the rest"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("bt --fodled", "--fodled"),
        ("bt  94 --fodled  95", "--fodled"),
        ("bt -n foo 94", "foo"),
        ("log -n x", "x"),
        ("log -n", "-n"),
        ("bt -x -d", "-d"),
        ("bt -d -x", "-x"),
        ("patch list --bogus", "--bogus"),
        ("foreach UN bt --bogus", "--bogus"),
        ("rd -8 schedule x", "x"),
        ("psx 12", "psx"),
        ("sym 'a b' 'c", "'"),
        ("p init_task.pid +", ""),
        ("p (1+2", ""),
        ("p 1 2", "2"),
        ("p init_task.pid = 5", "="),
        ("p $rip $rsp", "$rsp"),
        ("p init_task.comm[0 + ) 3", ")"),
        ("p 1 ` 2", "`"),
    ],
)
def test_what_is_wrong_in_a_line_has_its_place(debugger: Debugger, registry: Registry, line: str, wrong: str) -> None:
    """The last word or sign that is the one; behind the line's end where something is missing."""
    with pytest.raises(UsageError) as refused:
        registry.run(debugger, line)
    place = refused.value.place
    assert place is not None
    assert place.text == line
    end = place.start + place.length
    assert line[place.start : end] == wrong
    assert line.rfind(wrong) == place.start if wrong else place.start == len(line)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("bt --fodled 94", ["    bt --fodled 94", "       ^~~~~~~~"]),
        ("psx", []),
        ("bt >", ["    bt >", "       ^"]),
        ("p 1 > 2", ["    p 1 > 2", "          ^"]),
        ("p \u540d\u524d ` 1", ["    p \u540d\u524d ` 1", "      ^~"]),
        ("bt \x1b[2J --fodled", ["    bt \\x1b[2J --fodled", "               ^~~~~~~~"]),
    ],
)
def test_a_caret_stands_under_what_is_wrong(orcdbg_run: RunProgram, line: str, shown: list[str]) -> None:
    """In text, on standard error; where all of the line is wrong it says nothing more."""
    status, out, err = orcdbg_run("demo", "-e", line)
    told = [each for each in err.splitlines() if not each.startswith(("orcdbg: ", "hint: "))]
    assert (status, out, told) == (2, "", shown)


def test_a_long_line_is_shown_around_what_is_wrong() -> None:
    """As much as fits into the terminal, with dots where it is cut."""
    line = "p " + "1 + " * 60 + "` + " + "1 + " * 60
    error = UsageError("no", place=WordPlace(line, line.index("`")))
    _, shown, caret = failure_text(error, "p", 80).splitlines()
    assert len(shown) <= 80
    assert shown[caret.index("^")] == "`"
    assert shown.strip().startswith("...")
    assert shown.endswith("...")


def test_json_has_no_caret(orcdbg_run: RunProgram) -> None:
    """Its error is as it was: kind, message, hint and state."""
    _, out, err = orcdbg_run("demo", "--format", "json", "-e", "bt --fodled")
    error = json.loads(out)["error"]
    assert (error["kind"], error["message"], err) == ("usage", "unrecognized arguments: --fodled", "")
    assert sorted(error) == ["hint", "kind", "message", "state"]

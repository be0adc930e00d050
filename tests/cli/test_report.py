"""orcdbg report: one file to send along; what a snapshot holds is text in it, whatever it looks like."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from orcdbg.cli.main import sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.target.session import Session
from tests.build.sample import changed_core
from tests.conftest import RunProgram

# A name of 15 bytes that would be a tag, an end of a block of code, a terminal's title, and writing from right to left.
HOSTILE = b"<s>```&\x1b]0;\xe2\x80\xae"
SHOWN = "<s>```&\\x1b]0;\\u202e"


class Page(HTMLParser):
    """The tags of a page, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.pieces: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Notes text."""
        self.pieces.append(data)

    @property
    def text(self) -> str:
        """What is read."""
        return "".join(self.pieces)


@pytest.fixture(scope="module")
def hostile(sample: Session, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sample, in which the panicking task has a name that is none, and so has the one that blocks."""
    places = sample.kernel_memory.places
    offset = sample.types.offset("task_struct", "comm")
    tasks = [Debugger(sample).task, next(task for task in sample.tasks if task.pid == 48)]
    patches = {places.physical_of(task.address + offset): HOSTILE + b"\0" for task in tasks}
    return [sample_files()[0], changed_core(tmp_path_factory.mktemp("hostile") / "core", patches=patches)]


def written(run: RunProgram, path: Path, *files: str) -> str:
    """The report that is written to a path."""
    status, out, err = run("report", *files, "-o", str(path))
    assert (status, err) == (0, "")
    assert out == f"{path}: {path.stat().st_size} bytes\n"
    return path.read_text(encoding="utf-8")


def test_a_page_holds_every_part(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """What it died of, the stack with its reasons, the picture of what is blocked, patches, log, and how it was made."""
    text = written(orcdbg_run, tmp_path / "r.html", "demo")
    page = Page(text)
    anchors = {value for name, value in page.attributes if name == "id"}
    assert anchors == {
        *["analysis", "crashing-stack", "cpus", "blocked", "patches", "log", "modules", "machine", "made"]
    }
    assert "<title>an NMI became a panic in lock_is_held_type+0x52/0x110</title>" in text
    for expected in (
        "nmi-panic lock_is_held_type < rcu_read_lock_any_held < touch_atime",
        "pushfq at +0x51 stands for call *pv_ops irq.save_fl",
        "1 task has this stack  PIDs: 48",
        "15125  ftrace",
        "Kernel panic - not syncing: NMI: Not continuing",
        "The kernel is not tainted",
        "BUILD-ID: 7339d8fddee0241894f65f126b7e6f70d5fb37d7",
        f"orcdbg report demo -o {tmp_path}/r.html",
    ):
        assert expected in page.text
    assert "<title>wait_for_completion_killable: 1 task</title>" in text


def test_a_page_asks_nobody_for_anything(orcdbg_run: RunProgram, hostile: list[str], tmp_path: Path) -> None:
    """Its policy allows its own style sheet alone; there is no script, no style of a tag, and no address to load from."""
    text = written(orcdbg_run, tmp_path / "r.html", *hostile)
    page = Page(text)
    assert page.tags == {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "div", "nav", "a", "main", "section", "h2"),
        *("p", "span", "svg", "rect", "text", "dl", "dt", "dd"),
    }
    assert {name for name, _ in page.attributes} == {
        *("lang", "charset", "http-equiv", "content", "name", "class", "href", "id", "role", "aria-label"),
        *("x", "y", "width", "height"),
    }
    assert all(value is not None and value.startswith("#") for name, value in page.attributes if name == "href")
    policy = next(value for name, value in page.attributes if value and value.startswith("default-src"))
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]{43}='; base-uri 'none'; form-action 'none'", policy
    )
    assert not re.search(r"(?i)<script|javascript:|url\(|@import|\ssrc=", text)


@pytest.mark.parametrize("suffix", [".html", ".md", ".txt"])
def test_a_hostile_name_stays_text(orcdbg_run: RunProgram, hostile: list[str], tmp_path: Path, suffix: str) -> None:
    """Control characters and signs that turn the direction of writing are escapes in every form."""
    text = written(orcdbg_run, tmp_path / f"r{suffix}", *hostile)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert SHOWN in (Page(text).text if suffix == ".html" else text)


def test_no_name_ends_a_block_of_markdown(orcdbg_run: RunProgram, hostile: list[str], tmp_path: Path) -> None:
    """All that is from the snapshot stands between fences that are longer than any row of backticks in it."""
    text = written(orcdbg_run, tmp_path / "r.md", *hostile)
    outside: list[str] = []
    fence = None
    for line in text.splitlines():
        if fence is not None:
            fence = None if line == fence else fence
        elif line.startswith("```"):
            fence = line.removesuffix("text")
        else:
            outside.append(line)
    assert fence is None
    assert [line for line in outside if line] == [
        "# an NMI became a panic in lock\\_is\\_held\\_type\\+0x52/0x110",
        *("## What it died of", "## The crashing stack", "## Every CPU", "## Blocked tasks", "## Patches", "## Log"),
        *("## Modules and taint", "## Machine", "## This report"),
    ]


def test_a_part_that_cannot_be_read_says_why(orcdbg_run: RunProgram, sample: Session, tmp_path: Path) -> None:
    """The others stay."""
    places = [
        sample.memory.explain(address).physical or 0
        for address in map(sample.linux.find_address, ("panic_cpu", "crashing_cpu"))
        if address is not None
    ]
    core = changed_core(tmp_path / "core", patches=dict.fromkeys(places, b"\xff" * 4))
    path = tmp_path / "r.txt"
    status, out, _ = orcdbg_run("report", sample_files()[0], core, "-o", str(path))
    assert (status, out.splitlines()[1:]) == (
        0,
        ["! The crashing stack: bt -p -l: no CPU panicked in this snapshot"],
    )
    text = path.read_text()
    assert "orcdbg> bt -p -l\n! not in this report: no CPU panicked in this snapshot\n" in text
    assert "1 task has this stack  PIDs: 48" in text


def test_where_no_task_is_blocked_the_report_says_so(orcdbg_run: RunProgram, sample: Session, tmp_path: Path) -> None:
    """In a sentence, which is no problem of the report."""
    blocked = [task.address for task in sample.tasks if task.state == "UN"]
    member = next(name for name in ("__state", "state") if sample.types.has("task_struct", name))
    places = [sample.memory.translate(one + sample.types.offset("task_struct", member)) for one in blocked]
    core = changed_core(tmp_path / "core", patches=dict.fromkeys(places, b"\x01"))
    path = tmp_path / "report.txt"
    status, out, _ = orcdbg_run("report", sample_files()[0], core, "-o", str(path))
    assert (status, out) == (0, f"{path}: {path.stat().st_size} bytes\n")
    assert "foreach UN bt --group\nno task is in uninterruptible sleep\n" in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["demo"], 2, "the following arguments are required: -o/--output"),
        (["demo", "-o", "report"], 2, "report: its suffix does not say what to write"),
        (["demo", "-o", "/nonexistent/r.html"], 2, "/nonexistent/r.html: cannot be written"),
        (["/nonexistent", "-o", "r.html"], 3, "/nonexistent"),
    ],
)
def test_what_cannot_be_written(orcdbg_run: RunProgram, words: list[str], status: int, says: str) -> None:
    """One line, and the exit status of the contract."""
    found, out, err = orcdbg_run("report", *words)
    assert (found, out) == (status, "")
    assert says in err.splitlines()[0]


def test_no_input_is_replaced(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Whatever the snapshot's file is called, and whatever leads to it."""
    core = changed_core(tmp_path / "core.html")
    link = tmp_path / "link.txt"
    link.symlink_to(core)
    before = Path(core).read_bytes()
    for path in (core, str(link)):
        status, _, err = orcdbg_run("report", sample_files()[0], core, "-o", path)
        assert (status, err.splitlines()[0]) == (
            2,
            f"orcdbg: {path}: is one of the files that are read, and is not replaced",
        )
    assert Path(core).read_bytes() == before


def test_the_answer_for_programs(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Where the file is, how large, and what it lacks."""
    path = tmp_path / "r.html"
    status, out, _ = orcdbg_run("report", "demo", "-o", str(path), "--format", "json")
    answer = json.loads(out)
    assert (status, answer["command"]) == (0, "report")
    assert answer["result"] == {"path": str(path), "size": path.stat().st_size, "missing": []}

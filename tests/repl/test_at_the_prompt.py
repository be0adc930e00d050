"""orcdbg at a terminal: what is on the screen after which keys, on a narrow terminal and on a wide one."""

from __future__ import annotations

import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orcdbg.cli.main import sample_files
from tests.repl.terminal import CTRL_C, CTRL_D, CTRL_R, ENTER, TAB, Terminal

Open = Callable[..., Terminal]
LINES = 50


@pytest.fixture(scope="module")
def open_terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Starts orcdbg on the sample; whatever it does, it ends with the tests."""
    opened: list[Terminal] = []

    def open_one(columns: int, *options: str, home: Path | None = None, **environment: str) -> Terminal:
        folder = home or tmp_path_factory.mktemp("home")
        opened.append(Terminal([*sample_files(), *options], columns, LINES, folder, environment))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.close()


@pytest.fixture(scope="module", params=[80, 160])
def terminal(request: pytest.FixtureRequest, open_terminal: Open) -> Terminal:
    """A terminal with the banner still on it; who changes the selection changes it back."""
    opened = open_terminal(request.param)
    opened.wait("| frame 0")
    return opened


def test_the_banner_the_prompt_and_the_toolbar(terminal: Terminal) -> None:
    """Six lines, then the prompt; the last of them says where help is."""
    lines = terminal.lines
    assert len(lines) == 8
    assert lines[0].startswith("orcdbg ")
    assert 'Selected: the task that panicked, PID 135 "cat"' in lines
    assert lines[-3].startswith("`help` lists the commands")
    assert lines[-2] == "orcdbg>"
    assert lines[-1] == " 5.10.223 | task 135 cat | cpu 0 | frame 0"


def test_the_quiet_option_leaves_the_banner_out(open_terminal: Open) -> None:
    """Of all lines only the prompt and the toolbar are left."""
    opened = open_terminal(80, "-q")
    opened.wait("| frame 0")
    assert [line.split(" |")[0] for line in opened.lines] == ["orcdbg>", " 5.10.223"]


def test_a_stack_fits_the_terminal(terminal: Terminal) -> None:
    """The corrected frame has its mark, and no line is broken by the terminal itself."""
    text = terminal.run("bt", "14 ORC as built, 1 corrected")
    assert any(line.startswith("~#6") and "lock_is_held_type+0x52/0x110" in line for line in terminal.lines)
    assert "registers." in text


def test_answers_are_painted(terminal: Terminal) -> None:
    """A function's name is not the colour of the mark before it."""
    terminal.run("bt", "14 ORC as built, 1 corrected")
    assert "\x1b[36mlock_is_held_type" in terminal.raw


def test_the_prompt_names_the_selected_frame(terminal: Terminal) -> None:
    """And the toolbar does; frame 0 is not worth a word."""
    terminal.run("frame 6", "lock_is_held_type")
    terminal.wait("| frame 6")
    assert terminal.input_line == "(frame 6) orcdbg>"
    terminal.run("frame 0", "delay_tsc")
    terminal.wait("| frame 0")
    assert terminal.input_line == "orcdbg>"


def test_tab_completes_a_command(terminal: Terminal) -> None:
    """A single match is finished with a blank."""
    terminal.start_over()
    terminal.send("foreac" + TAB)
    terminal.wait("orcdbg> foreach")


def test_tab_shows_options_with_their_help(terminal: Terminal) -> None:
    """What they have in common is inserted, the rest is a menu."""
    terminal.start_over()
    terminal.send("dis --d" + TAB)
    terminal.wait("orcdbg> dis --diff")
    terminal.start_over()
    terminal.send("mod -" + TAB)
    terminal.wait("only modules that taint the kernel")


def test_tab_completes_a_symbol(terminal: Terminal) -> None:
    """Out of all the kernel's names."""
    terminal.start_over()
    terminal.send("sym lock_is_h" + TAB)
    terminal.wait("orcdbg> sym lock_is_held_type")


def test_tab_shows_tasks_with_their_names(terminal: Terminal) -> None:
    """A pid alone says little."""
    terminal.start_over()
    terminal.send("bt 13" + TAB)
    terminal.wait("135    cat")


def test_an_answer_goes_into_a_program(terminal: Terminal) -> None:
    """Without the width of the terminal: the return slots are there."""
    terminal.run("bt | grep -o 'fffffe000000de30.*panic'", "fffffe000000de30]  panic")


def test_an_answer_goes_into_a_file(terminal: Terminal, tmp_path: Path) -> None:
    """Plain, and appended where that was asked for; nothing is printed."""
    file = tmp_path / "out"
    for line in (f"sym linux_banner > {file}", f"sym linux_banner >> {file}"):
        assert len(terminal.run(line, "sym linux_banner").splitlines()) <= 4
    lines = file.read_text().splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert "linux_banner" in lines[0] and "\x1b" not in lines[0]


def test_a_file_that_cannot_be_written_is_named(terminal: Terminal) -> None:
    """In one line."""
    terminal.run("bt > /no/such/file", "orcdbg: /no/such/file: cannot be written: No such file or directory")


def test_a_pipe_to_nowhere_is_refused(terminal: Terminal) -> None:
    """For cmd2 a bare `>` is the clipboard."""
    terminal.run("bt >", "orcdbg: bt: nothing after >: bt >")


def test_an_unknown_command_is_two_lines(terminal: Terminal) -> None:
    """What is wrong, and what to do."""
    lines = terminal.run("frobnicate 1", "hint: `help` lists the commands").splitlines()
    assert lines[1] == "orcdbg: frobnicate: no such command: frobnicate"
    assert "Traceback" not in terminal.raw


def test_what_cmd2_brings_besides_is_gone(terminal: Terminal) -> None:
    """Its editor, its Python and its settings are not orcdbg's."""
    for word in ("edit", "ipy", "run_pyscript", "shortcuts"):
        terminal.run(word, f"no such command: {word}")


def test_aliases_macros_and_the_shell_work(terminal: Terminal) -> None:
    """As help says."""
    terminal.run("alias create banner sym linux_banner", "Alias 'banner' created")
    terminal.run("banner", "linux_banner/")
    terminal.run("alias flag sym linux_banner", "Alias 'flag' created")
    terminal.run("flag", "linux_banner/")
    terminal.run("macro create place sym {1}", "Macro 'place' created")
    terminal.run("place linux_banner", "linux_banner/")
    terminal.run("!echo one two", "one two")
    terminal.run("?sym", "usage: sym")


def test_ctrl_c_at_the_prompt_drops_the_line_only(terminal: Terminal) -> None:
    """The session stays."""
    terminal.start_over()
    terminal.send("dis lock")
    terminal.wait("dis lock")
    terminal.send(CTRL_C)
    terminal.wait_for_prompt()
    terminal.run("sym linux_banner", "linux_banner/")


def test_an_empty_line_does_nothing(terminal: Terminal) -> None:
    """Not even the last command again."""
    terminal.run("sym linux_banner", "linux_banner/")
    terminal.start_over()
    terminal.send(ENTER + ENTER)
    terminal.wait("orcdbg>\norcdbg>\norcdbg>")
    assert "linux_banner" not in terminal.text


def test_ctrl_r_finds_an_earlier_line(terminal: Terminal) -> None:
    """By any part of it."""
    terminal.run("sym linux_banner", "linux_banner/")
    terminal.start_over()
    terminal.send(CTRL_R + "ux_ba")
    terminal.wait("sym linux_banner")
    terminal.send(CTRL_C)
    terminal.wait_for_prompt()


LONG_COMMAND = "sym -q" + 40 * " ''"


def test_ctrl_c_stops_the_command_and_not_the_session(open_terminal: Open) -> None:
    """Many listings of all symbols take long enough to be stopped."""
    terminal = open_terminal(80)
    terminal.wait_for_prompt()
    terminal.send(LONG_COMMAND + ENTER)
    terminal.wait("sym -q")
    terminal.wait_for_command()
    terminal.send(CTRL_C)
    terminal.wait("orcdbg: interrupted")
    terminal.run("sym linux_banner", "linux_banner/")
    terminal.send("quit" + ENTER)
    assert terminal.wait_for_end() == 0


def test_hammering_ctrl_c_does_not_end_the_session(open_terminal: Open) -> None:
    """Wherever between two prompts the later ones arrive."""
    terminal = open_terminal(80)
    for _ in range(2):
        terminal.start_over()
        terminal.send(LONG_COMMAND + ENTER)
        terminal.wait_for_command()
        for _ in range(40):
            terminal.send(CTRL_C)
            time.sleep(0.001)
    assert "Traceback" not in terminal.raw
    terminal.run("sym linux_banner", "linux_banner/")


@pytest.mark.skipif(shutil.which("less") is None, reason="the pager is less")
def test_long_answers_are_paged_unless_scroll_is_off(open_terminal: Open) -> None:
    """The pager is less, and q leaves it."""
    terminal = open_terminal(80)
    terminal.wait_for_prompt()
    terminal.send("dis lock_is_held_type" + ENTER)
    terminal.wait("\n:")
    terminal.send("q")
    terminal.wait_for_prompt()
    terminal.run("set scroll off", "set scroll off")
    terminal.run("dis lock_is_held_type", "<+0x10")
    terminal.send(CTRL_D)
    assert terminal.wait_for_end() == 0


def test_lines_are_kept_for_the_next_session(open_terminal: Open, tmp_path: Path) -> None:
    """In a folder of one's own, and offered in grey while typing; what lies in the current folder is not run."""
    for name in (".orcdbgrc", ".cmd2rc", ".gdbinit", "startup"):
        (tmp_path / name).write_text(f"!touch {tmp_path}/was_run\n")
    first = open_terminal(80, home=tmp_path)
    first.wait_for_prompt()
    first.run("sym linux_banner", "linux_banner/")
    first.send("q" + ENTER)
    assert first.wait_for_end() == 0
    folder = tmp_path / "state" / "orcdbg"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.name for file in folder.iterdir()] == ["history"]
    second = open_terminal(80, home=tmp_path)
    second.wait_for_prompt()
    second.send("sym l")
    second.wait("sym linux_banner")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(("options", "environment"), [(["--color=never"], {}), ([], {"NO_COLOR": "1"})])
def test_without_colour_no_colour_is_sent(open_terminal: Open, options: list[str], environment: dict[str, str]) -> None:
    """Neither in answers nor in the line that is typed, the menus and the toolbar."""
    terminal = open_terminal(80, *options, **environment)
    terminal.wait_for_prompt()
    terminal.run("bt", "14 ORC as built, 1 corrected")
    terminal.send("bt -" + TAB)
    terminal.wait("--all-cpus")
    styles = {code for found in re.findall(r"\x1b\[([0-9;]*)m", terminal.raw) for code in found.split(";")}
    assert styles <= {"", "0", "7"}


def test_python_of_several_lines_runs_at_its_end(open_terminal: Open) -> None:
    """`>` in it is Python's; then the prompt is the old one."""
    terminal = open_terminal(80)
    terminal.wait_for_prompt()
    terminal.send("py" + ENTER)
    terminal.wait("py>")
    for text in (
        "for task in session.tasks:",
        "    if task.pid > 0 and task.pid < 2:",
        "        print('it is', task.comm)",
    ):
        terminal.send(text + ENTER)
    terminal.send("end" + ENTER)
    terminal.wait("it is init")
    for key in (CTRL_C, CTRL_D):
        terminal.start_over()
        terminal.send("py" + ENTER)
        terminal.wait("py>")
        terminal.send(key)
        terminal.wait_for_prompt()
    terminal.run("py 3 * 4", "12")

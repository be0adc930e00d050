"""What help says of commands, options and topics, and where it breaks lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orcdbg.commands.apropos import HelpMatches
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.help_topics import TOPICS
from orcdbg.commands.registry import Command, Registry
from orcdbg.commands.result import TextLines
from orcdbg.commands.standard import standard_commands
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import fitted, line, plain

COMMANDS = list(standard_commands().commands.values())


def lines_for(registry: Registry, debugger: Debugger, line: str) -> list[str]:
    """What a line of help answers."""
    found = registry.run(debugger, line)
    assert isinstance(found, TextLines)
    return list(found.lines)


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_fits_a_narrow_terminal(registry: Registry, debugger: Debugger, name: str) -> None:
    """In a screen of text, at most 79 columns wide, which says where there is more."""
    told = TOPICS[name].lines
    assert max(map(len, told)) <= 79
    assert 8 <= len(told) <= 30
    assert told[-1].startswith("See also: ")
    shown = lines_for(registry, debugger, f"help {name}")
    assert shown[-len(told) :] == told


def test_a_topic_that_is_a_command_too_stands_behind_its_help(registry: Registry, debugger: Debugger) -> None:
    """`help orc` is of the command first."""
    shown = lines_for(registry, debugger, "help orc")
    assert shown[0] == "usage: orc [-h] [ADDR|SYMBOL]"
    assert "  orc schedule+0x46  row as built, and as corrected for patches" in shown


def test_topics_name_commands_pages_and_options_that_there_are(registry: Registry, debugger: Debugger) -> None:
    """What stands after "See also", and each first word of a line that is set off as a command with a blank behind it."""
    text = "\n".join(topic.text for topic in TOPICS.values())
    for named in re.findall(r"See also: (.*)", text):
        for part in re.split(r"[;,] ", named.partition("docs/")[0].rstrip("; ")):
            if part:
                assert registry.find(part.split()[0]) is not None, part
    for word in re.findall(r"(?m)^  ((?:patch|dis|set) .*?)  ", text):
        assert registry.find(word.split()[0]) is not None
    for page in re.findall(r"docs/([a-z-]+[.]md)", text):
        assert (Path("docs") / page).is_file()


def test_help_lists_the_topics(registry: Registry, debugger: Debugger) -> None:
    """Behind the commands."""
    text = "\n".join(lines_for(registry, debugger, "help"))
    assert all(name in text.rpartition("Topics are: ")[2] for name in TOPICS)
    assert "`apropos WORD`" in text


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("apropos idle", "bt -n, --without"),
        ("apropos IDLE", "workqueue -a, --all"),
        ("apropos backtrace", "bt, where, backtrace"),
        ("apropos speedscope", "bt --speedscope"),
        ("apropos replayed", "patch replay"),
        ("apropos keys", "help keys"),
        ("apropos crash words", "help from-crash"),
    ],
)
def test_apropos_finds_commands_options_and_topics(
    registry: Registry, debugger: Debugger, line: str, found: str
) -> None:
    """By name, alias or summary, whatever the case of letters."""
    answer = registry.run(debugger, line)
    assert isinstance(answer, HelpMatches)
    assert found in [match.line for match in answer.matches]
    words = line.lower().split()[1:]
    assert all(word in f"{match.line} {match.summary}".lower() for match in answer.matches for word in words)


def test_apropos_without_a_match_says_so(registry: Registry, debugger: Debugger) -> None:
    """And succeeds; its JSON is an empty list."""
    answer = registry.run(debugger, "apropos nothing_is_called_so")
    assert plain(lines_of(answer, 80)) == "0 commands, options or topics\n"
    assert encode(answer) == {"matches": []}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_breaks_lines_between_words(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns every word of the help is one that stands in it at 400 columns, too, and there are no others."""
    words = []
    for columns in (80, 400):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = plain(fitted([line(text) for text in command.help_lines()], columns))
        words.append(sorted(shown.split()))
    assert words[0] == words[1]

"""What a parser says of itself is ours to the letter, whatever Python reads the line."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import pytest

from orcdbg.commands.usage import PlainParser, usage

WORDS = """\
usage: paint [-h] [-c CPU] [--size W H] (--oil | --water KIND) --on {wall,door}
             WHAT [WHAT ...] {list,stop} ...

Paint what is named, by one of two means.

positional arguments:
  WHAT               what to paint
  {list,stop}
    list             show what was painted
    stop

options:
  -h, --help         show this help message and exit
  -c CPU, --cpu CPU  which processor, of more than there are words for in one
                     line of help
  --size W H
  --oil              slow
  --water KIND       quick, 100% of the time
  --on {wall,door}   one of wall, door (default: wall)
"""


@pytest.fixture
def paint() -> PlainParser:
    """A parser with each form of operand and option that orcdbg or a plug-in may have."""
    parser = PlainParser(prog="paint", description="Paint what is named,\nby one of two means.")
    parser.add_argument("what", nargs="+", metavar="WHAT", help="what to paint")
    parser.add_argument("-c", "--cpu", help="which processor, of more than there are words for in one line of help")
    parser.add_argument("--size", nargs=2, metavar=("W", "H"))

    means = parser.add_mutually_exclusive_group(required=True)
    means.add_argument("--oil", action="store_true", help="slow")
    means.add_argument("--water", metavar="KIND", help="quick, 100%% of the time")

    parser.add_argument(
        "--on",
        choices=("wall", "door"),
        default="wall",
        required=True,
        help="one of %(choices)s (default: %(default)s)",
    )
    parser.add_argument("--secret", help=argparse.SUPPRESS)

    actions = parser.add_subparsers()
    actions.add_parser("list", help="show what was painted").add_argument("--all", action="store_true")
    actions.add_parser("stop", help="")
    return parser


def test_help_is_the_same_on_every_python(paint: PlainParser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options show their value beside each name, labels share a column, and nothing is said of hidden options."""
    monkeypatch.setenv("COLUMNS", "82")
    assert paint.format_help() == WORDS


def test_usage_without_a_width_is_one_line(paint: PlainParser) -> None:
    """A hint stands on one line."""
    assert usage(paint) == (
        "usage: paint [-h] [-c CPU] [--size W H] (--oil | --water KIND) --on {wall,door} WHAT [WHAT ...] {list,stop} ..."
    )


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_wrapped_usage_has_the_words_of_the_long_one(paint: PlainParser, columns: int) -> None:
    """Wrapping drops nothing, and breaks only between parts."""
    lines = usage(paint, columns).splitlines()
    assert " ".join(" ".join(lines).split()) == usage(paint)
    assert all("[-c CPU]" in line for line in lines if "CPU" in line)


def test_a_word_that_is_no_choice_is_refused_with_the_choices(paint: PlainParser) -> None:
    """Neither quotes nor suggestions depend on the Python."""
    with pytest.raises(argparse.ArgumentError) as refused:
        paint._check_value(paint._option_string_actions["--on"], "wal")
    assert str(refused.value) == "argument --on: invalid choice: 'wal' (choose from 'wall', 'door')"


@pytest.mark.parametrize("words", [["--help"], ["demo", "-e", "help bt"], ["demo", "-e", "patch list -h"]])
def test_help_off_a_terminal_is_never_coloured(words: list[str]) -> None:
    """FORCE_COLOR makes argparse of Python 3.14 send escapes into a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "orcdbg", *words],
        env={**os.environ, "FORCE_COLOR": "1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"usage: ")
    assert b"\x1b" not in done.stdout + done.stderr

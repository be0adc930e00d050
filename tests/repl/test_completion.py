"""Completion as a pure function: the words before the cursor and the beginning of a word in, offers out."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.commands.registry import Command, Registry
from orcdbg.commands.result import Nothing
from orcdbg.commands.standard import standard_commands
from orcdbg.repl.completion import LIMIT, Completer, Offer, Source, matches


def listed(*names: str) -> Source:
    """A source of these names."""
    return lambda prefix: matches(sorted(names), prefix)


@pytest.fixture
def completer() -> Completer:
    """orcdbg's own commands over a few words of each kind."""
    sources = {
        "symbol": listed("schedule", "schedule_timeout", "jiffies"),
        "task": listed("1", "94"),
        "frame": listed("0", "1", "6"),
        "cpu": listed("0", "1"),
        "setting": listed("radix", "scroll"),
        "command": listed("bt", "dis"),
        "mechanism": listed("alternative", "paravirt"),
    }
    return Completer(standard_commands(), sources)


def words(offers: Sequence[Offer]) -> list[str]:
    """The offers without their notes."""
    return [offer.text for offer in offers]


def test_the_first_word_is_a_command_with_its_summary(completer: Completer) -> None:
    """Names and aliases alike."""
    assert completer.first_word("foreac") == [
        Offer("foreach", "run a command for many tasks: bt, task, files, vm, vtop, net, sig, ps")
    ]
    assert "man" in words(completer.first_word("ma"))


def test_the_users_own_words_stand_among_the_commands(completer: Completer) -> None:
    """In one sorted list."""
    assert words(completer.first_word("do", {"dots": "an alias"})) == ["dots", "down"]


@pytest.mark.parametrize(
    ("line", "prefix", "expected"),
    [
        ("sym", "sched", ["schedule", "schedule_timeout"]),
        ("dis --diff", "jif", ["jiffies"]),
        ("bt", "", ["1", "94"]),
        ("bt 1", "9", ["94"]),
        ("frame", "", ["0", "1", "6"]),
        ("set", "", ["1", "94", "radix", "scroll"]),
        ("set radix", "", ["-c", "--cpu", "-p", "--panic"]),
        ("help", "d", ["dis"]),
        ("man", "d", ["dis"]),
        ("patch", "", ["at", "audit", "check", "export", "list", "replay"]),
        ("patch at", "sched", ["schedule", "schedule_timeout"]),
        ("patch at", "para", []),
        ("patch list --mechanism", "", ["alternative", "paravirt"]),
        ("patch list", "--mechanism=p", ["--mechanism=paravirt"]),
        ("patch list --symbol", "jif", ["jiffies"]),
        ("patch list --changed --m", "", ["--mechanism", "--symbol"]),
        ("bt --why", "", ["0", "1", "6"]),
        ("bt -c", "", ["0", "1"]),
        ("bt -c 1", "9", ["94"]),
        ("rd jiffies", "1", []),
        ("rd -s", "jif", ["jiffies"]),
        ("nonsense", "", []),
    ],
)
def test_a_later_word_is_what_the_commands_parser_takes_there(
    completer: Completer, line: str, prefix: str, expected: list[str]
) -> None:
    """Operands by kind, values of options, subcommands; a count or an unknown command gets no offers."""
    assert words(completer.later_word(line.split(), prefix)) == expected


def test_options_come_with_their_help_and_only_once(completer: Completer) -> None:
    """An option that stands in the line already is not offered again, by any of its names."""
    assert Offer("--all-cpus", "the task that each CPU runs") in completer.later_word(["bt"], "-")
    assert not {"-a", "--all-cpus"} & set(words(completer.later_word(["bt", "-a"], "-")))


def test_help_is_offered_to_those_who_began_an_option(completer: Completer) -> None:
    """`quit` takes nothing, so an empty word there stays empty."""
    assert words(completer.later_word(["quit"], "")) == []
    assert words(completer.later_word(["quit"], "-")) == ["-h", "--help"]


def test_options_stand_beside_their_short_forms(completer: Completer) -> None:
    """Sorted by letter, not by the number of dashes."""
    found = words(completer.later_word(["ps"], "-"))
    assert [name.lstrip("-").lower() for name in found] == sorted(name.lstrip("-").lower() for name in found)


def test_a_plug_ins_choices_are_offered() -> None:
    """For operands and for options; a kind that nobody knows offers nothing."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("size", choices=("small", "large"))
        parser.add_argument("other", nargs="?")
        parser.add_argument("--speed", choices=(1, 2))

    command = Command("paint", "", "", lambda debugger, given: Nothing(), arguments, operands=("colour",))
    completer = Completer(Registry([command]), {})
    assert words(completer.later_word(["paint"], "")) == ["large", "small"]
    assert words(completer.later_word(["paint", "--speed"], "")) == ["1", "2"]
    assert words(completer.later_word(["paint", "small"], "x")) == []


@given(st.lists(st.text("ab_", min_size=1, max_size=5), max_size=60), st.text("ab_", max_size=4))
def test_bisection_finds_what_a_scan_finds(names: list[str], prefix: str) -> None:
    """Lookup in the sorted list equals the linear scan."""
    unique = sorted(set(names))
    assert words(matches(unique, prefix)) == [name for name in unique if name.startswith(prefix)]


@given(st.integers(0, 1 << 32), st.integers(LIMIT + 1, LIMIT + 80))
def test_too_many_matches_still_agree_on_what_can_be_typed_for_all(seed: int, count: int) -> None:
    """The offers' common beginning, which Tab inserts, is that of all matches."""
    names = [f"{number:09b}" for number in random.Random(seed).sample(range(512), count)]
    offers = words(matches(sorted(names), ""))
    beginnings = [offers[0][:length] for length in range(len(offers[0]) + 1)]
    shared = max((b for b in beginnings if all(offer.startswith(b) for offer in offers)), key=len)
    assert all(name.startswith(shared) for name in names)
    assert len(offers) <= LIMIT


def test_what_many_matches_share_is_offered_alone() -> None:
    """One Tab goes as far as all of them go, and no blank follows."""
    names = [f"sched_{number:04}" for number in range(5000)]
    assert matches(names, "sc") == [Offer("sched_", whole=False)]


def test_the_last_of_too_many_says_how_many_are_missing() -> None:
    """A cut list does not pass for a whole one."""
    names = [f"{letter}{number:03}" for letter in "abc" for number in range(100)]
    offers = matches(names, "")
    assert len(offers) == LIMIT
    assert offers[-1] == Offer("c099", "200 more are not shown")


def test_a_key_answers_at_once_at_two_hundred_thousand_symbols() -> None:
    """30 ms a key, whatever the prefix."""
    names = sorted(f"{a}_{b}_{c}" for a in range(60) for b in range(60) for c in range(60))
    completer = Completer(standard_commands(), {"symbol": lambda prefix: matches(names, prefix)})
    for prefix in ("", "1", "5_", "59_59_", "none"):
        assert min(_seconds(lambda p=prefix: completer.later_word(["sym"], p)) for _ in range(3)) < 0.03  # type: ignore[misc]


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start

"""help: the commands in groups, or one of them with all its words."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.help_topics import TOPICS
from orcdbg.commands.known_words import TOPICS as OTHER_DEBUGGERS
from orcdbg.commands.known_words import topic_lines
from orcdbg.commands.registry import Command, Effect, Registry, command
from orcdbg.commands.result import TextLines


def _arguments(parser: argparse.ArgumentParser) -> None:
    topics = ", ".join((*TOPICS, *OTHER_DEBUGGERS))
    parser.add_argument(
        "command", nargs="?", help=f"the command to explain (default: list them all), or a topic: {topics}"
    )


@command(
    "help",
    summary="list the commands, or explain one",
    group="session",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("?", "man"),
    operands=("command",),
    examples=(
        ("help bt", "all of one command"),
        ("help from-crash", "what crash's words are here"),
        ("help from-gdb", "and gdb's"),
        ("help cfa", "what stands in a frame's line; also patches, keys, input, output"),
    ),
)
def help_(debugger: Debugger, arguments: argparse.Namespace) -> TextLines:
    """Answers with what the registry, which runs this, says of its commands."""
    registry: Registry = arguments.registry
    if arguments.command is None:
        return TextLines(overview(registry))
    if arguments.command in OTHER_DEBUGGERS:
        return TextLines(list(topic_lines(registry, arguments.command)))
    explained = registry.find(arguments.command)
    topic = TOPICS.get(arguments.command)
    if topic is not None:
        # `orc` is both.
        own = [*explained.help_lines(), ""] if explained is not None else []
        return TextLines([*own, *topic.lines])
    if explained is None:
        raise registry.unknown(arguments.command)
    return TextLines(explained.help_lines())


def overview(registry: Registry) -> list[str]:
    """The commands in groups, a line each, with one example each."""
    groups: dict[str, list[Command]] = {}
    for listed in registry.commands.values():
        groups.setdefault(listed.group, []).append(listed)
    width = max(len(name) for name in registry.commands)

    lines: list[str] = []
    for group, members in groups.items():
        lines.append(group.upper())
        for member in members:
            lines.append(f"  {member.name:<{width}}  {member.summary}")
            lines += [f"  {'':<{width}}    {line}" for line, _ in member.examples[:1]]
        lines.append("")
    return [
        *lines,
        "`help COMMAND` shows a command's words and examples. `cmd | grep x`, `cmd > file` work too.",
        "`apropos WORD` finds commands, options and topics. Topics are: " + ", ".join(TOPICS),
        "`help from-crash` and `help from-gdb` say what the words of these are here.",
    ]

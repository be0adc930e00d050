"""How are a parser's usage, help and complaints worded, the same on every Python?

argparse words its help as its release likes: 3.13 gives an option's value only once ("-c, --cpu CPU"), 3.14 adds colour
and suggestions, and each wraps in its own way. Its formatter classes are private but for their names. So the text is
written here, from what the parser was told; only reading a line stays argparse's.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator, Sequence

_MOST_LABEL_COLUMNS = 24
_LEAST_TEXT_COLUMNS = 11
_INDENT = 2
_PREFIX = "usage: "
_BRIEF = 140  # characters of a hint that is read at a glance


class PlainParser(argparse.ArgumentParser):
    """An argument parser whose texts do not depend on the Python that runs it, and are never coloured."""

    def format_usage(self) -> str:
        """Returns the usage, wrapped to the terminal, with an end of line."""
        return usage(self, _terminal_columns()) + "\n"

    def format_help(self) -> str:
        """Returns usage, description, arguments and epilog, wrapped to the terminal, with an end of line."""
        return _help(self, _terminal_columns())

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # argparse calls this for every word that has choices; releases differ in quotes, and in what they suggest.
        if action.choices is not None and value not in action.choices:
            choices = ", ".join(map(repr, action.choices))
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} (choose from {choices})")


def usage(parser: argparse.ArgumentParser, columns: int | None = None) -> str:
    """Returns the usage of `parser`: in lines of at most `columns`, or in one line without."""
    if parser.usage is not None:
        return _PREFIX + parser.usage % {"prog": parser.prog}

    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    options = _usage_parts(parser, [action for action in shown if action.option_strings])
    operands = _usage_parts(parser, [action for action in shown if not action.option_strings])
    line = " ".join([_PREFIX + parser.prog, *options, *operands])

    if columns is None or len(line) <= columns:
        return line

    head = _PREFIX + parser.prog
    if len(head) <= 0.75 * columns:
        # Options begin beside the program's name; operands have lines of their own.
        indent = " " * (len(head) + 1)
        lines = [*_filled(options, columns, indent), *_filled(operands, columns, indent)]
        return "\n".join([head + lines[0][len(head) :], *lines[1:]]) if lines else head

    indent = " " * len(_PREFIX)
    together = _filled([*options, *operands], columns, indent)
    if len(together) > 1:
        together = [*_filled(options, columns, indent), *_filled(operands, columns, indent)]
    return "\n".join([head, *together])


def help_line(parser: argparse.ArgumentParser) -> str:
    """Returns the line that explains all of what `parser` reads, which may be a part of a command."""
    return f"{parser.prog} --help" if " " in parser.prog else f"help {parser.prog}"


def brief_usage(parser: argparse.ArgumentParser) -> str:
    """Returns the usage in one line, which is two or three on a narrow terminal: of many options it names none."""
    whole = usage(parser)
    if len(whole) <= _BRIEF:
        return whole
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    needed = [action for action in shown if action.option_strings and action.required]
    operands = [action for action in shown if not action.option_strings]
    words = [_PREFIX + parser.prog, "[OPTION ...]", *_usage_parts(parser, needed), *_usage_parts(parser, operands)]
    return f"{' '.join(words)}; `{help_line(parser)}` has the rest"


def _terminal_columns() -> int:
    # Two columns stay free, as argparse leaves them.
    return shutil.get_terminal_size().columns - 2


def _filled(parts: Sequence[str], columns: int, indent: str) -> list[str]:
    """Puts as many `parts` on a line as fit; none is ever broken."""
    lines: list[str] = []

    for part in parts:
        if lines and len(lines[-1]) + 1 + len(part) <= columns:
            lines[-1] += f" {part}"
        else:
            lines.append(indent + part)

    return lines


def _usage_parts(parser: argparse.ArgumentParser, actions: Sequence[argparse.Action]) -> list[str]:
    """Returns what a usage line says of each action, or of each group of which only one may be given."""
    parts: list[str] = []
    rest = list(actions)

    while rest:
        group = _group_at_start(parser, rest)

        if group is None:
            parts += _parts_alone(rest.pop(0))
            continue

        members = [_in_group(rest.pop(0)) for _ in _shown_members(group)]
        choice = " | ".join(members)
        if not group.required:
            choice = f"[{choice}]"
        elif len(members) > 1:
            choice = f"({choice})"
        parts.append(choice)

    return parts


def _group_at_start(
    parser: argparse.ArgumentParser, actions: Sequence[argparse.Action]
) -> argparse._MutuallyExclusiveGroup | None:
    for group in parser._mutually_exclusive_groups:
        members = _shown_members(group)
        # Members that stand apart cannot be drawn as a group, and are named each by itself.
        if members and list(actions[: len(members)]) == members:
            return group
    return None


def _shown_members(group: argparse._MutuallyExclusiveGroup) -> list[argparse.Action]:
    return [action for action in group._group_actions if action.help != argparse.SUPPRESS]


def _parts_alone(action: argparse.Action) -> list[str]:
    if not action.option_strings:
        return _operand_parts(action)

    option = " ".join([action.option_strings[0], *_operand_parts(action)])
    return option.split(" ") if action.required else [f"[{option}]"]


def _in_group(action: argparse.Action) -> str:
    operands = " ".join(_operand_parts(action))
    if action.option_strings:
        return f"{action.option_strings[0]} {operands}".rstrip()
    return operands.removeprefix("[").removesuffix("]")


def _operand_parts(action: argparse.Action) -> list[str]:
    """Returns how often an action's value is given, as a usage line writes it."""
    names = _value_names(action)
    first, last = names[0], names[-1]

    match action.nargs:
        case None:
            return [first]
        case argparse.OPTIONAL:
            return [f"[{first}]"]
        case argparse.ZERO_OR_MORE:
            return [f"[{first} [{last} ...]]" if len(names) == 2 else f"[{first} ...]"]
        case argparse.ONE_OR_MORE:
            return [first, f"[{last} ...]"]
        case argparse.REMAINDER:
            return ["..."]
        case argparse.PARSER:
            return [first, "..."]
        case int(count):
            return list(names) if len(names) == count else [first] * count
        case _:
            return []


def _value_names(action: argparse.Action) -> tuple[str, ...]:
    if isinstance(action.metavar, tuple):
        return action.metavar
    if action.metavar is not None:
        return (action.metavar,)
    if action.choices is not None:
        return ("{" + ",".join(map(str, action.choices)) + "}",)
    return (action.dest.upper() if action.option_strings else action.dest,)


def _help(parser: argparse.ArgumentParser, columns: int) -> str:
    blocks = [usage(parser, columns), _prose(parser, parser.description, columns)]
    rows = {group: list(_rows(parser, group)) for group in parser._action_groups}
    labels = [_INDENT + len(label.strip()) for members in rows.values() for label, _ in members]
    most = min(_MOST_LABEL_COLUMNS, max(columns - 20, 2 * _INDENT))
    column = min(max(labels, default=0) + _INDENT, most)

    for group, members in rows.items():
        described = _prose(parser, group.description, columns - _INDENT)
        lines = textwrap.indent(described, " " * _INDENT).splitlines()
        lines += [""] if lines and members else []
        lines += [line for label, text in members for line in _row_lines(label, text, column, columns)]
        if lines:
            blocks.append("\n".join([f"{group.title}:", *lines] if group.title else lines))

    blocks.append(_prose(parser, parser.epilog, columns))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _prose(parser: argparse.ArgumentParser, text: str | None, columns: int) -> str:
    if text is None or text == argparse.SUPPRESS:
        return ""
    if "%(prog)" in text:
        text = text % {"prog": parser.prog}
    if parser.formatter_class in (argparse.RawDescriptionHelpFormatter, argparse.RawTextHelpFormatter):
        return text.strip("\n")
    return "\n".join(_wrapped(" ".join(text.split()), columns))


def _wrapped(text: str, columns: int) -> list[str]:
    """The lines of a text, broken between words only: an option's name has hyphens."""
    most = max(columns, _LEAST_TEXT_COLUMNS)
    return textwrap.wrap(text, most, break_long_words=False, break_on_hyphens=False)


def _rows(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> Iterator[tuple[str, str]]:
    """Yields label, indented, and help of each action of `group`, and of the words that begin its sub-commands."""
    for action in group._group_actions:
        if action.help == argparse.SUPPRESS:
            continue

        yield " " * _INDENT + _label(action), _help_of(parser, action)

        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield " " * 2 * _INDENT + _label(choice), _help_of(parser, choice)


def _label(action: argparse.Action) -> str:
    if not action.option_strings:
        return _value_names(action)[0]
    value = " ".join(["", *_operand_parts(action)])
    return ", ".join(name + value for name in action.option_strings)


def _help_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if not action.help:
        return ""
    facts = {name: value for name, value in vars(action).items() if value is not argparse.SUPPRESS}
    facts = {name: getattr(value, "__name__", value) for name, value in facts.items()}
    if action.choices is not None:
        facts["choices"] = ", ".join(map(str, action.choices))
    return " ".join((action.help % {**facts, "prog": parser.prog}).split())


def _row_lines(label: str, text: str, column: int, columns: int) -> list[str]:
    lines = _wrapped(text, columns - column)
    indented = [" " * column + line for line in lines]

    if not lines:
        return [label]
    if len(label) + _INDENT <= column:
        return [f"{label:<{column}}{lines[0]}", *indented[1:]]
    return [label, *indented]

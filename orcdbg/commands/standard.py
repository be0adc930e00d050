"""Which commands does orcdbg bring itself?

One in each file of this package that is named after it, with `_` behind a name that Python keeps for itself. A file is
loaded when its command is asked for: what `bt` needs is a tenth of what all commands need together. An alias is in no
file's name, so looking for one loads all of them.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType

import orcdbg.commands
from orcdbg.commands.registry import Command, Registry

# The order in which `help` shows the groups, and in each what a reader wants first; other commands follow by name.
HELP_ORDER = {
    "stacks": ("bt", "foreach", "frame", "up", "down", "regs"),
    "code": ("dis", "orc", "patch"),
    "data": (
        "p",
        "px",
        "pd",
        "whatis",
        "ptype",
        "struct",
        "sym",
        "rd",
        "examine",
        "vtop",
        "kmem",
        "search",
        "eval",
        "ascii",
    ),
    "machine": ("ps", "mod", "sys", "log"),
    "live": ("continue", "interrupt", "detach"),
    "stepping": ("step", "next", "until", "finish", "rsi", "break", "watch", "delete", "context"),
    "session": ("set", "help", "apropos", "quit"),
}


class PackageLibrary:
    """The commands in the files of a package."""

    def __init__(self, package: ModuleType) -> None:
        self._package = package
        self._loaded: dict[str, Command | None] = {}

    @functools.cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(module.name for module in pkgutil.iter_modules(self._package.__path__))

    @functools.cached_property
    def _by_word(self) -> dict[str, Command]:
        return {word: command for command in self.all() for word in (command.name, *command.aliases)}

    def _of_file(self, stem: str) -> Command | None:
        """The command that a file declares; None for a file that is no command's."""
        if stem not in self._loaded:
            module = importlib.import_module(f"{self._package.__name__}.{stem}")
            name = stem.rstrip("_")
            own = (value for value in vars(module).values() if isinstance(value, Command) and value.name == name)
            self._loaded[stem] = next(own, None)
        return self._loaded[stem]

    def find(self, word: str) -> Command | None:
        """The command with that name or alias."""
        for stem in (word, f"{word}_"):
            # Only names of files that are there: a word of the user must not become a path.
            if stem in self._files and (command := self._of_file(stem)) is not None:
                return command
        return self._by_word.get(word)

    def all(self) -> list[Command]:
        """All of them, in the order of `help`."""
        declared = [command for stem in self._files if (command := self._of_file(stem)) is not None]
        return sorted(declared, key=_place_in_help)


def _place_in_help(command: Command) -> tuple[int, int, str]:
    """By group, then by the group's own order, then by name."""
    groups = list(HELP_ORDER)
    named = HELP_ORDER.get(command.group, ())

    group = groups.index(command.group) if command.group in groups else len(groups)
    place = named.index(command.name) if command.name in named else len(named)
    return group, place, command.name


def standard_commands() -> Registry:
    """A new registry with orcdbg's own commands, none of which is loaded yet."""
    return Registry(library=PackageLibrary(orcdbg.commands))

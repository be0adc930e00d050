"""What may a plug-in rely on?

A plug-in is a Python module with a function `register(api)`, found through the entry point group `orcdbg.plugins` or
given with `--plugin FILE`. It adds commands, patch mechanisms and snapshot readers through `api`, and imports nothing of
orcdbg but this module. `API_VERSION` grows when something is added; a change that breaks plug-ins raises its first number.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from orcdbg.base.errors import NotInSnapshot, OrcdbgError, UsageError
from orcdbg.base.reading import AddressSpace, ByteSource
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command, Effect, Registry, command
from orcdbg.commands.result import PluginResult, Result
from orcdbg.patches.build import Build
from orcdbg.patches.kernel_patches import MakePasses
from orcdbg.patches.site import Applied, PatchPass, Spans, Undecidable, WorkingText, make_spans
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.readers.reader import SnapshotReader

API_VERSION = (1, 2)


@dataclass(slots=True)
class PluginApi:
    """What `register` is called with."""

    registry: Registry
    readers: list[SnapshotReader] = field(default_factory=list)
    passes: list[MakePasses] = field(default_factory=list)
    version: tuple[int, int] = API_VERSION

    def add_command(self, command: Command) -> None:
        """Adds a command; UsageError when its word is taken."""
        self.registry.add(replace(command, run=_shown(command.run)))

    def add_snapshot_reader(self, reader: SnapshotReader) -> None:
        """Adds a kind of snapshot file, asked before the built-in kinds."""
        self.readers.append(reader)

    def add_patch_mechanism(self, make_passes: MakePasses) -> None:
        """Adds a patch mechanism: a function from a `Build` to the passes it ran, replayed after the built-in ones."""
        self.passes.append(make_passes)

    def require(self, major: int, minor: int) -> None:
        """Refuses to go on with an API that this plug-in does not know."""
        if major != self.version[0] or minor > self.version[1]:
            raise UsageError(f"the plug-in wants API {major}.{minor}, this is {self.version[0]}.{self.version[1]}")


def _shown(run: Callable[[Debugger, Namespace], Any]) -> Callable[[Debugger, Namespace], Result]:
    """A command whose answer, if it is of a class of its own with `to_text` and `to_json`, becomes an `Answer`."""

    def answer(debugger: Debugger, arguments: Namespace) -> Result:
        result = run(debugger, arguments)
        if isinstance(result, Result):
            return result
        return Answer(tuple(result.to_text()), result.to_json())

    return answer


@dataclass(frozen=True, slots=True)
class Answer(PluginResult):
    """A plug-in command's result: lines of text for people, a JSON value for programs."""

    lines: tuple[str, ...]
    value: Any

    def to_text(self) -> tuple[str, ...]:
        """The lines."""
        return self.lines

    def to_json(self) -> Any:
        """The value."""
        return self.value


__all__ = [
    "API_VERSION",
    "AddressSpace",
    "Answer",
    "Applied",
    "Build",
    "ByteSource",
    "Command",
    "CpuState",
    "Debugger",
    "Effect",
    "NotInSnapshot",
    "OrcdbgError",
    "PatchPass",
    "PluginApi",
    "Snapshot",
    "SnapshotReader",
    "Spans",
    "Undecidable",
    "UsageError",
    "WorkingText",
    "command",
    "make_spans",
]

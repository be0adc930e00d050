"""Which plug-ins take part, and what happens when one of them fails?

Installed ones (entry point group `orcdbg.plugins`) and files named with --plugin; never anything because it lies in the
current folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.base.inputs import remember
from orcdbg.cli.output import warn
from orcdbg.commands.registry import Registry

if TYPE_CHECKING:
    from orcdbg.patches.kernel_patches import MakePasses
    from orcdbg.plugin import PluginApi
    from orcdbg.snapshot.readers.reader import SnapshotReader

GROUP = "orcdbg.plugins"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What plug-ins brought besides commands."""

    readers: Sequence[SnapshotReader] = ()
    passes: Sequence[MakePasses] = ()


def _installed() -> list[tuple[str, Callable[[], object]]]:
    # Only distributions that declare the group are looked at: importlib.metadata costs more than opening a kernel.
    from pathlib import Path

    if not any(
        GROUP in (entry / "entry_points.txt").read_text(encoding="utf-8", errors="replace")
        for folder in sys.path
        if folder and Path(folder).is_dir()
        for entry in Path(folder).glob("*-info")
        if (entry / "entry_points.txt").is_file()
    ):
        return []
    from importlib.metadata import entry_points

    return [(point.name, point.load) for point in entry_points(group=GROUP)]


def _from_file(path: str) -> Callable[[], object]:
    def load() -> object:
        import importlib.util

        spec = importlib.util.spec_from_file_location(f"orcdbg_plugin_{abs(hash(path))}", path)
        if spec is None or spec.loader is None:
            raise UsageError(f"{path}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return getattr(module, "register", None)

    return load


def load_plugins(registry: Registry, files: Sequence[str], installed: bool) -> Loaded:
    """Loads plug-ins. An installed one that fails is left out with a warning; one that was asked for is an error.

    Raises:
        UsageError: a file given with --plugin cannot be loaded.
    """
    found = _installed() if installed else []
    if not found and not files:
        return Loaded()
    from orcdbg.plugin import PluginApi

    api = PluginApi(registry)
    remember(*files)
    for name, load in found:
        problem = _register(load, api)
        if problem:
            warn(f"plug-in {name} is left out: {problem}")
    for path in files:
        problem = _register(_from_file(path), api)
        if problem:
            raise UsageError(f"--plugin {path}: {problem}")
    return Loaded(tuple(api.readers), tuple(api.passes))


def extend(registry: Registry, files: Sequence[str]) -> list[str]:
    """Loads plug-ins into a running orcdbg; what there is to say of them beside their commands."""
    brought = load_plugins(registry, files, installed=False)
    if brought.readers or brought.passes:
        return ["its formats and patch mechanisms count from the start on only: --plugin FILE"]
    return []


def _register(load: Callable[[], object], api: PluginApi) -> str | None:
    """Runs a plug-in's `register`; the problem in words, or None."""
    try:
        register = load()
        if not callable(register):
            return "it has no function register(api)"
        register(api)
    except OrcdbgError as error:
        return error.message
    except Exception as error:  # noqa: BLE001  a plug-in is foreign code, and may raise anything
        return f"{type(error).__name__}: {error}"
    return None

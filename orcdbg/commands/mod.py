"""mod: the loaded modules, and which files their debugging information is taken from."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.sym import named_module
from orcdbg.kernel.modules import Module


@dataclass(frozen=True, slots=True)
class Modules(Result):
    """Loaded modules.

    Attributes:
        modules: those that are asked for, in the kernel's order.
        problems: what could not be read of their list, or of their files.
        taints: the letters of each by its address, None where they were not asked for.
        files: the file whose debugging information counts, by the module's address; None where no file was asked for.
    """

    modules: Sequence[Module]
    problems: Sequence[str]
    taints: Mapping[int, str] | None = None
    files: Mapping[int, str] | None = None


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-t", "--taints", action="store_true", help="only modules that taint the kernel, and how")
    parser.add_argument(
        "-s",
        "--load",
        nargs="+",
        metavar=("NAME", "FILE"),
        help="take a module's types, variables and source lines from its file; without one, from the folders that are searched",
    )
    parser.add_argument(
        "-S",
        "--load-all",
        nargs="?",
        const="",
        metavar="DIR",
        help="the same for all modules, from the files below a folder (default: where distributions have them)",
    )


def _taints(debugger: Debugger, module: Module) -> str:
    """The letters of what a module taints the kernel by."""
    from orcdbg.subsystems.machine import taint_letters  # a list of modules needs none of it

    return taint_letters(int(debugger.session.object("struct module", module.address).member_("taints")))


def _one_loaded(debugger: Debugger, words: Sequence[str]) -> Modules:
    """One module with its file, which must be of its build."""
    name, *files = words
    if len(files) > 1:
        raise UsageError(f"one file for one module, not {len(files)}", "for example: mod -s loop loop.ko")
    name = name.replace("-", "_")  # as the kernel calls it, whatever its file is called
    module = named_module(debugger, name)

    if files:
        if not Path(files[0]).is_file():
            raise UsageError(f"{files[0]}: not a file")
        debugger.session.add_module_file(name, files[0])
    else:
        _add_folders(debugger)
    debugger.forget_variables()

    in_modules = debugger.session.kernel.module_debug
    found = in_modules.of(module) if in_modules is not None else None
    if found is None:
        problem = in_modules.problem_of(module) if in_modules is not None else None
        raise NotFound("file for module", name, problem or f"name it: mod -s {name} FILE")
    return Modules([module], (), None, {module.address: found.path})


def _all_loaded(debugger: Debugger, arguments: argparse.Namespace) -> Modules:
    """All modules, with the files of those that have some."""
    if arguments.load_all:
        debugger.session.add_module_folder(arguments.load_all)
    else:
        _add_folders(debugger)
    debugger.forget_variables()

    in_modules = debugger.session.kernel.module_debug
    assert in_modules is not None
    names = debugger.session.names
    files = {each.module.address: each.path for each in in_modules.all()}
    return Modules(names.modules, [*names.problems, *in_modules.problems], None, files)


# Where distributions put modules with debugging information, and modules. The release comes from memory.
_FOLDERS = ("/usr/lib/debug/lib/modules", "/usr/lib/modules")
_RELEASE = re.compile(r"[\w.+~-]{1,64}", re.ASCII)


def usual_folders(release: str) -> list[str]:
    """Where distributions have the modules of a release; nowhere if that is no name of a folder."""
    if _RELEASE.fullmatch(release) is None or not release.strip("."):
        return []
    return [f"{folder}/{release}" for folder in _FOLDERS]


def _add_folders(debugger: Debugger) -> None:
    """Searches where files of this kernel's modules are usually, besides the folders that were named."""
    release = debugger.session.snapshot.vmcoreinfo.get("OSRELEASE", "").strip()
    folders = [folder for folder in usual_folders(release) if Path(folder).is_dir()]
    in_modules = debugger.session.kernel.module_debug
    if not folders and in_modules is None:
        raise NotFound(
            "folder with modules",
            release or "of an unknown release",
            "name one: mod -S DIR, or a file: mod -s NAME FILE",
        )
    for folder in folders:
        debugger.session.add_module_folder(folder)


def _effect(arguments: argparse.Namespace) -> Effect:
    """`-s` and `-S` read modules' files, which they name or look for."""
    return Effect.NONE if arguments.load is None and arguments.load_all is None else Effect.READS_FILES


@command(
    "mod",
    summary="list the loaded modules, or take their debugging information from files",
    group="machine",
    effect=_effect,
    arguments=_arguments,
    aliases=("lsmod",),
    examples=(
        ("mod", "all of them"),
        ("mod -t", "those that taint the kernel"),
        ("mod -s loop drivers/block/loop.ko", "take a module's types, variables and lines from this file"),
        ("mod -S modules", "those of all modules from the files below a folder"),
    ),
)
def mod(debugger: Debugger, arguments: argparse.Namespace) -> Modules:
    """Answers with the modules in the kernel's list."""
    if arguments.load is not None or arguments.load_all is not None:
        if arguments.taints or (arguments.load is not None and arguments.load_all is not None):
            raise UsageError("-s, -S and -t are of one line each")
        return _one_loaded(debugger, arguments.load) if arguments.load is not None else _all_loaded(debugger, arguments)

    names = debugger.session.names
    if not arguments.taints:
        return Modules(names.modules, names.problems)
    problems = list(names.problems)
    taints: dict[int, str] = {}
    for module in names.modules:
        try:
            taints[module.address] = _taints(debugger, module)
        except OrcdbgError as error:
            problems.append(f"taints of module {module.name}: {error}")
    return Modules([module for module in names.modules if taints.get(module.address)], problems, taints)

"""What happens from the command line to the exit status?"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orcdbg.base.errors import NO_MEMORY, OrcdbgError, UnsupportedFormat, UsageError, failure_of
from orcdbg.base.exit_status import ExitStatus
from orcdbg.base.inputs import remember, remembering
from orcdbg.cli.options import Step, parser, type_options
from orcdbg.cli.output import Output, complain, terminal_width, wants_color
from orcdbg.cli.streams import drop_output, make_streams_sound
from orcdbg.cli.subcommands import find_subcommand

if TYPE_CHECKING:
    from orcdbg.cli.plugins import Loaded
    from orcdbg.commands.debugger import Debugger
    from orcdbg.commands.registry import Registry

SAMPLE = "lock_is_held_type"
GDB_PLUGIN = "gdb-plugin"  # `orcdbg gdb-plugin`
SERVE = "serve"  # `orcdbg serve VMLINUX SNAPSHOT`
STATIC_WORDS = ("patch", "orc")  # of `orcdbg patch check VMLINUX` and the like


def sample_files() -> list[str]:
    """The bundled sample's image and snapshot: beside the package when installed, else in the source tree."""
    package = Path(__file__).resolve().parent.parent
    for base in (package / "samples", package.parent / "samples"):
        files = [base / SAMPLE / "vmlinux.xz", base / SAMPLE / "snapshot.core"]
        if all(file.is_file() for file in files):
            return [str(file) for file in files]
    raise UnsupportedFormat(str(package / "samples"), "the bundled sample is not there")


def _show_gdb_plugin(options: Namespace) -> int:
    """Where gdb's extension is: beside the package when installed, else in the source tree."""
    from orcdbg.commands.result import TextLines

    package = Path(__file__).resolve().parent.parent
    places = (package / "gdb_plugin" / "orcdbg_gdb.py", package.parent / "plugins" / "gdb" / "orcdbg_gdb.py")
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UnsupportedFormat(str(places[0]), "gdb's extension is not there")
    Output(options.format, False, None).answer(GDB_PLUGIN, TextLines([str(found)]), sys.stdout)
    return 0


def _run_static(options: Namespace) -> int:
    """A question to a vmlinux alone."""
    from orcdbg.commands.vmlinux_alone import ask_vmlinux_alone

    result = ask_vmlinux_alone(options.files, type_options(options), options.debug_dir)
    _output(options).answer(" ".join(options.files[:2]), result, sys.stdout)
    return result.exit_status


def _serve(options: Namespace) -> int:
    """Offers a snapshot to gdb."""
    from orcdbg.cli.serve import run_serve

    _check(options)
    _, plugins = _commands(options)
    return run_serve(options, named_files(options.files[1:] or ["demo"]), plugins)


def _debug(options: Namespace) -> int:
    """Commands over a stopped kernel: those that were given, or what is typed at the prompt."""
    _check(options)
    registry, plugins = _commands(options)
    with _opened(options, plugins) as debugger:
        if options.source:
            from orcdbg.image.source_files import SourceFolders

            debugger.source_folders = SourceFolders(options.source)
        output = _output(options)
        if options.steps or not sys.stdin.isatty():
            from orcdbg.cli.batch import Batch, lines_of

            batch = Batch(registry, debugger, output)
            batch.show_warnings()
            return batch.run(lines_of(options.steps) if options.steps else sys.stdin, options.keep_going)

        from orcdbg.repl.app import run_repl

        return run_repl(registry, debugger, output, options.debug, options.quiet)


def _check(options: Namespace) -> None:
    """Refuses what does not go together, and remembers the command files, which no command may write over."""
    from orcdbg.snapshot.spool import STANDARD_INPUT

    if STANDARD_INPUT in options.files and not options.steps:
        raise UsageError("a snapshot from standard input leaves no commands there", "give them with -e or -x")
    # Each is read in its turn, and the commands of one must not write over the next.
    remember(*(value for kind, value in options.steps or () if kind is Step.FILE))


def _commands(options: Namespace) -> tuple[Registry, Loaded]:
    """The commands there are, those of plug-ins among them, and what else plug-ins bring."""
    from orcdbg.cli.plugins import extend, load_plugins
    from orcdbg.commands.standard import standard_commands

    registry = standard_commands()
    registry.extend = partial(extend, registry)
    return registry, load_plugins(registry, options.plugin, not options.no_plugins)


def _opened(options: Namespace, plugins: Loaded) -> AbstractContextManager[Debugger]:
    """The debugger over what the options name: a snapshot, or a live guest, which is let go behind it."""
    if options.listen is not None:
        raise UsageError("--listen is for serve", "orcdbg serve VMLINUX SNAPSHOT --listen 127.0.0.1:1234")
    if options.remote is not None:
        from orcdbg.cli.remote import attached

        return attached(options, plugins.passes)

    from orcdbg.commands.debugger import Debugger
    from orcdbg.target.opening import open_session

    session = open_session(
        *named_files(options.files),
        slide=options.kaslr,
        phys_base=options.phys_base,
        readers=plugins.readers,
        extra_passes=plugins.passes,
        debug_folders=options.debug_dir,
        type_options=type_options(options),
    )
    for folder in options.modules:
        session.add_module_folder(folder)
    if options.patches is not None:
        from orcdbg.cli.patches import apply_patches

        apply_patches(session, options.patches)
    return nullcontext(Debugger(session))


def named_files(names: Sequence[str]) -> Sequence[str]:
    """The files that were named; `demo` names the bundled sample's."""
    return sample_files() if list(names) == ["demo"] else names


def _output(options: Namespace) -> Output:
    """How answers are printed."""
    color, width = wants_color(options.color, sys.stdout), options.width or terminal_width(sys.stdout)
    return Output(options.format, color, width)


def _way_of(options: Namespace) -> Callable[[Namespace], int]:
    """What the first of the words that are no options asks for."""
    if options.files == [GDB_PLUGIN]:
        return _show_gdb_plugin
    first = options.files[0] if options.files else None
    if first in STATIC_WORDS:
        return _run_static
    return _serve if first == SERVE else _debug


def _run(words: Sequence[str]) -> int:
    """What the words ask for."""
    subcommand = find_subcommand(words)
    if subcommand is not None:
        return subcommand([word for word in words[1:] if word != "--debug"])
    options = parser().parse_args(words)
    return _way_of(options)(options)


@remembering()
def main(arguments: list[str] | None = None) -> int:
    """The `orcdbg` program, from its words to the exit status that docs/contract.md promises."""
    words = sys.argv[1:] if arguments is None else arguments
    is_debug = "--debug" in words
    make_streams_sound()
    try:
        status = _run(words)
        # At exit an error would come too late for the status.
        sys.stdout.flush()
        return status
    except OrcdbgError as error:
        if is_debug:
            raise
        complain(error)
        return error.exit_status
    except KeyboardInterrupt:
        print("orcdbg: interrupted", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        drop_output()  # nobody reads on
        return ExitStatus.BROKEN_PIPE
    except OSError as error:
        if is_debug:
            raise
        drop_output()
        problem = failure_of(error)
        complain(problem)
        return problem.exit_status
    except MemoryError:
        complain(OrcdbgError(NO_MEMORY))
        return ExitStatus.FAILED

"""What did the user ask for on the command line?"""

from __future__ import annotations

import argparse
import enum
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from orcdbg import __version__
from orcdbg.base.errors import UsageError
from orcdbg.commands.usage import PlainParser

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from orcdbg.target.kernel_types import TypeOptions

DESCRIPTION = (
    "Debug a stopped Linux x86-64 kernel: stacks by ORC, corrected for the patches it applied to its own text."
)
EPILOG = """\
VMLINUX and SNAPSHOT can be given in any order. `orcdbg demo` opens the bundled sample.

Three questions need only a vmlinux:
  orcdbg patch check VMLINUX  does any patch that the kernel may apply make an ORC row wrong?
  orcdbg orc union VMLINUX    the rows that would be right for all alternatives
  orcdbg orc dump VMLINUX     the rows as built

Programs of their own, each with --help:
  orcdbg checkup FILE...                 what is in these files, and what is missing
  orcdbg trim VMLINUX SNAPSHOT -o FILE   a snapshot that is small enough to mail
  orcdbg report VMLINUX SNAPSHOT -o FILE what it died of, as .html, .md or .txt
  orcdbg decode [VMLINUX] < OOPS         a report that the kernel printed, without a snapshot
  orcdbg triage DUMP|DIR...              many dumps: which died of the same
  orcdbg mcp --root DIR                  a server for assistants

With -e or -x, or when standard input is not a terminal, orcdbg runs the commands and exits.

Exit status: 0 success; 1 a command failed; 2 usage; 3 a file is unreadable or unsupported;
4 image and snapshot do not belong together; 5 a check found something; 130 interrupted; 141 broken pipe.
"""


class Step(enum.Enum):
    """What -e and -x bring."""

    COMMAND = enum.auto()
    FILE = enum.auto()


class _InOrder(argparse.Action):
    """Collects -e and -x in the order they were given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        namespace.steps = [*(namespace.steps or []), (self.const, str(values))]


class OptionParser(PlainParser):
    """A parser whose complaints are errors as all others are."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print."""
        raise UsageError(message, "orcdbg --help shows the options")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, which takes a negative number in hexadecimal for an option: here it is the option's before it."""
        numbers = {name for action in self._actions if action.type is _number for name in action.option_strings}
        words: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            if words and words[-1] in numbers and _NEGATIVE.fullmatch(word):
                words[-1] += f"={word}"
            else:
                words.append(word)
        return super().parse_known_args(words, namespace)


_NEGATIVE = re.compile(r"-(0[xX])?[0-9a-fA-F]+")


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None


def add_debug_folders(parser: argparse.ArgumentParser) -> None:
    """Adds `--debug-dir`, a list of folders."""
    parser.add_argument(
        "--debug-dir", action="append", default=[], metavar="DIR", help="a folder of split-off debug files; repeatable"
    )


def add_module_folders(parser: argparse.ArgumentParser) -> None:
    """Adds `--modules`, a list of folders."""
    parser.add_argument(
        "--modules",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of modules' files with DWARF; repeatable",
    )


def add_answer_format(parser: argparse.ArgumentParser) -> None:
    """Adds `--format` to a program that gives one answer."""
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="format of the answer (default: text)"
    )


def add_type_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `type_options` reads."""
    parser.add_argument(
        "--btf", metavar="FILE|DIR", help="types for an image without .BTF: detached BTF, or a folder of it by release"
    )
    parser.add_argument(
        "--make-btf", action="store_true", help="have pahole make BTF of the image's DWARF if there is no other"
    )


def type_options(options: argparse.Namespace) -> TypeOptions | None:
    """What the options say, None for nothing; on a terminal, work that takes its time is shown."""
    if options.btf is None and not options.make_btf:
        return None

    from orcdbg.target.kernel_types import TypeOptions

    return TypeOptions(options.btf, options.make_btf, _shown)


def _shown(what: str) -> AbstractContextManager[object]:
    from orcdbg.views.waiting import Waiting

    return Waiting(what, sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The parser of orcdbg's own options."""
    made = OptionParser(
        prog="orcdbg",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("files", nargs="*", metavar="VMLINUX SNAPSHOT", help="the two files, or the word demo")
    made.add_argument(
        "-e", dest="steps", const=Step.COMMAND, action=_InOrder, metavar="CMD", help="run a command; repeatable"
    )
    made.add_argument(
        "-x", dest="steps", const=Step.FILE, action=_InOrder, metavar="FILE", help="run the commands in a file"
    )
    made.add_argument(
        "--format", choices=("text", "json"), default="text", help="format of the answers (default: text)"
    )
    made.add_argument("--keep-going", action="store_true", help="in batch mode, go on after a failed command")
    made.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="colour the answers (default: auto)"
    )
    made.add_argument("--width", type=_number, help="fit the text into this many columns (default: the terminal's)")
    made.add_argument(
        "--kaslr", type=_number, metavar="SLIDE", help="run-time minus link address, if the snapshot lacks it"
    )
    made.add_argument(
        "--phys-base", type=_number, metavar="BASE", help="the kernel's phys_base, if the snapshot lacks it"
    )
    made.add_argument(
        "--remote",
        metavar="HOST:PORT|unix:PATH",
        help="debug a live guest in place of a snapshot: the address of QEMU's gdb stub",
    )
    made.add_argument(
        "--listen", metavar="HOST:PORT|unix:PATH", help="for serve: the address to listen on (default: 127.0.0.1:1234)"
    )
    add_debug_folders(made)
    add_type_options(made)
    add_module_folders(made)
    made.add_argument(
        "--source", action="append", default=[], metavar="DIR", help="the top of the kernel's source tree; repeatable"
    )
    made.add_argument(
        "--patches",
        metavar="FILE",
        help="take patches from a journal that `patch export` wrote, for a snapshot without its image",
    )
    made.add_argument("--plugin", action="append", default=[], metavar="FILE", help="load a plug-in; repeatable")
    made.add_argument("--no-plugins", action="store_true", help="do not load installed plug-ins")
    made.add_argument("-q", "--quiet", action="store_true", help="show no banner before the first prompt")
    made.add_argument("--debug", action="store_true", help="show a traceback for errors")
    made.add_argument("--version", action="version", version=f"orcdbg {__version__}")
    return made

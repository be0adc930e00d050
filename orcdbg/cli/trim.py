"""orcdbg trim: what does the user want left of a snapshot, and where?"""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Sequence

from orcdbg.base.errors import UsageError
from orcdbg.cli.options import OptionParser, add_answer_format, add_type_options, type_options
from orcdbg.cli.output import Output, answer_alone, warn
from orcdbg.commands.result import Result
from orcdbg.commands.standard import standard_commands
from orcdbg.commands.trim import Trimmed, TrimRequest, trim_image, trim_snapshot


def _parser() -> OptionParser:
    made = OptionParser(
        prog="orcdbg trim",
        description="Cut a snapshot down to what walking its stacks needs; user memory, page cache and keys stay out.",
        allow_abbrev=False,
    )
    made.add_argument(
        "files", nargs="+", metavar="VMLINUX SNAPSHOT", help="the two files, in any order; VMLINUX alone with --image"
    )
    made.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    made.add_argument("--image", action="store_true", help="cut down the vmlinux given, not a snapshot")
    made.add_argument(
        "--tasks", action="append", default=[], metavar="PID|TASK,...", help="only the stacks of these tasks"
    )
    made.add_argument(
        "--all-stacks", action="store_true", help="whole stacks, including what is below the stack pointer"
    )
    made.add_argument("--text", action="store_true", help="include the patched text")
    made.add_argument(
        "--zstd", action="store_true", help="compress the file; orcdbg opens it as it is, other tools must unpack it"
    )
    add_type_options(made)
    add_answer_format(made)
    return made


def _numbers(words: Sequence[str]) -> list[int]:
    try:
        return [int(word, 0) for group in words for word in group.split(",")]
    except ValueError as error:
        raise UsageError(f"--tasks {','.join(words)}: not numbers", "pids or addresses, separated by commas") from error


def _trim_snapshot(options: Namespace) -> Trimmed:
    request = TrimRequest(options.output, _numbers(options.tasks), options.all_stacks, options.text, options.zstd)
    as_json = Output("json", False, None)

    def answer_to_nowhere(command: str, result: Result) -> None:
        as_json.answer(command, result, io.StringIO())

    types = type_options(options)
    return trim_snapshot(options.files, request, standard_commands(), answer_to_nowhere, warn, types)


def run(arguments: Sequence[str]) -> int:
    """Runs `orcdbg trim`; the exit status."""
    options = _parser().parse_args(arguments)
    result = trim_image(options.files, options.output) if options.image else _trim_snapshot(options)

    answer_alone(options.format, "trim", result)
    return 0

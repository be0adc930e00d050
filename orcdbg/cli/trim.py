"""orcdbg trim: what does the user want left of a snapshot, and where?"""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from collections.abc import Sequence

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.base.reading import AddressSpace
from orcdbg.cli.options import Parser
from orcdbg.cli.output import Output, terminal_width, wants_color, warn
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.results import Result
from orcdbg.commands.standard import standard_commands
from orcdbg.commands.trim import TrimChoice, TrimmedImage, write_trimmed
from orcdbg.commands.writing import refuse_inputs, replacing
from orcdbg.image.vmlinux import open_image
from orcdbg.kernel.tasks import Task
from orcdbg.snapshot.readers.kept import Recorder
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.trim.image_sections import write_image


def _parser() -> Parser:
    made = Parser(
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
    made.add_argument("--all-stacks", action="store_true", help="whole stacks, also below the stack pointer")
    made.add_argument("--text", action="store_true", help="the patched text too")
    made.add_argument(
        "--zstd", action="store_true", help="compress the file; orcdbg opens it so, other tools unpack it"
    )
    made.add_argument("--format", choices=("text", "json"), default="text", help="how the answer looks")
    return made


def _numbers(words: Sequence[str]) -> list[int]:
    try:
        return [int(word, 0) for group in words for word in group.split(",")]
    except ValueError as error:
        raise UsageError(f"--tasks {','.join(words)}: not numbers", "pids or addresses, separated by commas") from error


def _ask(session: Session, tasks: Sequence[Task] | None) -> None:
    """Runs the commands that a trimmed snapshot must answer as the whole one does, for the sake of what they read."""
    debugger, registry, output = Debugger(session), standard_commands(), Output("json", False, None)
    stacks = ["foreach bt"] if tasks is None else [f"bt {task.address:#x}" for task in tasks]
    for command in ("sys", "ps", "mod", "log", *stacks):
        try:
            output.answer(command, registry.run(debugger, command), io.StringIO())
        except OrcdbgError as error:
            warn(f"{command}: {error.message}")


def run(arguments: Sequence[str]) -> int:
    """Runs `orcdbg trim`; the exit status."""
    options = _parser().parse_args(arguments)
    result = _trim_image(options) if options.image else _trim_snapshot(options)
    Output(options.format, wants_color("auto", sys.stdout), terminal_width(sys.stdout)).answer(
        "trim", result, sys.stdout
    )
    return 0


def _trim_image(options: Namespace) -> Result:
    if len(options.files) != 1:
        raise UsageError("--image takes a vmlinux alone", "orcdbg trim --image VMLINUX -o FILE")
    image = open_image(options.files[0])
    with replacing(options.output, options.files) as file:
        return TrimmedImage(options.output, write_image(image, file))


def _trim_snapshot(options: Namespace) -> Result:
    behind: list[tuple[Recorder, AddressSpace]] = []

    def record(memory: AddressSpace) -> Recorder:
        behind.append((Recorder(memory), memory))
        return behind[0][0]

    session = open_session(*options.files, through=record)
    refuse_inputs(options.output, (*options.files, *session.files))  # before the work, which takes its time
    recorder, memory = behind[0]
    wanted = _numbers(options.tasks)
    tasks = [session.task(one) for one in wanted] if wanted else None
    _ask(session, tasks)
    choice = TrimChoice(tasks, options.all_stacks, options.text, options.zstd)
    trimmed = write_trimmed(session, recorder, memory, choice, options.output)
    for problem in trimmed.problems:
        warn(problem)
    return trimmed

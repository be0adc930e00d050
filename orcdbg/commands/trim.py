"""trim: a smaller snapshot of just what walking its stacks needs, or a smaller vmlinux."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.base.reading import AddressSpace
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.result import Result
from orcdbg.commands.writing import refuse_outputs, replacing
from orcdbg.image.vmlinux import open_image
from orcdbg.kernel.tasks import Task
from orcdbg.target.opening import open_session
from orcdbg.trim.image_sections import write_image
from orcdbg.trim.recorder import Recorder
from orcdbg.trim.selection import TrimChoice, select
from orcdbg.trim.snapshot_file import kept_notes, write_trimmed

if TYPE_CHECKING:
    from orcdbg.target.kernel_types import TypeOptions

# What a trimmed snapshot must answer as the whole one does, besides the stacks.
_ANSWERED = ("sys", "ps", "mod", "log")


@dataclass(frozen=True, slots=True)
class TrimRequest:
    """What the user wants.

    Attributes:
        output: the file to write.
        tasks: pids or addresses of the tasks whose stacks are kept; empty for all.
        all_stacks: whole stacks, also below the stack pointer.
        text: the patched text too.
        zstd: compress the file.
    """

    output: str
    tasks: Sequence[int] = ()
    all_stacks: bool = False
    text: bool = False
    zstd: bool = False


@dataclass(frozen=True, slots=True)
class Trimmed(Result):
    """A trimmed snapshot: bytes of its file, of memory in it, stacks, and pages that could not be had."""

    path: str
    size: int
    kept: int
    stacks: int
    missing: int


@dataclass(frozen=True, slots=True)
class TrimmedImage(Result):
    """A trimmed vmlinux, and the bytes of its file."""

    path: str
    size: int


def trim_image(files: Sequence[str], output: str) -> TrimmedImage:
    """Writes a vmlinux of the sections that orcdbg needs.

    Raises:
        UsageError: not one file, or `output` cannot be written.
        UnsupportedFormat: the file is no vmlinux.
    """
    if len(files) != 1:
        raise UsageError("--image takes a vmlinux alone", "orcdbg trim --image VMLINUX -o FILE")

    image = open_image(files[0])
    with replacing(output, files) as file:
        return TrimmedImage(output, write_image(image, file))


def trim_snapshot(
    files: Sequence[str],
    request: TrimRequest,
    registry: Registry,
    answer: Callable[[str, Result], None],
    warn: Callable[[str], None],
    type_options: TypeOptions | None = None,
) -> Trimmed:
    """Writes the trimmed snapshot; a file that is there already is replaced only when all went well.

    Args:
        files: an image and a snapshot, in any order.
        request: what to keep, and where.
        registry: the commands.
        answer: writes a command's answer to nowhere, for some answers read memory only while they are written.
        warn: is told of commands that cannot be answered.
        type_options: where the user says that types are which the image lacks.

    Raises:
        UsageError: the output is one of the files that are read, or the snapshot has no notes.
        OrcdbgError: anything else that keeps the session from being opened.
    """
    recorders: list[tuple[Recorder, AddressSpace]] = []

    def record(memory: AddressSpace) -> Recorder:
        recorders.append((Recorder(memory), memory))
        return recorders[0][0]

    session = open_session(*files, through=record, type_options=type_options)
    ((recorder, memory),) = recorders

    # What can be refused is refused before the work, which takes its time.
    refuse_outputs(request.output, (*files, *session.files))
    tasks = [session.task(number) for number in request.tasks] or None

    kept_notes(session.snapshot)

    debugger = Debugger(session)
    for command in _commands(tasks):
        try:
            answer(command, registry.run(debugger, command))
        except OrcdbgError as error:
            warn(f"{command}: {error.message}")

    selection = select(session, recorder, TrimChoice(tasks, request.all_stacks, request.text))
    with replacing(request.output, session.files) as file:
        size = write_trimmed(session.snapshot, selection, memory, file, request.zstd)

    for problem in selection.problems:
        warn(problem)
    return Trimmed(request.output, size, selection.size, selection.stacks, selection.missing)


def _commands(tasks: Sequence[Task] | None) -> list[str]:
    """What is asked of the session for the sake of what it reads."""
    if tasks is None:
        return [*_ANSWERED, "foreach bt"]
    return [*_ANSWERED, *(f"bt {task.address:#x}" for task in tasks)]

"""How does a process of its own answer for one snapshot?

Each snapshot has such a process, so that a command that hangs, or native code that falls over hostile data, takes neither the
server nor the other snapshots with it. SIGINT stops the command that runs, as Ctrl-C does at the prompt, and is ignored when
none does.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import IO

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.base.exit_status import ExitStatus
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.redirections import split_redirection
from orcdbg.commands.registry import Effect, Registry
from orcdbg.commands.result import Result
from orcdbg.image.source_files import SourceFolders
from orcdbg.mcp.confinement import confine
from orcdbg.mcp.messages import (
    FIRST_COMMAND,
    MAX_ANSWER,
    Form,
    Opening,
    Question,
    Reply,
    encode,
    parse_opening,
    parse_question,
)
from orcdbg.patches.kernel_patches import MakePasses
from orcdbg.snapshot.readers.reader import SnapshotReader
from orcdbg.target.kernel_types import TypeOptions
from orcdbg.target.opening import open_session
from orcdbg.views.as_json import error_envelope, json_pieces
from orcdbg.views.as_text import failure_text, text_pieces

ALLOWED = frozenset((Effect.NONE,))
MAX_COMMAND = 4096


@dataclass(frozen=True, slots=True)
class Commands:
    """The commands there are, and what plug-ins brought besides."""

    registry: Registry
    readers: Sequence[SnapshotReader] = ()
    passes: Sequence[MakePasses] = ()


class _Interrupts:
    """SIGINT, which counts only while a command runs."""

    def __init__(self) -> None:
        self.counts = False
        signal.signal(signal.SIGINT, self._arrived)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self.counts:
            self.counts = False
            raise KeyboardInterrupt


class SnapshotWorker:
    """Who answers for a snapshot.

    Args:
        registry: the commands there are.
        debugger: the snapshot, with what is selected.
    """

    def __init__(self, registry: Registry, debugger: Debugger) -> None:
        self._registry = registry
        self._debugger = debugger
        self._told = 0

    def answer(self, question: Question) -> Reply:
        """The reply to a question, whatever goes wrong."""
        try:
            result = self._run(question.line)
            text, is_cut = _collected(_pieces(question, result))
        except OrcdbgError as error:
            return failed(question, error, self._new_warnings())
        return Reply(True, int(result.exit_status), text, is_cut, self._new_warnings())

    def _run(self, line: str) -> Result:
        if len(line) > MAX_COMMAND or not line.isprintable():
            raise UsageError("not a line of a command", f"one line, at most {MAX_COMMAND} characters")
        if line.lstrip().startswith("!"):
            raise UsageError("no shell is run here", "`help` lists the commands")
        taken = split_redirection(self._registry, line)
        if taken.operator:
            hint = "a long answer comes in pages; options of the command make it shorter"
            raise UsageError(f"nothing goes to a program or a file here: {taken.operator} {taken.target}", hint)
        return self._registry.run(self._debugger, line, ALLOWED)

    def _new_warnings(self) -> list[str]:
        """The session's warnings since the last time."""
        warnings = self._debugger.session.warnings
        new = warnings[self._told :]
        self._told = len(warnings)
        return new


def _pieces(question: Question, result: Result) -> Iterable[str]:
    return json_pieces(question.line, result) if question.form is Form.JSON else text_pieces(result, None)


def _collected(pieces: Iterable[str], most: int = MAX_ANSWER) -> tuple[str, bool]:
    """An answer, and whether it was cut. No more of it is made than is kept, for some answers are made piece by piece."""
    kept: list[str] = []
    size = 0
    for piece in pieces:
        kept.append(piece[: most - size])
        size += len(piece)
        if size > most:
            return "".join(kept), True
    return "".join(kept), False


def failed(question: Question, error: OrcdbgError, warnings: Sequence[str] = ()) -> Reply:
    """The reply that an error is."""
    if question.form is Form.JSON:
        text = json.dumps(error_envelope(question.line, error), ensure_ascii=True) + "\n"
    else:
        text = failure_text(error, question.line.split(" ", 1)[0])
    return Reply(False, int(error.exit_status), text, False, list(warnings))


def _guarded(interrupts: _Interrupts, question: Question, answer: Callable[[], Reply]) -> Reply:
    """A reply in any case: to a SIGINT, and to what no command should raise."""
    try:
        interrupts.counts = True
        reply = answer()
        interrupts.counts = False
    except KeyboardInterrupt:
        return Reply(False, int(ExitStatus.INTERRUPTED), "interrupted\n", is_interrupted=True)
    except (Exception, SystemExit) as error:  # noqa: BLE001  the boundary of a command, a plug-in's too
        interrupts.counts = False
        return failed(question, OrcdbgError(f"an error within orcdbg: {type(error).__name__}"))
    return reply


def _lines(stream: IO[bytes]) -> queue.SimpleQueue[bytes]:
    """The lines of a stream as they come. The process ends with the stream, also while a command runs: nobody is there."""
    arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            arrived.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return arrived


def _opened(commands: Commands, opening: Opening, files: Sequence[str]) -> SnapshotWorker:
    """Who answers for a snapshot, from its real files, not `demo`; OrcdbgError where they cannot be opened."""
    session = open_session(
        *files,
        readers=commands.readers,
        extra_passes=commands.passes,
        debug_folders=opening.debug_folders,
        type_options=None if opening.btf is None else TypeOptions(opening.btf),
    )
    for folder in opening.modules:
        session.add_module_folder(folder)
    debugger = Debugger(session)
    if opening.sources:
        debugger.source_folders = SourceFolders(opening.sources)
    return SnapshotWorker(commands.registry, debugger)


def serve(
    questions: IO[bytes],
    replies: IO[bytes],
    load: Callable[[Opening], Commands],
    files_of: Callable[[Sequence[str]], Sequence[str]],
) -> None:
    """Opens the snapshot that the first line names, and answers until the questions end.

    Args:
        questions: where they come from.
        replies: where the answers go.
        load: the commands, with those of the plug-ins that are named.
        files_of: the files that words of the user mean.
    """
    interrupts = _Interrupts()
    arrived = _lines(questions)
    first = Question(FIRST_COMMAND, Form.TEXT)
    opened: list[SnapshotWorker] = []

    def say(reply: Reply) -> None:
        replies.write(encode(reply))
        replies.flush()

    def begin() -> Reply:
        opening = parse_opening(arrived.get())
        try:
            commands = load(opening)
            files = files_of(opening.files)
            named = [opening.btf] if opening.btf is not None else []
            own = [*opening.readable, *named, *opening.debug_folders, *(files if files != opening.files else ())]
            confine(own)
            opened.append(_opened(commands, opening, files))
        except OrcdbgError as error:
            return failed(Question("open", Form.TEXT), error)
        # The snapshot is open, whatever its first command says.
        return replace(opened[0].answer(first), ok=True)

    say(_guarded(interrupts, first, begin))
    while opened:
        question = parse_question(arrived.get())
        say(_guarded(interrupts, question, partial(opened[0].answer, question)))

"""What do the prompt and the bottom toolbar say about what is selected?"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.views.page import safe

PROMPT = "orcdbg> "


@dataclass(frozen=True, slots=True)
class Status:
    """What is selected; None where it cannot be told. `warnings` counts those of the session so far."""

    release: str | None
    pid: int | None
    comm: str | None
    cpu: int | None
    frame: int
    warnings: int


def read_status(debugger: Debugger, release: str | None) -> Status:
    """The status of a debugger; `release` is the kernel's."""
    frame, warnings = debugger.frame_index, len(debugger.session.warnings)
    try:
        task = debugger.task
        cpu, _ = debugger.session.unwinder.running.get(task.address, (task.cpu, None))
    except OrcdbgError:
        # A snapshot without readable tasks still has symbols and memory to ask for.
        return Status(release, None, None, None, frame, warnings)
    return Status(release, task.pid, task.comm, cpu, frame, warnings)


def prompt_text(frame: int) -> str:
    """The prompt, with the frame's number when it is not the innermost one."""
    return f"(frame {frame}) {PROMPT}" if frame else PROMPT


def toolbar_text(status: Status, width: int) -> str:
    """The toolbar's line, padded to `width` characters; the kernel's release is the first to be left out."""
    pieces = _pieces(status)
    text = " | ".join(pieces)
    if len(text) + 2 > width and status.release:
        text = " | ".join(pieces[1:])
    room = max(width - 2, 0)
    return f" {text[: room - 1] + '…' if len(text) > room else text} "[:width].ljust(width)


def _pieces(status: Status) -> list[str]:
    pieces = [safe(status.release)] if status.release else []
    pieces.append("no task" if status.pid is None else f"task {status.pid} {safe(status.comm or '')}".rstrip())
    if status.cpu is not None:
        pieces.append(f"cpu {status.cpu}")
    pieces.append(f"frame {status.frame}")
    if status.warnings:
        pieces.append("1 warning" if status.warnings == 1 else f"{status.warnings} warnings")
    return pieces

"""orcdbg checkup: what is in each of these files, and do they go together?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import FileSource
from orcdbg.cli.options import Parser
from orcdbg.cli.output import Output, terminal_width, wants_color
from orcdbg.cli.patches import apply_patches
from orcdbg.commands.checkup import FileFound, Opened, look
from orcdbg.formats.detect import FileKind, file_kind
from orcdbg.image.vmlinux import open_image
from orcdbg.snapshot.readers.choice import SnapshotFile, open_snapshot, recognise
from orcdbg.snapshot.spool import is_stream
from orcdbg.target.opening import RAW_HINT, image_in_memory, open_session

_RAW = "a plain image of memory"


def _parser() -> Parser:
    made = Parser(
        prog="orcdbg checkup",
        description="Say what was found in a snapshot, an image, or both; what is missing, what that costs, how to get it.",
        allow_abbrev=False,
    )
    made.add_argument("files", nargs="+", metavar="FILE", help="a snapshot, an image, or both, in any order")
    made.add_argument(
        "--debug-dir", action="append", default=[], metavar="DIR", help="where debug files that were split off are"
    )
    made.add_argument("--patches", metavar="FILE", help="a journal of `patch export`, for a snapshot without its image")
    made.add_argument("--format", choices=("text", "json"), default="text", help="how the answer looks")
    return made


def _look_at(path: str, opened: Opened, parts: list[SnapshotFile]) -> FileFound:
    """What a file is; an image is opened, a part of a snapshot is kept for when all of them are known."""
    kind: str | None = None
    try:
        if is_stream(path):
            raise UnsupportedFormat(path, "a pipe is read only once, and this looks twice", "write it to a file first")
        part = recognise(path)
        if part is not None:
            parts.append(part)
            return FileFound(path, _RAW if part.kind is FileKind.UNKNOWN else part.kind.value)
        found = file_kind(FileSource(path))
        kind = found.value
        if found in (FileKind.UNKNOWN, FileKind.DISKDUMP):
            raise UnsupportedFormat(path, "neither a vmlinux nor a snapshot of any known format", RAW_HINT)
        image = open_image(path)
        if opened.image is None or found is not FileKind.BZIMAGE:
            opened.image = image
        return FileFound(path, kind)
    except OrcdbgError as error:
        opened.error = opened.error or error
        return FileFound(path, kind, error.message)


def _open(paths: Sequence[str], debug_folders: Sequence[str], journal: str | None) -> Opened:
    opened, parts = Opened(debug_folders=debug_folders), list[SnapshotFile]()
    opened.files += [_look_at(path, opened, parts) for path in paths]
    try:
        if parts:
            opened.snapshot = open_snapshot(parts)
        if opened.snapshot is not None and opened.error is None:
            opened.session = open_session(*paths, debug_folders=debug_folders)
            if journal is not None:
                apply_patches(opened.session, journal)
    except OrcdbgError as error:
        opened.error = opened.error or error
    if opened.image is None and opened.snapshot is not None and opened.session is None:
        _without_image(opened)
    return opened


def _without_image(opened: Opened) -> None:
    """A damaged image does not keep a snapshot from telling, by its memory, which kernel it is of."""
    assert opened.snapshot is not None
    try:
        image_in_memory(opened.snapshot)
    except OrcdbgError as error:
        opened.error = opened.error or error


def run(arguments: Sequence[str]) -> int:
    """Runs `orcdbg checkup`; the exit status."""
    options = _parser().parse_args(arguments)
    result = look(_open(options.files, options.debug_dir, options.patches))
    color, width = wants_color("auto", sys.stdout), terminal_width(sys.stdout)
    Output(options.format, color, width).answer("checkup", result, sys.stdout)
    return result.exit_status

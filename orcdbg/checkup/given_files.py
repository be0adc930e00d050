"""What is each of the files given, and how far can they be opened?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import FileSource
from orcdbg.formats.detect import FileKind, file_kind
from orcdbg.image.debug_files import is_debug_alone
from orcdbg.image.vmlinux import Image, open_image
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.opening import SnapshotFile, open_snapshot, recognise, with_plain_memory
from orcdbg.snapshot.spool import is_stream
from orcdbg.target.kernel_types import TypeOptions
from orcdbg.target.opening import image_in_memory, open_session, unknown_file
from orcdbg.target.session import Session
from orcdbg.target.vmlinux_alone import UnbootedKernel

_IMAGES = {FileKind.ELF, FileKind.COMPRESSED, FileKind.BZIMAGE, FileKind.FLATTENED}


@dataclass(frozen=True, slots=True)
class GivenFile:
    """One file of those given.

    Attributes:
        path: as it was given.
        kind: what its content says it is, in words; None where it cannot be read.
        problem: what is wrong with it, if anything.
    """

    path: str
    kind: str | None
    problem: str | None = None


@dataclass
class OpenedFiles:
    """What could be opened of the files; whatever could not is None.

    Attributes:
        files: all of them.
        debug_folders: where the user keeps debugging information that was split off.
        debug_file: the file of such information that is among the files.
        type_options: where the user says that types are which the image lacks.
        image: the image given; of a vmlinux and a bzImage the vmlinux.
        snapshot: the snapshot.
        session: both together, or the snapshot with what its memory holds of the image.
        error: the first thing that went wrong.
    """

    files: list[GivenFile] = field(default_factory=list)
    debug_folders: Sequence[str] = ()
    debug_file: str | None = None
    type_options: TypeOptions = field(default_factory=TypeOptions)
    image: Image | None = None
    snapshot: Snapshot | None = None
    session: Session | None = None
    error: OrcdbgError | None = None

    @property
    def any_image(self) -> Image | None:
        """The image given, else what memory holds of it."""
        if self.image is not None or self.session is None:
            return self.image
        return self.session.image

    @functools.cached_property
    def unbooted(self) -> UnbootedKernel:
        """The kernel of a vmlinux alone: its types are looked for once, and may have to be made."""
        assert self.image is not None
        return UnbootedKernel(self.image, self.type_options)

    def fail(self, error: OrcdbgError) -> None:
        """Keeps an error, if it is the first."""
        self.error = self.error or error


def open_files(
    paths: Sequence[str],
    debug_folders: Sequence[str] = (),
    prepare: Callable[[Session], None] | None = None,
    type_options: TypeOptions | None = None,
) -> OpenedFiles:
    """Opens as much as can be opened; what cannot becomes a part of the answer, and nothing is raised.

    Args:
        paths: what the user named, in any order.
        debug_folders: where debugging information is looked for that was split off.
        prepare: has its way with the session, once there is one; its OrcdbgError counts as one of opening.
        type_options: where the user says that types are which the image lacks.
    """
    opened = OpenedFiles(debug_folders=debug_folders, type_options=type_options or TypeOptions())
    parts: list[SnapshotFile] = []
    unknown: list[str] = []
    for path in paths:
        opened.files.append(_look_at(path, opened, parts, unknown))
    if opened.image is not None:
        opened.image.debug_file = opened.debug_file
    parts = _joined(parts, unknown, opened)

    try:
        if parts:
            opened.snapshot = open_snapshot(parts)
        if opened.snapshot is not None and opened.error is None:
            opened.session = open_session(*paths, debug_folders=debug_folders, type_options=opened.type_options)
            if prepare is not None:
                prepare(opened.session)
    except OrcdbgError as error:
        opened.fail(error)

    if opened.image is None and opened.snapshot is not None and opened.session is None:
        _look_for_image(opened, opened.snapshot)
    return opened


def _joined(parts: list[SnapshotFile], unknown: Sequence[str], opened: OpenedFiles) -> list[SnapshotFile]:
    """The parts of the snapshot, with what the files of no known kind may add to them."""
    if not unknown:
        return parts
    whole = with_plain_memory(parts, unknown)
    opened.files = [_unknown(file, whole, opened) if file.path in unknown else file for file in opened.files]
    return parts if whole is None else [whole]


def _unknown(file: GivenFile, whole: SnapshotFile | None, opened: OpenedFiles) -> GivenFile:
    """A file of no known kind: the memory of a snapshot beside it, or nothing that can be used."""
    if whole is not None:
        return GivenFile(file.path, f"the memory of {whole.kind}")
    error = unknown_file(file.path)
    opened.fail(error)
    return replace(file, problem=error.message)


def _look_at(path: str, opened: OpenedFiles, parts: list[SnapshotFile], unknown: list[str]) -> GivenFile:
    """What a file is; an image is opened, a part of a snapshot is kept for when all of them are known."""
    kind: str | None = None
    try:
        if is_stream(path):
            raise UnsupportedFormat(path, "a pipe is read only once, and this looks twice", "write it to a file first")

        part = recognise(path)
        if part is not None:
            parts.append(part)
            return GivenFile(path, part.kind)

        file = file_kind(FileSource(path))
        kind = file.value
        if file not in _IMAGES:
            unknown.append(path)
            return GivenFile(path, kind)

        image = open_image(path)
        if is_debug_alone(image.elf):
            opened.debug_file = path
            return GivenFile(path, "debugging information that was split off an image")
        if opened.image is None or file is not FileKind.BZIMAGE:
            opened.image = image
        return GivenFile(path, kind)
    except OrcdbgError as error:
        opened.fail(error)
        return GivenFile(path, kind, error.message)


def _look_for_image(opened: OpenedFiles, snapshot: Snapshot) -> None:
    """A damaged image does not keep a snapshot from telling, by its memory, which kernel it is of."""
    try:
        image_in_memory(snapshot)
    except OrcdbgError as error:
        opened.fail(error)

"""Which of the files given is the image and which the snapshot, and do they make a session?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orcdbg.base.errors import UnsupportedFormat, UsageError
from orcdbg.base.reading import AddressSpace, FileSource
from orcdbg.base.sizes import PAGE
from orcdbg.formats.detect import FileKind, file_kind
from orcdbg.image.debug_files import is_debug_alone
from orcdbg.image.memory_image import MemoryImage
from orcdbg.image.vmlinux import Image, open_image
from orcdbg.patches.kernel_patches import MakePasses
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.opening import SnapshotFile, open_snapshot, recognise, with_plain_memory
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import find_kernel
from orcdbg.snapshot.readers.reader import HEAD_SIZE, SnapshotReader
from orcdbg.snapshot.spool import is_stream
from orcdbg.snapshot.vmcoreinfo import number
from orcdbg.target.session import Session

if TYPE_CHECKING:
    from orcdbg.target.kernel_types import TypeOptions

_IMAGES = {FileKind.ELF, FileKind.COMPRESSED}
RAW_HINT = "a plain image of memory is given with its physical address: ram.img@0x100000"
_NOT_YET = {
    FileKind.DISKDUMP: "its kernel has no ORC tables; crash reads such files",
}


def unknown_file(path: str) -> UnsupportedFormat:
    """What is wrong with a file that is neither an image nor a snapshot; by its name where its kind is known all the same."""
    from orcdbg.formats.foreign import foreign_kind  # only where a file cannot be used

    what = "neither a vmlinux nor a snapshot of any known format"
    if is_stream(path):
        return UnsupportedFormat(path, what, RAW_HINT)
    source = FileSource(path)
    foreign = foreign_kind(source.read_at(0, min(source.size, HEAD_SIZE)), source.size)
    if foreign is None:
        return UnsupportedFormat(path, what, RAW_HINT)
    return UnsupportedFormat(path, f"{foreign.what}: not read here", foreign.way_out)


def sort_files(paths: Sequence[str], readers: Sequence[SnapshotReader] = ()) -> tuple[list[str], list[SnapshotFile]]:
    """The images' paths, a bzImage last, and the snapshot's files, of which some kinds have several, told by content.

    Args:
        paths: what the user named, in any order.
        readers: of plug-ins, asked before the built-in ones.

    Raises:
        UnsupportedFormat: a file is neither.
        UsageError: not one vmlinux or bzImage, or one of each, and one snapshot.
    """
    images: list[str] = []
    boot_images: list[str] = []
    snapshots: list[SnapshotFile] = []
    unknown: list[str] = []

    for path in paths:
        snapshot = recognise(path, readers)
        if snapshot is not None:
            snapshots.append(snapshot)
            continue

        # A pipe is read only once, and was read already: what came out of it is no snapshot.
        kind = FileKind.UNKNOWN if is_stream(path) else file_kind(FileSource(path))
        if kind in _IMAGES:
            images.append(path)
        elif kind is FileKind.BZIMAGE:
            boot_images.append(path)
        elif kind in _NOT_YET:
            raise UnsupportedFormat(path, f"{kind.value}: not supported", _NOT_YET[kind])
        else:
            unknown.append(path)

    if unknown:
        whole = with_plain_memory(snapshots, unknown)
        if whole is None:
            raise unknown_file(unknown[0])
        snapshots = [whole]

    # Of two one may be what was split off the other.
    if snapshots and len(images) <= 2 and len(boot_images) <= 1:
        return [*images, *boot_images], snapshots

    images += boot_images
    if not snapshots:
        raise UsageError("no snapshot among the files", "give a memory snapshot: orcdbg VMLINUX SNAPSHOT")
    raise UsageError(f"{len(images)} images and {len(snapshots)} snapshot files: one image is needed")


def _open_images(paths: Sequence[str], snapshot: Snapshot) -> Image:
    """The image in these files: a vmlinux, a bzImage, or both; what was split off it may be a file of its own.

    A bzImage beside a vmlinux adds its list of relocations. Debugging information alone adds types and lines; where nothing
    else is given, names, rows and text are those in the snapshot's memory.

    Raises:
        UsageError: more than one image, or of several kernels.
    """
    opened = [open_image(path) for path in paths]
    for other in opened[1:]:
        if other.build_id != opened[0].build_id:
            builds = f"build-ids {opened[0].build_id} and {other.build_id}"
            raise UsageError(f"{opened[0].path} and {other.path} are of different kernels: {builds}")

    split_off = [image for image in opened if is_debug_alone(image.elf)]
    images = [image for image in opened if image not in split_off and not image.is_boot_image]
    boot_images = [image for image in opened if image.is_boot_image]
    if max(len(images), len(boot_images), len(split_off)) > 1:
        raise UsageError(
            f"{len(opened)} images: one is needed, a bzImage and debugging information of its build besides"
        )

    whole = [*images, *boot_images]
    image = whole[0] if whole else image_in_memory(snapshot)
    if images and boot_images:
        image.boot_relocations = boot_images[0].boot_relocations
    if split_off:
        image.debug_file = split_off[0].path
    return image


_TABLES = ("names", "num_syms", "token_table", "token_index", "offsets")
_TABLE_SPAN = 8 << 20


def image_in_memory(snapshot: Snapshot) -> Image:
    """What memory itself holds of the kernel's image.

    Raises:
        OrcdbgError: the kernel, or its symbol tables, cannot be found there.
    """
    found = find_kernel(snapshot)
    place, info = found.placement, snapshot.vmcoreinfo
    memory = KernelMemory(snapshot.physical, place.root, place.levels, place.sme_mask)
    # Since 6.0 VMCOREINFO says where the tables are.
    named = [at for name in _TABLES if (at := number(info, f"SYMBOL(kallsyms_{name})", 16)) is not None]
    near = (max(min(named) & -PAGE, found.start), min(max(named) + _TABLE_SPAN, found.end)) if named else None
    area = found.start, found.end
    return MemoryImage(memory, place.slide, area, near if near and near[0] < near[1] else None, snapshot.path)


def _image_by_build_id(snapshot: Snapshot, find_image: Callable[[str], str | None]) -> Image:
    """The image of the build that the snapshot names; what memory holds where there is none."""
    named = snapshot.vmcoreinfo.get("BUILD-ID")
    if named is not None:
        path = find_image(named.strip().lower())
        return image_in_memory(snapshot) if path is None else open_image(path)

    # Before 5.9 (0935288c6e00) VMCOREINFO has no build-id, and some snapshots have no VMCOREINFO.
    image = image_in_memory(snapshot)
    path = None if image.build_id is None else find_image(image.build_id)
    return image if path is None else open_image(path)


def open_session(
    *paths: str | Path,
    slide: int | None = None,
    phys_base: int | None = None,
    readers: Sequence[SnapshotReader] = (),
    extra_passes: Sequence[MakePasses] = (),
    through: Callable[[AddressSpace], AddressSpace] | None = None,
    debug_folders: Sequence[str] = (),
    type_options: TypeOptions | None = None,
    find_image: Callable[[str], str | None] | None = None,
) -> Session:
    """Opens an image and a snapshot, in any order.

    Args:
        paths: the files: a vmlinux or a bzImage, or both, and a snapshot: one file, or all parts of a split dump.
        slide: run-time minus link address (KASLR), where the snapshot does not tell.
        phys_base: the physical address that link address 0xffffffff80000000 has, likewise.
        readers: further kinds of snapshots, asked before the built-in ones.
        extra_passes: further patch mechanisms, run after the built-in ones.
        debug_folders: where debugging information is looked for that was split off, before the usual places.
        through: wraps the snapshot's physical memory, for who wants to see what is read of it.
        type_options: where the user says that types are which the image lacks.
        find_image: the path of the image of a build-id, asked where no image is among the files; without one, memory has to do.

    Raises:
        UnsupportedFormat: a file is unreadable or of a format that is not supported.
        Mismatch: the two are of different kernels.
        OrcdbgError: anything else that keeps the session from being opened.
    """
    image_paths, snapshots = sort_files([str(path) for path in paths], readers)
    snapshot = open_snapshot(snapshots)
    if through is not None:
        snapshot = replace(snapshot, physical=through(snapshot.physical))
    if image_paths:
        image = _open_images(image_paths, snapshot)
    elif find_image is not None:
        image = _image_by_build_id(snapshot, find_image)
    else:
        image = image_in_memory(snapshot)
    image.debug_folders = tuple(debug_folders)
    return Session(image, snapshot, slide, phys_base, extra_passes, type_options=type_options)

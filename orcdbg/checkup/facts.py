"""What is known of the files: their kernel, and what each of them holds?"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import read_cstring
from orcdbg.base.sizes import PAGE
from orcdbg.checkup.given_files import OpenedFiles
from orcdbg.image.debug_files import find_debug_file
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.tasks import started_cpus
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.placement import PlacedBy, PlacementSource
from orcdbg.symbols.btf import SECTION
from orcdbg.symbols.kallsyms import vmlinux_symbols
from orcdbg.target.kernel_types import TypeOrigin
from orcdbg.target.session import Session

T = TypeVar("T")

# 256 MiB of text; the largest kernels have 40.
MAX_TEXT_PAGES = 1 << 16
MAX_BANNER = 512


class VmcoreinfoState(enum.Enum):
    """Whether the kernel's own description of itself is known; the values are the contract's words."""

    PRESENT = "present"
    FOUND_BY_SEARCH = "found by search"
    ABSENT = "absent"


class SymbolSource(enum.Enum):
    """Which table of an image names its symbols; the values are the contract's words."""

    SYMTAB = ".symtab"
    KALLSYMS = "kallsyms"


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """A snapshot, whatever kernel is in it.

    Attributes:
        format: in words.
        is_trimmed: whether `orcdbg trim` made it.
        cpu_registers: of how many CPUs they are known.
        vmcoreinfo: whether it has one.
        memory_ranges: how many stretches of memory it holds; None where its reader cannot tell.
        memory_bytes: how many bytes those have, likewise.
        left_out: bytes that the file names but does not hold, by the words of `NotInSnapshot`.
    """

    format: str
    is_trimmed: bool
    cpu_registers: int
    vmcoreinfo: VmcoreinfoState
    memory_ranges: int | None
    memory_bytes: int | None
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image: its file, what names its symbols (None where nothing does), and whether it lists what the boot moves."""

    path: str
    symbols: SymbolSource | None
    has_relocation_list: bool


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """A kernel in memory; what its memory does not tell is None.

    Attributes:
        slide: what KASLR added, in bytes.
        placement: what told that.
        journal: the file that its patches are taken from, if any.
        cpus: how many it runs on, those that a panic stopped among them.
        tasks: how many there are.
        has_task_problems: whether some of them cannot be read.
        modules: how many are loaded.
        orc: the layout of its ORC rows.
        text_pages: how many pages its lasting text has.
        text_pages_missing: how many of those are not in the snapshot.
    """

    slide: int
    placement: PlacementSource
    journal: str | None
    cpus: int | None
    tasks: int | None
    has_task_problems: bool
    modules: int | None
    orc: str | None
    text_pages: int
    text_pages_missing: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known; a part is None where no file tells of it.

    Attributes:
        release: what `uname -r` said; untrusted.
        build_id: in hexadecimal; untrusted.
        snapshot: the snapshot.
        image: the image given.
        has_any_image: whether there is an image, given or in memory, which may have debugging information.
        debug_file: the file that has it.
        types: where the kernel's types are from, in words; None where nobody has them.
        kernel: image and snapshot together.
    """

    release: str | None
    build_id: str | None
    snapshot: SnapshotFacts | None
    image: ImageFacts | None
    has_any_image: bool
    debug_file: str | None
    types: str | None
    kernel: KernelFacts | None


def gather_facts(opened: OpenedFiles, warn: Callable[[str], None]) -> Facts:
    """What is known of the files; whatever cannot be read of them is None.

    Args:
        opened: the files.
        warn: is told of debugging information that was there and is of another image.
    """
    release, build_id = _identity(opened)
    snapshot = None if opened.snapshot is None else _of_snapshot(opened.snapshot)
    image = None if opened.image is None else _of_image(opened.image)

    any_image = opened.any_image
    debug_file = None
    if any_image is not None:
        debug_file = _told(lambda: _debug_file(any_image, opened, warn))

    kernel = None if opened.session is None else _of_session(opened.session)
    was_found = kernel is not None and kernel.placement.kind is PlacedBy.VMCOREINFO_IN_MEMORY
    if was_found and snapshot is not None and snapshot.vmcoreinfo is VmcoreinfoState.ABSENT:
        snapshot = replace(snapshot, vmcoreinfo=VmcoreinfoState.FOUND_BY_SEARCH)

    types = _types(opened, any_image)
    return Facts(release, build_id, snapshot, image, any_image is not None, debug_file, types, kernel)


def _told(ask: Callable[[], T]) -> T | None:
    """An answer, None where the files do not give it."""
    try:
        return ask()
    except OrcdbgError:
        return None


def _identity(opened: OpenedFiles) -> tuple[str | None, str | None]:
    """Release and build-id, by the snapshot first, for it is what needs the other."""
    info = {} if opened.snapshot is None else opened.snapshot.vmcoreinfo
    release = info.get("OSRELEASE")
    build_id = info.get("BUILD-ID")

    image = opened.any_image
    if image is not None:
        release = release or _told(lambda: _release(image))
        build_id = build_id or _told(lambda: image.build_id)
    return release, build_id


def _release(image: Image) -> str | None:
    """The third word of the banner `Linux version RELEASE (...)` (init/version.c)."""
    symbol = vmlinux_symbols(image).find("linux_banner")
    if symbol is None:
        return None
    words = read_cstring(image, symbol.address, MAX_BANNER).decode("latin-1").split()
    return words[2] if len(words) > 2 else None


def _debug_file(image: Image, opened: OpenedFiles, warn: Callable[[str], None]) -> str | None:
    elf = find_debug_file(image, opened.debug_folders, warn)
    return None if elf is None else elf.source.name


def _types(opened: OpenedFiles, image: Image | None) -> str | None:
    """Where the types are from: of an image that could not be opened with its snapshot, whether it has them itself."""
    if opened.session is not None:
        session = opened.session
        return _told(lambda: session.found_types.where)
    if image is None:
        return None
    if opened.snapshot is not None:
        section = image.find_section(SECTION)
        return TypeOrigin.IMAGE.value if section is not None and section.size else None
    return _told(lambda: opened.unbooted.found_types.where)


def _of_snapshot(snapshot: Snapshot) -> SnapshotFacts:
    ranges = None if snapshot.ranges is None else list(snapshot.ranges())
    left_out = None if snapshot.left_out is None else _told(snapshot.left_out)
    return SnapshotFacts(
        format=snapshot.format,
        is_trimmed=snapshot.is_trimmed,
        cpu_registers=len(snapshot.cpus),
        vmcoreinfo=VmcoreinfoState.PRESENT if snapshot.vmcoreinfo else VmcoreinfoState.ABSENT,
        memory_ranges=None if ranges is None else len(ranges),
        memory_bytes=None if ranges is None else sum(end - start for start, end in ranges),
        left_out=left_out or {},
    )


def _of_image(image: Image) -> ImageFacts:
    symbols: SymbolSource | None = None
    if _told(lambda: vmlinux_symbols(image)) is not None:
        has_symtab = image.find_section(".symtab") is not None
        symbols = SymbolSource.SYMTAB if has_symtab else SymbolSource.KALLSYMS
    return ImageFacts(image.path, symbols, bool(image.boot_relocations))


def _of_session(session: Session) -> KernelFacts:
    pages, missing = _text_pages(session)
    return KernelFacts(
        slide=session.placement.slide,
        placement=session.placement.source,
        journal=None if session.patches.journal is None else session.patches.journal.path,
        cpus=_told(lambda: len(started_cpus(session.linux))),
        tasks=_told(lambda: len(session.tasks)),
        has_task_problems=bool(_told(lambda: session.task_problems)),
        modules=_told(lambda: len(session.names.modules)),
        orc=_told(lambda: session.orc_layout.layout.name),
        text_pages=pages,
        text_pages_missing=missing,
    )


def _text_pages(session: Session) -> tuple[int, int]:
    """Pages of the kernel's lasting text, and how many of them the snapshot lacks."""
    section = session.image.find_section(".text")
    if section is None:
        return 0, 0

    start = section.address + session.slide & -PAGE
    end = min(section.end + session.slide, start + MAX_TEXT_PAGES * PAGE)
    pages = range(start, end, PAGE)
    return len(pages), sum(1 for page in pages if not _is_there(session, page))


def _is_there(session: Session, page: int) -> bool:
    try:
        session.memory.read(page, PAGE)
    except MemoryFault:
        return False
    return True

"""checkup: what is in these files, what is missing, what does that cost, and how is it got?

Nothing here opens a file: who calls says what could be opened, and what went wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from orcdbg.base.errors import MemoryFault, Mismatch, OrcdbgError
from orcdbg.base.reading import read_cstring
from orcdbg.image.debug_files import find_debug_file
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.tasks import online_cpus
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.readers.kept import KeptMemory
from orcdbg.symbols.kallsyms import vmlinux_symbols
from orcdbg.target.session import Session

T = TypeVar("T")
PAGE = 4096
MAX_TEXT_PAGES = 1 << 16
# Tables of what the boot patched: the boot gives their memory back, so only the file has them.
_BOOT_TABLES = (".altinstructions", ".smp_locks", ".parainstructions", ".retpoline_sites", ".return_sites")
# What goes into a command line that a user may copy comes from the snapshot: nothing but these letters.
_RELEASE, _BUILD_ID = re.compile(r"[\w.+~-]{1,64}", re.ASCII), re.compile(r"[0-9a-f]{16,64}")
_BY_RELEASE = (
    (re.compile(r".*\.(?:el|fc|amzn)\d+.*"), "debuginfo-install kernel-{}"),
    (re.compile(r"\d.*-(?:generic|lowlatency|aws|azure|gcp|kvm|oracle)"), "apt install linux-image-unsigned-{}-dbgsym"),
    (re.compile(r"\d.*-(?:amd64|rt-amd64|cloud-amd64)"), "apt install linux-image-{}-dbg"),
)


@dataclass(frozen=True, slots=True)
class FileFound:
    """One file of those given: `kind` is what its content says it is, `problem` what is wrong with it."""

    path: str
    kind: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the files do not have: what cannot be done without, and the command that gets it, where one does."""

    what: str
    cost: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found and what is missing; `error` is what keeps the files from being opened together.

    `facts` are names and values as they are shown; a value is None where nothing tells.
    """

    files: Sequence[FileFound]
    facts: Mapping[str, str | int | None]
    missing: Sequence[Missing]
    warnings: Sequence[str]
    error: OrcdbgError | None = None

    @property
    def exit_status(self) -> int:
        """0 where orcdbg can work with these files, else what opening them would end with."""
        return 0 if self.error is None else self.error.exit_status


@dataclass(slots=True)
class Opened:
    """What could be opened of the files."""

    files: list[FileFound] = field(default_factory=list)
    image: Image | None = None
    snapshot: Snapshot | None = None
    session: Session | None = None
    error: OrcdbgError | None = None
    debug_folders: Sequence[str] = ()

    @property
    def any_image(self) -> Image | None:
        """The image given, else what memory holds of it."""
        return self.image if self.image is not None or self.session is None else self.session.image


def command_for_image(release: str | None, build_id: str | None) -> str | None:
    """The one command that gets the debug vmlinux of a kernel, None where nothing tells which it is.

    Args:
        release: what `uname -r` said, as the files have it; untrusted.
        build_id: likewise, in hexadecimal.
    """
    if release is not None and _RELEASE.fullmatch(release) and not release.startswith("-"):
        for pattern, command in _BY_RELEASE:
            if pattern.fullmatch(release):
                return command.format(release)
    if build_id is not None and _BUILD_ID.fullmatch(build_id):
        return f"debuginfod-find debuginfo {build_id}"
    return None


def look(opened: Opened) -> Checkup:
    """The account of what was opened; whatever cannot be read of it becomes a line of the account."""
    facts: dict[str, str | int | None] = {}
    warnings: list[str] = []
    release, build_id = _identity(opened)
    facts |= {"release": release, "build_id": build_id}
    if opened.snapshot is not None:
        facts |= _of_snapshot(opened.snapshot)
        warnings += opened.snapshot.warnings
    if opened.image is not None:
        facts |= _of_image(opened.image)
    image = opened.any_image
    if image is not None:
        facts["debug_information"] = _told(lambda: _debug_file(image, opened.debug_folders, warnings.append))
    if opened.session is not None:
        facts |= _of_session(opened.session)
        warnings += [one for one in opened.session.warnings if one not in warnings]
    missing = list(_missing(opened, facts, command_for_image(release, build_id)))
    return Checkup(opened.files, facts, missing, warnings, opened.error)


def _identity(opened: Opened) -> tuple[str | None, str | None]:
    """Release and build-id, by the snapshot first, for it is what needs the other."""
    info = opened.snapshot.vmcoreinfo if opened.snapshot is not None else {}
    image = opened.any_image
    release, build_id = info.get("OSRELEASE"), info.get("BUILD-ID")
    if image is not None:
        banner = _told(lambda: _banner(image))
        words = str(banner or "").split()
        release = release or (words[2] if len(words) > 2 else None)
        build_id = build_id or _told(lambda: image.build_id)
    return release, build_id


def _told(ask: Callable[[], T]) -> T | None:
    """An answer, None where the files do not give it."""
    try:
        return ask()
    except OrcdbgError:
        return None


def _banner(image: Image) -> str | None:
    symbol = vmlinux_symbols(image).find("linux_banner")
    return None if symbol is None else read_cstring(image, symbol.address, 512).decode("latin-1").strip()


def _debug_file(image: Image, folders: Sequence[str], warn: Callable[[str], None]) -> str | None:
    found = find_debug_file(image, folders, warn)
    return None if found is None else found.source.name


def _of_snapshot(snapshot: Snapshot) -> dict[str, str | int | None]:
    ranges = None if snapshot.ranges is None else list(snapshot.ranges())
    found: dict[str, str | int | None] = {
        "format": snapshot.format,
        "cpu_registers": len(snapshot.cpus),
        "vmcoreinfo": "present" if snapshot.vmcoreinfo else "absent",
        "memory_ranges": None if ranges is None else len(ranges),
        "memory_bytes": None if ranges is None else sum(end - start for start, end in ranges),
    }
    left_out = None if snapshot.left_out is None else _told(snapshot.left_out)
    for state, size in sorted((left_out or {}).items()):
        found[f"{re.sub('[ -]', '_', state)}_bytes"] = size
    return found


def _of_image(image: Image) -> dict[str, str | int | None]:
    symbols = _told(lambda: vmlinux_symbols(image))
    table = None if symbols is None else ".symtab" if image.find_section(".symtab") is not None else "kallsyms"
    return {"image": image.path, "symbols": table, "relocation_list": "present" if image.boot_relocations else "absent"}


def _of_session(session: Session) -> dict[str, str | int | None]:
    place = session.placement
    found: dict[str, str | int | None] = {"kaslr": f"{place.slide:#x}", "placement": place.source}
    if session.patches.journal is not None:
        found["journal"] = session.patches.journal.path
    if not session.snapshot.vmcoreinfo and place.by_found_note:
        found["vmcoreinfo"] = "found by search"
    pages, lost = _text_pages(session)
    layout = _told(lambda: session.orc_layout.layout.name)
    found |= {
        "cpus": _told(lambda: len(online_cpus(session.linux))),
        "tasks": _told(lambda: len(session.tasks)),
        "modules": _told(lambda: len(session.names.modules)),
        "orc": layout,
        "text_pages": pages,
        "text_pages_missing": lost,
    }
    return found


def _text_pages(session: Session) -> tuple[int, int]:
    """Pages of the kernel's lasting text, and how many of them the snapshot lacks."""
    section = session.image.find_section(".text")
    if section is None:
        return 0, 0
    start, end = section.address + session.slide & -PAGE, section.end + session.slide
    pages = range(start, min(end, start + MAX_TEXT_PAGES * PAGE), PAGE)
    return len(pages), sum(1 for page in pages if not _readable(session, page))


def _readable(session: Session, page: int) -> bool:
    try:
        session.memory.read(page, PAGE)
    except MemoryFault:
        return False
    return True


def _missing(opened: Opened, facts: Mapping[str, str | int | None], get: str | None) -> Iterator[Missing]:
    if opened.snapshot is None:
        yield Missing("snapshot", "only `patch check`, `orc union` and `orc dump` can be asked, of the vmlinux alone")
    if isinstance(opened.error, Mismatch):
        yield Missing("the image of this kernel", "nothing can be asked: the image given is of another build", get)
    if opened.image is None:
        has_journal = facts.get("journal") is not None
        patches = "patches those of the journal" if has_journal else "`patch` has nothing to compare with"
        lines = "" if facts.get("debug_information") else ", and there are no lines"
        yield Missing("image", f"names, types and ORC rows are those in memory; {patches}{lines}", get)
    else:
        yield from _missing_of_image(opened.image, facts, get)
    if opened.snapshot is not None:
        yield from _missing_of_snapshot(opened.snapshot, facts)
    if opened.session is not None:
        yield from _missing_of_session(opened.session, facts)


def _has(image: Image, *names: str) -> bool:
    return any(section is not None and section.size for section in map(image.find_section, names))


def _missing_of_image(image: Image, facts: Mapping[str, str | int | None], get: str | None) -> Iterator[Missing]:
    has_dwarf = facts.get("debug_information") is not None
    if facts.get("symbols") is None:
        yield Missing("symbols", "nothing has a name, so nothing can be found", get)
    if not _has(image, ".BTF"):
        cost = "no type has members, so tasks, stacks and modules cannot be read"
        yield Missing("BTF", cost, "pahole -J VMLINUX" if has_dwarf else get)
    if not _has(image, ".orc_unwind"):
        yield Missing("ORC", "no walk can be sure: the kernel was built without CONFIG_UNWINDER_ORC")
    if not _has(image, *_BOOT_TABLES):
        yield Missing("init tables", "which places the boot patched is not known; corrections cannot be told", get)
    if not has_dwarf:
        yield Missing("DWARF lines", "frames have no source lines (`bt -l`), no inlined functions", get)


def _missing_of_snapshot(snapshot: Snapshot, facts: Mapping[str, str | int | None]) -> Iterator[Missing]:
    if not snapshot.cpus:
        cost = "stacks of running tasks begin at what the kernel itself saved, or not at all"
        yield Missing("CPU registers", cost)
    elif isinstance(cpus := facts.get("cpus"), int) and len(snapshot.cpus) < cpus:
        which = f"registers of {cpus - len(snapshot.cpus)} of {cpus} CPUs"
        yield Missing(which, "the stacks that run there begin at what the kernel itself saved, or not at all")
    if not snapshot.vmcoreinfo and facts.get("vmcoreinfo") == "absent":
        cost = "the kernel's place is taken from CPU registers, or searched for in all memory"
        yield Missing("VMCOREINFO", cost)


def _missing_of_session(session: Session, facts: Mapping[str, str | int | None]) -> Iterator[Missing]:
    lost = facts.get("text_pages_missing")
    if lost:
        what = f"{lost} of {facts['text_pages']} pages of kernel text"
        trimmed = isinstance(session.snapshot.physical, KeptMemory)
        command = "orcdbg trim VMLINUX SNAPSHOT -o FILE --text" if trimmed else None
        yield Missing(what, "there `dis` shows a replay of the image, and `patch audit` compares nothing", command)
    if facts.get("tasks") is None or session.task_problems:
        yield Missing("task list", "`ps`, `foreach` and `bt` miss tasks: memory that names them is not there")
    modules = facts.get("modules")
    if modules:
        release = str(facts.get("release") or "")
        where = f"/usr/lib/modules/{release}" if _RELEASE.fullmatch(release) else "DIR"
        cost = "`patch audit` does not account for their text, and they have no source lines"
        yield Missing(f".ko files of {modules} modules", cost, f"patch audit --modules {where}")

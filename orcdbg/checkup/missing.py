"""What do the files not have that some question needs, and how is it got?"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import Mismatch
from orcdbg.checkup.facts import Facts, ImageFacts, KernelFacts, SnapshotFacts, VmcoreinfoState
from orcdbg.checkup.given_files import OpenedFiles
from orcdbg.checkup.remedies import TRIM_WITH_TEXT, command_for_image, command_for_modules, command_for_types
from orcdbg.image.vmlinux import Image
from orcdbg.patches.replay import boot_tables


class Lack(enum.Enum):
    """Something that files may not have."""

    SNAPSHOT = enum.auto()
    RIGHT_IMAGE = enum.auto()  # the one given is of another build
    IMAGE = enum.auto()
    SYMBOLS = enum.auto()
    BTF = enum.auto()
    ORC = enum.auto()
    BOOT_TABLES = enum.auto()
    LINES = enum.auto()
    CPU_REGISTERS = enum.auto()
    SOME_CPU_REGISTERS = enum.auto()
    VMCOREINFO = enum.auto()
    TEXT_PAGES = enum.auto()
    TASKS = enum.auto()
    MODULE_FILES = enum.auto()


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the files do not have.

    Attributes:
        lack: what.
        command: the one that gets it; None where none does.
        count: how many of it are missing, where it can be counted.
        total: how many there are in all, where that is known too.
    """

    lack: Lack
    command: str | None = None
    count: int = 0
    total: int = 0


def find_missing(opened: OpenedFiles, facts: Facts) -> Iterator[Missing]:
    """Everything that is missing, what costs most first.

    Args:
        opened: the files.
        facts: what was found in them.
    """
    get_image = command_for_image(facts.release, facts.build_id)

    if opened.snapshot is None:
        yield Missing(Lack.SNAPSHOT)
    if isinstance(opened.error, Mismatch):
        yield Missing(Lack.RIGHT_IMAGE, get_image)

    if opened.image is None or facts.image is None:
        yield Missing(Lack.IMAGE, get_image)
    else:
        yield from _in_image(opened.image, facts.image, facts.debug_file is not None, get_image)
        if facts.types is None:
            has_dwarf = facts.debug_file is not None
            yield Missing(Lack.BTF, command_for_types(opened.type_options.environment) if has_dwarf else get_image)

    if facts.snapshot is not None:
        yield from _in_snapshot(facts.snapshot, facts.kernel)
    if facts.kernel is not None:
        yield from _in_kernel(facts.kernel, facts.snapshot, command_for_modules(facts.release))


def _has(image: Image, *names: str) -> bool:
    """Whether an image has one of these sections, and something in it."""
    return any(section is not None and section.size for section in map(image.find_section, names))


def _in_image(image: Image, facts: ImageFacts, has_dwarf: bool, get_image: str | None) -> Iterator[Missing]:
    if facts.symbols is None:
        yield Missing(Lack.SYMBOLS, get_image)
    if not _has(image, ".orc_unwind"):
        yield Missing(Lack.ORC)
    if not _has(image, *boot_tables()):
        yield Missing(Lack.BOOT_TABLES, get_image)
    if not has_dwarf:
        yield Missing(Lack.LINES, get_image)


def _in_snapshot(snapshot: SnapshotFacts, kernel: KernelFacts | None) -> Iterator[Missing]:
    known = snapshot.cpu_registers
    online = None if kernel is None else kernel.cpus
    if not known:
        yield Missing(Lack.CPU_REGISTERS)
    elif online is not None and known < online:
        yield Missing(Lack.SOME_CPU_REGISTERS, None, online - known, online)

    if snapshot.vmcoreinfo is VmcoreinfoState.ABSENT:
        yield Missing(Lack.VMCOREINFO)


def _in_kernel(kernel: KernelFacts, snapshot: SnapshotFacts | None, get_modules: str) -> Iterator[Missing]:
    if kernel.text_pages_missing:
        is_trimmed = snapshot is not None and snapshot.is_trimmed
        command = TRIM_WITH_TEXT if is_trimmed else None
        yield Missing(Lack.TEXT_PAGES, command, kernel.text_pages_missing, kernel.text_pages)

    if kernel.tasks is None or kernel.has_task_problems:
        yield Missing(Lack.TASKS)

    if kernel.modules:
        yield Missing(Lack.MODULE_FILES, get_modules, kernel.modules)

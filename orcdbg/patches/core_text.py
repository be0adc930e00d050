"""What is the kernel's own text, as built and as all passes leave it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.formats.elf import SHF_ALLOC
from orcdbg.image.vmlinux import KERNEL_BASE, Image
from orcdbg.patches.audit import AuditReport, MemoryText, Replayed, compare
from orcdbg.patches.relocated import RelocationsPass, relocated_by_difference
from orcdbg.patches.relocation import BuiltText
from orcdbg.patches.replay import Build, table_problems
from orcdbg.patches.site import PatchPass
from orcdbg.patches.sweep import WholeText

_MAX_TEXT = 256 << 20


def text_as_built(build: Build) -> tuple[int, bytes]:
    """The run-time address and the bytes of [_text, _etext) in the image, not relocated.

    Raises:
        UnsupportedFormat: the symbols do not bound a part of one section.
    """
    start, end = build.text
    if not 0 < end - start <= _MAX_TEXT:
        raise UnsupportedFormat(build.image.path, f"text from {start:#x} to {end:#x}")
    return start, build.image.read(start - build.linux.slide, end - start)


def _image_range(image: Image) -> tuple[int, int]:
    """Link addresses from the first to past the last allocated section at kernel addresses."""
    mapped = [s for s in image.elf.sections if s.flags & SHF_ALLOC and s.address >= KERNEL_BASE]
    return min(s.address for s in mapped), max(s.end for s in mapped)


def relocations_pass(build: Build, built: BuiltText, data: bytes, memory: MemoryText | None) -> RelocationsPass | None:
    """The relocations of the whole text; None where nothing tells them."""
    link = build.text[0] - build.linux.slide
    section = build.image.section_at(link)
    places = built.relocations(section) if section is not None else None
    if places is None and build.linux.slide and memory is not None:
        array = np.frombuffer(data, dtype=np.uint8)
        limits = _image_range(build.image)
        places = relocated_by_difference(array, memory.array, link, build.linux.slide, limits, built.per_cpu_size)
    return None if places is None else RelocationsPass(places, build.linux.slide)


def replay_text(
    build: Build, built: BuiltText, passes: Sequence[PatchPass], data: bytes, memory: MemoryText | None
) -> Replayed:
    """The kernel's text after relocation and all passes."""
    replayed = Replayed(WholeText(build.text[0], bytearray(data)))
    moved = relocations_pass(build, built, data, memory)
    if moved is not None:
        replayed.run(moved)
    for the_pass in passes:
        replayed.run(the_pass)
    return replayed


def audit_kernel(build: Build, built: BuiltText, passes: Sequence[PatchPass]) -> AuditReport:
    """Compares the kernel's text in memory with what it must be."""
    start, data = text_as_built(build)
    memory = MemoryText(build.linux.memory, start, start + len(data))
    replayed = replay_text(build, built, passes, data, memory)
    report = compare(data, replayed, memory)
    report.problems += table_problems(build, passes)
    return report

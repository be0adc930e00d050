"""What is the kernel's own text, as built and as all passes leave it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.sizes import PAGE
from orcdbg.formats.elf import SHF_ALLOC
from orcdbg.image.vmlinux import KERNEL_BASE, Image
from orcdbg.patches.audit.account import AuditReport, MechanismCount, MemoryText, Replayed, compare
from orcdbg.patches.audit.code_without_file import freed_sites, notes
from orcdbg.patches.audit.relocated_text import relocated_by_difference
from orcdbg.patches.build import Build
from orcdbg.patches.built_text import BuiltText, RelocationList
from orcdbg.patches.kernel_patches import KernelPatches
from orcdbg.patches.mechanisms.kprobe import ProbePass
from orcdbg.patches.mechanisms.relocation import RelocationsPass
from orcdbg.patches.mechanisms.text_change import TextChangePass
from orcdbg.patches.replay import table_problems
from orcdbg.patches.site import PatchPass, U8Array, U64Array, WorkingText, known_spans
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
    mapped = [s for s in image.sections if s.flags & SHF_ALLOC and s.address >= KERNEL_BASE]
    return min(s.address for s in mapped), max(s.end for s in mapped)


def _without_probes(memory: MemoryText, passes: Sequence[PatchPass]) -> U8Array:
    """Memory with the bytes that kprobes overwrote put back: a breakpoint may cover half a relocated operand."""
    probes = [the_pass for the_pass in passes if isinstance(the_pass, ProbePass | TextChangePass)]
    originals = [original for the_pass in probes for original in the_pass.originals()]
    if not originals:
        return memory.array
    text = WorkingText(memory.start, bytearray(memory.array))
    for address, data in originals:
        if text.address <= address < text.end:
            text.write(address, data)
    return text.array


def relocations_by_difference(
    build: Build, built: BuiltText, passes: Sequence[PatchPass], data: bytes, memory: MemoryText
) -> RelocationList:
    """The relocations of the whole text as memory shows them."""
    array, now = np.frombuffer(data, dtype=np.uint8), _without_probes(memory, passes)
    limits, slide = _image_range(build.image), build.linux.slide
    boundaries = boundaries_of(passes) - np.uint64(slide)
    return relocated_by_difference(array, now, build.text[0] - slide, slide, limits, built.per_cpu_size, boundaries)


def boundaries_of(passes: Sequence[PatchPass]) -> U64Array:
    """Where the places of all passes begin and end: each is whole instructions, a prefix, or a whole operand.

    The jump of a probe alone may end inside an instruction.
    """
    edges = [np.empty(0, np.uint64)]
    for the_pass in passes:
        spans = known_spans(the_pass)
        edges.append(spans.starts)
        if not isinstance(the_pass, ProbePass | TextChangePass):
            edges.append(spans.starts + spans.sizes)
    return np.unique(np.concatenate(edges))


def relocations_pass(
    build: Build, built: BuiltText, passes: Sequence[PatchPass], data: bytes, memory: MemoryText
) -> RelocationsPass | None:
    """The relocations of the whole text; None where it was not moved."""
    link = build.text[0] - build.linux.slide
    section = build.image.section_at(link)
    places = built.relocations(section) if section is not None else None
    if places is None and build.linux.slide:
        places = relocations_by_difference(build, built, passes, data, memory)
    return None if places is None else RelocationsPass(places, build.linux.slide)


def replay_text(
    build: Build, built: BuiltText, passes: Sequence[PatchPass], data: bytes, memory: MemoryText
) -> Replayed:
    """The kernel's text after relocation and all passes."""
    replayed = Replayed(WholeText(build.text[0], bytearray(data)))
    moved = relocations_pass(build, built, passes, data, memory)
    if moved is not None:
        replayed.run(moved)
    for the_pass in passes:
        replayed.run(the_pass)
    return replayed


def replayed_kernel(patches: KernelPatches) -> Replayed:
    """The kernel's text as all passes leave it, whether or not the snapshot has it.

    Memory helps only where the image lists no relocations; where that is missing too, instructions are decoded instead.

    Raises:
        NotFound: there is no image.
    """
    patches.need_image("what its text must be")
    build, built, passes = patches.build, patches.build.built, patches.passes
    start, data = text_as_built(build)
    memory = MemoryText(build.linux.memory, start, start + len(data))
    section = build.image.section_at(start - build.linux.slide)
    if memory.missing and build.linux.slide and (section is None or built.relocations(section) is None):
        data = _relocated_by_operand(build, built, data, memory)
    return replay_text(build, built, passes, data, memory)


def _relocated_by_operand(build: Build, built: BuiltText, data: bytes, memory: MemoryText) -> bytes:
    """The text with its operands relocated on the pages that memory lacks, function by function."""
    out = bytearray(data)
    start, end = build.text
    slide = build.linux.slide
    absent = np.flatnonzero(~memory.present)

    address = 0  # what lies before it is done
    for page in (start // PAGE + absent).tolist():
        address = max(address, page * PAGE)
        while address < min((page + 1) * PAGE, end):
            function = build.linux.symbols.at(address - slide)
            first = function.symbol.address + slide if function else address
            last = min(max(first + function.size if function else 0, address + 1), end)
            first = max(first, start)
            _copy_absent(out, built.read(first, last - first), first - start, memory)
            address = last
    return bytes(out)


def _copy_absent(out: bytearray, moved: bytes, offset: int, memory: MemoryText) -> None:
    """Takes the relocated bytes where memory has none; elsewhere memory itself tells the relocations."""
    absent = ~memory.mask(offset, offset + len(moved))
    array = np.frombuffer(out, dtype=np.uint8)[offset : offset + len(moved)]
    array[absent] = np.frombuffer(moved, dtype=np.uint8)[absent]


def audit_kernel(patches: KernelPatches) -> AuditReport:
    """Compares the kernel's text in memory with what it must be.

    Raises:
        NotFound: there is no image.
    """
    patches.need_image("what its text must be")
    build, built, passes = patches.build, patches.build.built, patches.passes
    start, data = text_as_built(build)
    memory = MemoryText(build.linux.memory, start, start + len(data))
    replayed = replay_text(build, built, passes, data, memory)
    report = compare(data, replayed, memory)
    report.problems += table_problems(build, passes)
    report.mechanisms["init-freed"] = MechanismCount(sites=freed_sites(build.image, build.linux.slide, passes))
    report.notes += notes(build.linux)
    return report

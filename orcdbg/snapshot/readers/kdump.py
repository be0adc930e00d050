"""How is a compressed kdump, of one file or split into several, read as a stopped machine?

Mirrors how makedumpfile writes it (makedumpfile.c, write_kdump_pages_and_bitmap_cyclic and its like; diskdump_mod.h), QEMU
(dump/dump.c, create_kdump_vmcore), and how crash reads it (diskdump.c): the data of a page frame are found by how many frames
below it were dumped.
"""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from orcdbg.base.errors import Absence, NotInSnapshot, UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget
from orcdbg.formats.core_notes import is_qemu
from orcdbg.formats.elf import MAX_NOTE_COUNT, MAX_NOTES, Note, stored_notes
from orcdbg.formats.kdump import (
    DESCRIPTOR_SIZE,
    INCOMPLETE,
    MAGIC,
    MAX_VMCOREINFO,
    KdumpHeader,
    PageDescriptor,
    parse_descriptors,
    parse_kdump,
)
from orcdbg.formats.page_bitmap import PageBitmap
from orcdbg.formats.pagecodecs import DamagedPage, unpack_page
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.notes import VMCOREINFO, cpu_states, vmcoreinfo_of
from orcdbg.snapshot.readers.reader import SnapshotReader
from orcdbg.snapshot.vmcoreinfo import parse_vmcoreinfo

# 8 MiB: a walk of all stacks of a machine comes back to some hundred pages, above all those of page tables.
CACHED_PAGES = 2048
# From so many pages on, as in a search, descriptors are read together and the pages are not kept.
BULK = 64
# makedumpfile --split makes as many as the user names files; each costs a file descriptor and its bitmaps' counts.
MAX_PARTS = 1024


class KdumpPart:
    """One file of a dump: finds the data of a page frame.

    Attributes:
        start: number of the first page frame that this file is for.
        end: of the first behind them.
        dumped: which frames have data, of all in the machine.
        existing: which frames are memory; the same bitmap where the file has but one.
    """

    def __init__(self, source: ByteSource, header: KdumpHeader) -> None:
        self.source = source
        self.header = header

        self.start = header.start_frame if header.is_split else 0
        self.end = header.end_frame if header.is_split else header.frames

        self.dumped = PageBitmap(source, header.dumped_bitmap, header.frames)
        self.existing = self.dumped
        if header.has_two_bitmaps:
            self.existing = PageBitmap(source, header.bitmap, header.frames)

    @functools.cached_property
    def _skipped(self) -> int:
        """How many dumped frames are in earlier parts: the bitmaps are those of the whole dump, the descriptors are not."""
        return self.dumped.rank(self.start) if self.start else 0

    def _descriptors_end(self) -> int:
        """Offset of the first byte behind all descriptors that are known of; data of pages lie behind the last of them.

        Known of are those of the frames that were counted so far, which is all of them up to 32 GiB of memory. To count the
        rest takes 0.4 s for 4 TiB, which no first question should wait for.
        """
        count = self.dumped.rank_so_far(self.end) - self._skipped
        return self.header.descriptors + count * DESCRIPTOR_SIZE

    def _missing(self, frame: int) -> NotInSnapshot:
        state = Absence.EXCLUDED if self.existing.test(frame) else Absence.ABSENT
        return NotInSnapshot("physical", frame * PAGE, PAGE, state)

    def descriptors(self, frame: int, count: int) -> Iterator[PageDescriptor]:
        """The descriptors of `count` frames that follow each other.

        Raises:
            NotInSnapshot: one of them was not dumped, or the file ends before.
        """
        rank = self.dumped.rank(frame)
        is_gap_behind = count > 1 and self.dumped.rank(frame + count) - rank != count
        if is_gap_behind or not self.dumped.test(frame):
            frames = range(frame, frame + count)
            raise self._missing(next(each for each in frames if not self.dumped.test(each)))

        offset = self.header.descriptors + (rank - self._skipped) * DESCRIPTOR_SIZE
        size = count * DESCRIPTOR_SIZE
        if offset + size > self.source.size:
            raise NotInSnapshot("physical", frame * PAGE, PAGE, Absence.CUT_OFF)
        return parse_descriptors(self.source.read_at(offset, size))

    def unpacked_page(self, frame: int, descriptor: PageDescriptor) -> bytes:
        """The page that a descriptor describes.

        Args:
            frame: the page frame's number.
            descriptor: this frame's.

        Raises:
            NotInSnapshot: its data are not there, or are not a page's.
        """
        offset, size, flags, _ = descriptor

        # makedumpfile leaves descriptors of zeros for what it had no room for any more.
        if offset == 0 or offset + size > self.source.size:
            raise NotInSnapshot("physical", frame * PAGE, PAGE, Absence.CUT_OFF)

        # A false descriptor would show headers, notes or other descriptors as memory. And data that would not get smaller
        # are stored as they are, so none are larger than a page.
        if offset < self._descriptors_end() or size > PAGE:
            raise NotInSnapshot("physical", frame * PAGE, PAGE, Absence.DAMAGED)
        try:
            return unpack_page(self.source.read_at(offset, size), flags)
        except DamagedPage as error:
            raise NotInSnapshot("physical", frame * PAGE, PAGE, Absence.DAMAGED) from error


class KdumpMemory:
    """Physical memory of a compressed kdump: an AddressSpace. Unpacked pages are kept, up to a bound."""

    def __init__(self, parts: Sequence[KdumpPart]) -> None:
        self._parts = parts
        self._pages: OrderedDict[int, bytes] = OrderedDict()

    def _part(self, frame: int) -> KdumpPart:
        for part in self._parts:
            if part.start <= frame < part.end:
                return part
        raise NotInSnapshot("physical", frame * PAGE, PAGE, Absence.ABSENT)

    def _page(self, frame: int) -> bytes:
        page = self._pages.get(frame)
        if page is not None:
            self._pages.move_to_end(frame)
            return page
        part = self._part(frame)
        (descriptor,) = part.descriptors(frame, 1)
        page = self._pages[frame] = part.unpacked_page(frame, descriptor)
        if len(self._pages) > CACHED_PAGES:
            self._pages.popitem(last=False)
        return page

    def _bulk(self, frame: int, end: int) -> Iterator[bytes]:
        """Pages in order, past the cache."""
        while frame < end:
            part = self._part(frame)
            count = min(end, part.end) - frame

            last_offset = 0
            page = b""
            for descriptor in part.descriptors(frame, count):
                # All pages of zeros share one page's data, and often follow each other.
                if descriptor.offset != last_offset or not page:
                    page = part.unpacked_page(frame, descriptor)
                    last_offset = descriptor.offset
                yield page
                frame += 1

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address; NotInSnapshot, with the reason, where a page is not there."""
        frame, inside = divmod(address, PAGE)
        try:
            if inside + size <= PAGE:
                return self._page(frame)[inside : inside + size]

            end = -(-(address + size) // PAGE)
            is_bulk = end - frame >= BULK
            pages = self._bulk(frame, end) if is_bulk else map(self._page, range(frame, end))
            return b"".join(pages)[inside : inside + size]
        except NotInSnapshot as error:
            raise NotInSnapshot("physical", max(address, error.address), size, error.state) from error

    def left_out(self) -> dict[str, int]:
        """Bytes that exist and were not dumped."""
        count = 0
        for part in self._parts:
            for bitmap, sign in ((part.existing, 1), (part.dumped, -1)):
                count += sign * (bitmap.rank(part.end) - bitmap.rank(part.start))
        return {"excluded": max(count, 0) * PAGE}

    def ranges(self) -> Iterator[tuple[int, int]]:
        """[start, end) of all memory that was dumped, in order."""
        for part in self._parts:
            for first, end in part.dumped.runs(part.start, part.end):
                yield first * PAGE, end * PAGE


def _area(part: KdumpPart, area: tuple[int, int]) -> bytes:
    """The bytes of an (offset, size) of the header; empty where it names none."""
    offset, size = area
    if not offset or not size:
        return b""
    if size > MAX_VMCOREINFO:
        raise UnsupportedFormat(part.source.name, f"a compressed kdump with {size} bytes of VMCOREINFO")
    return part.source.read_at(offset, size)


def _ordered(parts: list[KdumpPart]) -> list[KdumpPart]:
    """The parts of one split dump by frame number.

    Raises:
        UnsupportedFormat: they are not of one dump.
    """
    if len(parts) > 1:
        for part in parts:
            if not part.header.is_split or part.header.frames != parts[0].header.frames:
                raise UnsupportedFormat(part.source.name, "not a part of the same split kdump as the other files")

    parts.sort(key=lambda part: part.start)
    for before, after in itertools.pairwise(parts):
        if after.start < before.end:
            raise UnsupportedFormat(after.source.name, f"holds frames that {before.source.name} holds too")
    return parts


def _warnings(parts: Sequence[KdumpPart]) -> Iterator[str]:
    """What the user should know of the parts, which are in order."""
    reached = 0
    for part in parts:
        name, header = part.source.name, part.header
        if part.start > reached:
            yield f"{name}: a part of this split kdump is not among the files: frames {reached} to {part.start}"
        reached = part.end

        if header.status & INCOMPLETE:
            yield f"{name}: makedumpfile was stopped half-way: pages at the end are not in the file"
        if all(header.erased):
            yield f"{name}: makedumpfile erased data in it, as its erase information says"
        if getattr(part.source, "cut_off", False):
            yield f"{name}: the flattened stream is cut off"

    last = parts[-1]
    end = last.header.frames
    if last.header.is_split and reached < end:
        yield f"{last.source.name}: a part of this split kdump is not among the files: frames {reached} to {end}"


def open_kdump(sources: Sequence[ByteSource]) -> Snapshot:
    """The snapshot in a compressed kdump, given all files of a split one in any order.

    Raises:
        UnsupportedFormat: headers or notes are damaged or cut off, or the files are of different dumps.
    """
    if len(sources) > MAX_PARTS:
        raise UnsupportedFormat(sources[0].name, f"a kdump split into {len(sources)} files")

    parts = _ordered([KdumpPart(source, parse_kdump(source)) for source in sources])
    first = parts[0]
    memory = KdumpMemory(parts)

    offset, size = first.header.notes
    has_notes = offset and size
    notes = list(stored_notes(first.source, offset, size, Budget(MAX_NOTE_COUNT, MAX_NOTES))) if has_notes else []
    vmcoreinfo = _area(first, first.header.vmcoreinfo)
    if vmcoreinfo:
        # The sub-header's is the kernel's; what a note calls so may be an older copy, or the first kernel's.
        notes = [note for note in notes if note.name != VMCOREINFO]
        notes.append(Note(VMCOREINFO, 0, vmcoreinfo))

    return Snapshot(
        path=first.source.name,
        format=f"compressed kdump version {first.header.version} ({_who_wrote(first.header, notes)})",
        physical=memory,
        cpus=cpu_states(notes),
        vmcoreinfo=parse_vmcoreinfo(vmcoreinfo) if vmcoreinfo else vmcoreinfo_of(notes),
        warnings=list(_warnings(parts)),
        ranges=memory.ranges,
        notes=notes,
        left_out=memory.left_out,
    )


def _who_wrote(header: KdumpHeader, notes: Sequence[Note]) -> str:
    """Whose dump it is, and which pages it was told to leave out (makedumpfile -d)."""
    writer = "QEMU" if any(map(is_qemu, notes)) else "makedumpfile"
    return f"{writer}, dump level {header.dump_level}" if header.dump_level > 0 else writer


def detect(head: bytes) -> bool:
    """Whether the header is a compressed kdump's."""
    return head.startswith(MAGIC)


def open_one(source: ByteSource) -> Snapshot:
    """The snapshot in one file, or in one part of a split dump."""
    return open_kdump([source])


READER = SnapshotReader("a compressed kdump", detect, open_one, open_kdump)

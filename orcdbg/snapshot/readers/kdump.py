"""How is a compressed kdump, of one file or split into several, read as a stopped machine?"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from orcdbg.base.errors import Absence, NotInSnapshot, UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.formats.elf import Note, parse_notes
from orcdbg.formats.kdump import DESCRIPTOR, INCOMPLETE, MAX_NOTES, KdumpHeader, parse_kdump
from orcdbg.formats.pagecodecs import PAGE, DamagedPage, unpack_page
from orcdbg.snapshot.bitmap import PageBitmap
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.notes import VMCOREINFO, cpu_states, is_qemu, vmcoreinfo_of
from orcdbg.snapshot.vmcoreinfo import parse_vmcoreinfo

CACHED_PAGES = 2048
BULK = 64  # pages; from here on descriptors are read together, and pages are not kept
MAX_PARTS = 1024


class KdumpPart:
    """One file of a dump: finds the data of a page frame."""

    def __init__(self, source: ByteSource, header: KdumpHeader) -> None:
        self.source = source
        self.header = header
        self.start = header.start_frame if header.is_split else 0
        self.end = header.end_frame if header.is_split else header.frames
        self.dumped = PageBitmap(source, header.dumped_bitmap, header.frames)
        self.existing = PageBitmap(source, header.bitmap, header.frames) if header.has_two_bitmaps else self.dumped

    def _missing(self, frame: int) -> NotInSnapshot:
        state = Absence.EXCLUDED if self.existing.test(frame) else Absence.ABSENT
        return NotInSnapshot("physical", frame * PAGE, PAGE, state)

    def descriptors(self, frame: int, count: int) -> bytes:
        """The descriptors of frames that follow each other.

        Raises:
            NotInSnapshot: one of them was not dumped, or the file ends before.
        """
        rank = self.dumped.rank(frame)
        if (count > 1 and self.dumped.rank(frame + count) - rank != count) or not self.dumped.test(frame):
            raise self._missing(next(one for one in range(frame, frame + count) if not self.dumped.test(one)))
        skipped = self.dumped.rank(self.start) if self.start else 0
        at = self.header.descriptors + (rank - skipped) * DESCRIPTOR.size
        if at + count * DESCRIPTOR.size > self.source.size:
            raise NotInSnapshot("physical", frame * PAGE, PAGE, Absence.CUT_OFF)
        return self.source.read_at(at, count * DESCRIPTOR.size)

    def unpack(self, frame: int, offset: int, size: int, flags: int) -> bytes:
        """The page that a descriptor describes; NotInSnapshot where its data are not there, or are not a page's."""
        if offset == 0 or offset + size > self.source.size:
            raise NotInSnapshot("physical", frame * PAGE, PAGE, Absence.CUT_OFF)
        if size > PAGE:
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
        self._unpacked: tuple[int, bytes] = (0, b"")  # pages of zeros share one descriptor's data

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
        offset, size, flags, _ = DESCRIPTOR.unpack(part.descriptors(frame, 1))
        page = self._pages[frame] = part.unpack(frame, offset, size, flags)
        if len(self._pages) > CACHED_PAGES:
            self._pages.popitem(last=False)
        return page

    def _bulk(self, frame: int, end: int) -> Iterator[bytes]:
        """Pages in order, past the cache."""
        while frame < end:
            part = self._part(frame)
            count = min(end, part.end) - frame
            last_offset, page = 0, b""
            for offset, size, flags, _ in DESCRIPTOR.iter_unpack(part.descriptors(frame, count)):
                if offset != last_offset or not page:
                    last_offset, page = offset, part.unpack(frame, offset, size, flags)
                yield page
                frame += 1

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address; NotInSnapshot, with the reason, where a page is not there."""
        frame, inside = divmod(address, PAGE)
        try:
            if inside + size <= PAGE:
                return self._page(frame)[inside : inside + size]
            end = -(-(address + size) // PAGE)
            pages = self._bulk(frame, end) if end - frame >= BULK else map(self._page, range(frame, end))
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
    offset, size = area
    if not offset or not size:
        return b""
    if size > MAX_NOTES:
        raise UnsupportedFormat(part.source.name, f"a compressed kdump with {size} bytes of notes")
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
    if parts[-1].header.is_split and reached < parts[-1].header.frames:
        last = parts[-1].header.frames
        yield f"{parts[-1].source.name}: a part of this split kdump is not among the files: frames {reached} to {last}"


def open_kdump(sources: Sequence[ByteSource]) -> Snapshot:
    """The snapshot in a compressed kdump, given all files of a split one in any order.

    Raises:
        UnsupportedFormat: headers or notes are damaged or cut off, or the files are of different dumps.
    """
    if len(sources) > MAX_PARTS:
        raise UnsupportedFormat(sources[0].name, f"a kdump split into {len(sources)} files")
    parts = _ordered([KdumpPart(source, parse_kdump(source)) for source in sources])
    first = parts[0]
    notes = list(parse_notes(_area(first, first.header.notes), first.source.name))
    info = _area(first, first.header.vmcoreinfo)
    by_whom = "QEMU" if any(map(is_qemu, notes)) else "makedumpfile"
    memory = KdumpMemory(parts)
    level = f", dump level {first.header.dump_level}" if first.header.dump_level > 0 else ""
    return Snapshot(
        first.source.name,
        f"compressed kdump version {first.header.version} ({by_whom}{level})",
        memory,
        cpu_states(notes),
        parse_vmcoreinfo(info) if info else vmcoreinfo_of(notes),
        list(_warnings(parts)),
        memory.ranges,
        [*(note for note in notes if note.name != VMCOREINFO), Note(VMCOREINFO, 0, info)] if info else notes,
        memory.left_out,
    )

"""What does a vmlinux say of a printed report: is it of this kernel, where are its lines, what may have been patched there?

Addresses are link addresses: a report names places by symbols, in which no slide is.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orcdbg.base.errors import MemoryFault, OrcdbgError, UnsupportedFormat
from orcdbg.base.exit_status import ExitStatus
from orcdbg.formats.elf import is_core
from orcdbg.image.source_position import Position
from orcdbg.image.vmlinux import Image, open_source
from orcdbg.kernel.features import Features
from orcdbg.kernel.oops import PrintedFrame
from orcdbg.kernel.oops_details import PrintedCode, PrintedKernel
from orcdbg.orc.rows import RowType
from orcdbg.patches.audit.account import RELOCATION
from orcdbg.patches.build import Build
from orcdbg.patches.replay import all_passes
from orcdbg.patches.site import CANNOT_TELL, Spans, known_spans
from orcdbg.symbols.table import Span
from orcdbg.target.built_kernel import built_banner
from orcdbg.target.vmlinux_alone import UnbootedKernel
from orcdbg.x86.instructions import Instruction, decode, decode_one

_MAX_FUNCTION = 1 << 16
_BREAKPOINT = 0xCC
_CALL_SIZE = 5
# Calls of retpolines and static calls go on to where a register or a key says.
_TRAMPOLINES = ("__x86_indirect_", "__SCT__")
_LONGEST = 15  # bytes of an instruction
# CONFIG_PHYSICAL_ALIGN is at least 2 MiB, and the image lies in the first GiB (RANDOMIZE_BASE).
_ALIGNED, _MOST_MOVED = 1 << 21, 1 << 30
_TRACING_CALLS = ("__fentry__", "ftrace_caller", "mcount")


class NotThisBuild(OrcdbgError):
    """A report is of another kernel than the image."""

    kind = "mismatch"
    exit_status = ExitStatus.MISMATCH

    def __init__(self, path: str, what: str, of_image: str, of_text: str) -> None:
        super().__init__(
            f"{path}: not the kernel of this report: {what} of the image is {of_image}, of the report {of_text}"
        )


class SlideFrom(enum.Enum):
    """How the slide of KASLR is known; the values are the JSON contract's words."""

    KERNEL_OFFSET = "kernel-offset"
    ADDRESSES = "addresses"


@dataclass(frozen=True, slots=True)
class PrintedSlide:
    """Run-time minus link address, and what tells it."""

    value: int
    source: SlideFrom


class GuessVerdict(enum.Enum):
    """What the image says of a line after a `?`; the values are the JSON contract's words."""

    POSSIBLE = "possible"
    """Its call leads to a line inside of it that is sure, or may be a frame itself."""

    OPEN = "open"
    """Its call is indirect, or no line is inside of it."""

    BYPASSED = "bypassed"
    """The sure line outside of it itself calls the sure line inside of it."""

    CALLS_ELSEWHERE = "calls-elsewhere"
    """The call that it would return from leads to another function."""

    NO_CALL = "no-call"
    """No call ends at its address, so that it is no return address."""

    NO_ROW = "no-row"
    """No ORC row says how a walk would go on from it."""

    @property
    def is_call(self) -> bool:
        """A call ends there, and a row holds."""
        return self not in (GuessVerdict.NO_CALL, GuessVerdict.NO_ROW)


@dataclass(frozen=True, slots=True)
class CodeLine:
    """An instruction of a `Code:` line.

    Attributes:
        address: link address; None without an image.
        offset: bytes from the instruction at RIP.
        instruction: decoded; None where the bytes are none.
        raw: its bytes.
        is_marked: RIP is here.
        built: the image's bytes where they are others; None where they are the same or not known.
        mechanisms: what may have patched the place, by the image's tables.
    """

    address: int | None
    offset: int
    instruction: Instruction | None
    raw: bytes
    is_marked: bool
    built: bytes | None = None
    mechanisms: Sequence[str] = ()


class EndingCall(NamedTuple):
    """A call: the function that it leads to, None where it is indirect."""

    target: str | None


def code_lines(code: PrintedCode, offset: int | None) -> list[CodeLine]:
    """The instructions of a `Code:` line without an image.

    Those in front of RIP begin where the function does, else where decoding meets RIP.

    Args:
        code: the line.
        offset: how far RIP is behind the beginning of its function, None where that is not known.
    """
    marked = code.marked if code.marked is not None else 0
    if offset is not None and offset <= marked:
        start = marked - offset
    else:
        start = next((each for each in range(marked) if _meets(code.data[each:marked])), marked)
    return list(_decoded(code, start, marked, None))


def _meets(data: bytes) -> bool:
    """Whether instructions fill the bytes to their end."""
    return sum(insn.size for insn in decode(data, 0)) == len(data)


def _decoded(code: PrintedCode, start: int, marked: int, ip: int | None) -> Iterator[CodeLine]:
    place = start
    while place < len(code.data):
        insn = decode_one(code.data[place : place + _LONGEST], 0 if ip is None else ip + place - marked)
        if insn is not None and place < marked < place + insn.size:
            insn = None  # what reaches over RIP is none
        size = 1 if insn is None else insn.size
        raw = code.data[place : place + size]
        yield CodeLine(None if ip is None else ip + place - marked, place - marked, insn, raw, place == marked)
        place += size


class PrintedImage:
    """The vmlinux that a report may be of.

    Args:
        path: the file.
        debug_folders: where debugging information is looked for that was split off.

    Raises:
        OrcdbgError: it cannot be read as a vmlinux.
    """

    def __init__(self, path: str, debug_folders: Sequence[str] = ()) -> None:
        source = open_source(path)
        if is_core(source.read_at(0, min(source.size, 18))):
            raise UnsupportedFormat(path, "a snapshot", "decode takes a vmlinux; `orcdbg report` is for snapshots")
        image = Image(source)
        image.debug_folders = tuple(debug_folders)
        self.path = path
        self.kernel = UnbootedKernel(image)

    @property
    def problems(self) -> list[str]:
        """What the image had to say of itself."""
        return list(self.kernel.warnings)

    # Whose report it is

    def refuse_others(self, printed: PrintedKernel, frames: Sequence[PrintedFrame]) -> None:
        """Raises NotThisBuild where the report names another release, build or size of a function than the image has."""
        banner = built_banner(self.kernel.image, self.kernel.symbols).decode("utf-8", "backslashreplace").strip()
        words = banner.split()
        ours = words[2] if len(words) > 2 else ""
        theirs = next((each for each in printed.releases if each != ours), None)
        if theirs is not None and ours:
            raise NotThisBuild(self.path, "the release", ours, theirs)
        whole, said = " ".join(words), " ".join(printed.banner.split())
        # A mailer may have broken the line, so that its first part is what is there.
        if said and whole and not whole.startswith(said):
            raise NotThisBuild(self.path, "the version", whole, said)
        build_id = self.kernel.image.build_id
        other = next((each for each in printed.build_ids if build_id and each != build_id), None)
        if other is not None:
            raise NotThisBuild(self.path, "the build-id", str(build_id), other)
        self._refuse_sizes(frames)

    def _refuse_sizes(self, frames: Sequence[PrintedFrame]) -> None:
        own = {(one.symbol, one.size) for one in frames if one.module is None and one.address is None}
        for symbol, size in sorted(own):
            sizes = sorted({span.size for span in self._spans(symbol)})
            if sizes and size not in sizes:
                raise NotThisBuild(self.path, f"the size of {symbol}", f"{sizes[0]:#x}", f"{size:#x}")
        known = [symbol for symbol, _ in own if self._spans(symbol)]
        if own and not known:
            raise NotThisBuild(self.path, "a function", "of other names", min(own)[0])

    def _spans(self, symbol: str) -> list[Span]:
        found = [
            self.kernel.symbols.at(each.address) for each in self.kernel.symbols.find_all(symbol) if not each.per_cpu
        ]
        return [span for span in found if span is not None]

    # Places

    def address_of(self, frame: PrintedFrame) -> int | None:
        """The link address of a line; None where the image has no such function, or several of that name and size."""
        if frame.module is not None or frame.address is not None or frame.offset > frame.size:
            return None
        starts = {span.symbol.address for span in self._spans(frame.symbol) if span.size == frame.size}
        return starts.pop() + frame.offset if len(starts) == 1 else None

    def slide(self, printed: PrintedKernel) -> PrintedSlide | None:
        """The slide; None where nothing in the report tells it, or what tells it disagrees."""
        by_address = set()
        for address, symbol, offset, size in printed.places:
            place = self.address_of(PrintedFrame(symbol, offset, size, None, True))
            if place is not None:
                by_address.add(address - place)
        if printed.offset is not None:
            return PrintedSlide(printed.offset, SlideFrom.KERNEL_OFFSET) if by_address <= {printed.offset} else None
        return PrintedSlide(by_address.pop(), SlideFrom.ADDRESSES) if len(by_address) == 1 else None

    def name_of(self, address: int) -> str | None:
        """`symbol+0xoffset/0xsize` of a link address in the image; None outside of it."""
        start, end = (self.kernel.symbols.find(name) for name in ("_text", "_end"))
        if start is None or end is None or not start.address <= address < end.address:
            return None
        span = self.kernel.symbols.at(address)
        return None if span is None else f"{span.symbol.name}+{address - span.symbol.address:#x}/{span.size:#x}"

    @property
    def has_lines(self) -> bool:
        """Whether there is debugging information."""
        return self.kernel.debug.source_lines.is_there

    def position(self, address: int) -> Position | None:
        """The source of a link address; None without DWARF."""
        lines = self.kernel.debug.source_lines
        return lines.at(address) if lines.is_there else None

    # Calls

    def call_before(self, address: int) -> EndingCall | None:
        """The call that ends at a link address; None where none does."""
        span = self.kernel.symbols.at(address - 1)
        if span is None or not 0 < address - span.symbol.address <= _MAX_FUNCTION:
            return None
        try:
            data = self.kernel.image.read(span.symbol.address, address - span.symbol.address)
        except MemoryFault:
            return None
        insns = list(decode(data, span.symbol.address))
        if not insns or insns[-1].end != address or not insns[-1].is_call:
            return None
        target = None if insns[-1].target is None else self.kernel.symbols.at(insns[-1].target)
        is_known = target is not None and not target.symbol.name.startswith(_TRAMPOLINES)
        return EndingCall(target.symbol.name if target is not None and is_known else None)

    def has_row(self, address: int) -> bool:
        """Whether an ORC row says how to go on from the call that returns to a link address."""
        entry = self.kernel.orc_table.find(address - 1)
        return entry is not None and entry.row.type not in (RowType.UNDEFINED, RowType.END_OF_STACK)

    # Code

    def code(self, code: PrintedCode, ip: int, slide: int | None) -> list[CodeLine]:
        """The instructions of a `Code:` line beside those of the image.

        Args:
            code: the line.
            ip: the link address of its marked byte.
            slide: None where it is not known.
        """
        if code.marked is None:
            return code_lines(code, None)
        start = self._boundary(ip - code.marked, ip) - (ip - code.marked)
        return [self._beside(one, slide) for one in _decoded(code, max(start, 0), code.marked, ip)]

    def _boundary(self, lowest: int, ip: int) -> int:
        """The first instruction of the image at or behind an address, in the function of `ip`; at most `ip`."""
        span = self.kernel.symbols.at(ip)
        if span is None or ip - span.symbol.address > _MAX_FUNCTION:
            return ip
        if span.symbol.address >= lowest:
            return span.symbol.address
        try:
            # What is built there may reach over `ip`, where a patch put shorter instructions.
            data = self.kernel.image.read(span.symbol.address, ip - span.symbol.address + _LONGEST)
        except MemoryFault:
            return ip
        starts = (insn.address for insn in decode(data, span.symbol.address))
        return min(next((start for start in starts if start >= lowest), ip), ip)

    def _beside(self, one: CodeLine, slide: int | None) -> CodeLine:
        assert one.address is not None
        try:
            built = self.kernel.image.read(one.address, len(one.raw))
        except MemoryFault:
            return one
        mechanisms = self.mechanisms_at(one.address, len(one.raw), one.raw)
        if not mechanisms and _is_moved(built, one.raw, slide):
            mechanisms = [RELOCATION]
        return CodeLine(
            one.address,
            one.offset,
            one.instruction,
            one.raw,
            one.is_marked,
            built if built != one.raw else None,
            mechanisms,
        )

    @functools.cached_property
    def _spans_of_passes(self) -> list[tuple[str, Spans]]:
        kernel = self.kernel
        try:
            passes = all_passes(Build(kernel.image, kernel.linux, kernel.built_text, Features(kernel.linux)))
        except CANNOT_TELL:
            return []
        return [(each.mechanism, known_spans(each)) for each in passes]

    def mechanisms_at(self, address: int, size: int, raw: bytes) -> list[str]:
        """The mechanisms that may patch some byte of [address, address + size), by the image's own tables."""
        found = []
        for mechanism, spans in self._spans_of_passes:
            touches = (spans.starts < np.uint64(address + size)) & (spans.starts + spans.sizes > np.uint64(address))
            if mechanism not in found and bool(touches.any()):
                found.append(mechanism)
        # The list of traced functions is in memory alone; the calls at their beginnings are in the image.
        if "ftrace" not in found and self._is_tracing_call(address):
            found.append("ftrace")
        if not found and raw[:1] == bytes([_BREAKPOINT]):
            found.append("int3")
        return found

    def _is_tracing_call(self, address: int) -> bool:
        """Whether an address is in a call of the function tracer's, as built."""
        first = address - _CALL_SIZE + 1
        try:
            data = self.kernel.image.read(first, 2 * _CALL_SIZE - 1)
        except MemoryFault:
            return False
        for at in range(_CALL_SIZE):
            insn = decode_one(data[at : at + _CALL_SIZE], first + at)
            target = None if insn is None or insn.target is None else self.kernel.symbols.at(insn.target)
            if target is not None and target.symbol.name in _TRACING_CALLS:
                return True
        return False


def _is_moved(built: bytes, raw: bytes, slide: int | None) -> bool:
    """Whether bytes differ as those of an address do that the boot moved by the slide, or by what may be one."""
    differing = [at for at, (old, new) in enumerate(zip(built, raw, strict=True)) if old != new]
    if not differing:
        return False
    for start in range(max(differing[-1] - 3, 0), differing[0] + 1):
        if start + 4 > len(raw):
            continue
        old, new = (int.from_bytes(data[start : start + 4], "little") for data in (built, raw))
        moved = new - old & 0xFFFF_FFFF
        if moved == slide or (slide is None and moved % _ALIGNED == 0 and moved < _MOST_MOVED):
            return True
    return False


def judge_guesses(image: PrintedImage, frames: Sequence[PrintedFrame]) -> dict[int, GuessVerdict]:
    """What the image says of each line after a `?`, by its number; lines that the image has no address for are left out.

    Where a patch makes a row wrong, the kernel has a `?` in front of every line from there on. So lines are held against those
    inside of them that may be frames, and not against sure ones alone.
    """
    found: dict[int, GuessVerdict] = {}
    inner: str | None = None  # the sure line inside of these
    heads: set[str] = set()  # functions that the next frame may have called
    run: list[int] = []
    for number, frame in enumerate(frames):
        if not frame.sure:
            verdict = _judged(image, frame, heads)
            if verdict is not None:
                found[number] = verdict
                run.append(number)
            continue
        address = image.address_of(frame)
        call = None if address is None or frame.is_rip else image.call_before(address)
        if call is not None and call.target is not None and call.target == inner:
            # This one called the sure line before: nothing was between them.
            found |= {each: GuessVerdict.BYPASSED for each in run if found[each].is_call}
        inner, heads, run = _own_name(frame), {_own_name(frame)}, []
    return found


def _judged(image: PrintedImage, frame: PrintedFrame, heads: set[str]) -> GuessVerdict | None:
    """A line after a `?`; where it may be a frame, `heads` is what the next one may have called."""
    address = image.address_of(frame)
    if address is None:
        return None
    call = image.call_before(address)
    if call is None:
        return GuessVerdict.NO_CALL
    if not image.has_row(address):
        return GuessVerdict.NO_ROW
    if call.target is None or not heads:
        heads.add(_own_name(frame))
        return GuessVerdict.OPEN
    if call.target not in heads:
        return GuessVerdict.CALLS_ELSEWHERE
    heads.clear()
    heads.add(_own_name(frame))
    return GuessVerdict.POSSIBLE


def _own_name(frame: PrintedFrame) -> str:
    """A function's name, of its split-off part too."""
    return frame.symbol.removesuffix(".cold")

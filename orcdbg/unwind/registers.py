"""Which registers are known in each frame of a finished stack, and where was each saved?

The walk itself carries rip, rsp and rbp, and all registers where the kernel saved a `struct pt_regs`. The callee-saved
ones in between are found afterwards, for the frames that are shown: a frame's function keeps its caller's rbx, or has not
touched it. A value that this does not prove is absent, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orcdbg.base.errors import MemoryFault, UnsupportedFormat
from orcdbg.base.reading import U64, AddressSpace, read_u64
from orcdbg.formats.callframe import Place, Row
from orcdbg.orc.thunks import is_thunk
from orcdbg.unwind.frame import Frame, Registers, RegisterValue, StackTrace
from orcdbg.unwind.saves import CALLEE_SAVED

FindRow = Callable[[int, bool], Row | None]
_CALL_FRAMES = ".debug_frame"


@dataclass(frozen=True, slots=True)
class KnownRegisters:
    """A frame's registers, and for the callee-saved ones that are not among them, why.

    `slots` are the addresses of those that are as a frame saved them.
    """

    values: Registers
    unknown: Mapping[str, str]
    slots: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a frame's function keeps its caller's registers, by whom, or why that is not known."""

    row: Row | None
    by: str


class RegisterFinder:
    """Restores callee-saved registers.

    Args:
        memory: kernel memory, for the slots.
        call_frames: rows of the image's call frame information, None where it has none.
        own_text: rows from a function's instructions.
    """

    def __init__(self, memory: AddressSpace, call_frames: FindRow | None, own_text: FindRow) -> None:
        self._memory = memory
        self._call_frames = call_frames
        self._own_text = own_text

    def all(self, trace: StackTrace, last: int | None = None) -> list[KnownRegisters]:
        """The registers of each frame, from the innermost to frame `last`."""
        return self.of(trace.frames if last is None else trace.frames[: last + 1])

    def of(self, frames: Sequence[Frame]) -> list[KnownRegisters]:
        """The same of frames, innermost first, that need not be all of a stack."""
        found: list[KnownRegisters] = []
        for frame in frames:
            found.append(self._first(frame) if not found else self._caller(frames, frame, found[-1]))
        return found

    def _first(self, frame: Frame) -> KnownRegisters:
        why = "not among the registers that the walk began with"
        return _complete(frame.registers, dict.fromkeys(CALLEE_SAVED, why))

    def _caller(self, frames: Sequence[Frame], frame: Frame, inner: KnownRegisters) -> KnownRegisters:
        """The registers of `frame`, which called or was interrupted by the one before it."""
        callee = frames[frame.index - 1]
        if frame.kind != "call":
            why = "interrupted in entry code, where only the CPU's five words were saved"
            return _complete(frame.registers, dict.fromkeys(CALLEE_SAVED, why))
        if callee.cfa is None or callee.doubt or not callee.reliable or callee.source in ("scan", "none"):
            return _complete(
                frame.registers, dict.fromkeys(CALLEE_SAVED, f"the step from frame #{callee.index} is in doubt")
            )
        kept = self._kept(callee, inner)
        values, unknown, slots = dict(frame.registers), dict[str, str](), dict[str, int]()
        for name in CALLEE_SAVED:
            value, why = self._restored(name, callee, inner, kept)
            slot = self._slot(name, callee, inner, kept)
            if value is not None and slot is not None:
                slots[name] = slot
            if name in values and value is not None and values[name].value != value.value:
                unknown[name] = f"ORC and {kept.by} disagree in frame #{callee.index}"
                del values[name]
            elif name not in values and value is not None:
                values[name] = value
            elif name not in values:
                unknown[name] = why
        return _complete(values, unknown, slots)

    def _kept(self, frame: Frame, inner: KnownRegisters) -> _Found:
        """Where a frame's function keeps its caller's registers."""
        if is_thunk(frame.location):
            return _Found(Row(), "the thunk's instructions")
        if self._call_frames is not None:
            try:
                row = self._call_frames(frame.ip, frame.exact)
            except UnsupportedFormat:
                row = None
            if row is not None and self._agrees(row, frame, inner) and self._is_fresh(row, frame, inner):
                return _Found(row, _CALL_FRAMES)
        row = self._own_text(frame.ip, frame.exact)
        return _Found(row, "the function's instructions")

    def _agrees(self, row: Row, frame: Frame, inner: KnownRegisters) -> bool:
        """True where call frame information gives the CFA that the walk went by, patches left out of account."""
        cfa = None if row.cfa is None else self._address(row.cfa, frame, inner)
        adjust = frame.patch.adjust if frame.patch is not None else 0
        return cfa is not None and cfa + adjust & U64 == frame.cfa

    def _is_fresh(self, row: Row, frame: Frame, inner: KnownRegisters) -> bool:
        """True where no slot lies below the stack pointer, where anything may have overwritten it.

        gcc's entries for split-off code (`.cold`) keep naming slots that were popped already.
        """
        places = [place for name, place in row.saved.items() if place is not None and name in CALLEE_SAVED]
        addresses = [self._address(place._replace(indirect=False), frame, inner) for place in places]
        return all(address is None or address >= frame.sp for address in addresses)

    def _address(self, place: Place, frame: Frame, inner: KnownRegisters) -> int | None:
        """The address that a place names, or for an indirect CFA the word there."""
        if place.base == "cfa":
            return None if frame.cfa is None else frame.cfa + place.offset & U64
        base = inner.values.get(place.base)
        if base is None:
            return None
        address = base.value + place.offset & U64
        try:
            return read_u64(self._memory, address) if place.indirect and place.base != "cfa" else address
        except MemoryFault:
            return None

    def _slot(self, name: str, frame: Frame, inner: KnownRegisters, kept: _Found) -> int | None:
        """Where the caller's value of a register was read, None where it is that of the first frame or not known."""
        if kept.row is None or name not in kept.row.saved:
            return None if kept.row is None else inner.slots.get(name)
        place = kept.row.saved[name]
        return None if place is None else self._address(place._replace(indirect=False), frame, inner)

    def _restored(
        self, name: str, frame: Frame, inner: KnownRegisters, kept: _Found
    ) -> tuple[RegisterValue | None, str]:
        """The caller's value of a register, or why it is not known."""
        if kept.row is None:
            return None, f"where frame #{frame.index} keeps it does not follow from its instructions"
        if name not in kept.row.saved:
            return inner.values.get(name), inner.unknown.get(name, "not known in the frame before")
        place = kept.row.saved[name]
        if place is None:
            return None, f"where frame #{frame.index} keeps it does not follow from {kept.by}"
        address = self._slot(name, frame, inner, kept)
        if address is None:
            return None, f"its place in frame #{frame.index} counts from {place.base}, which is not known"
        try:
            value = read_u64(self._memory, address)
        except MemoryFault as error:
            return None, str(error)
        return RegisterValue(value, f"saved at {address:#x} by frame #{frame.index} ({kept.by})"), ""


def _complete(values: Registers, unknown: Mapping[str, str], slots: Mapping[str, int] | None = None) -> KnownRegisters:
    return KnownRegisters(values, {name: why for name, why in unknown.items() if name not in values}, slots or {})

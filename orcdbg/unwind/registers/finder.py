"""Which registers are known in each frame of a finished stack, and where was each saved?

The walk itself carries rip, rsp and rbp, and all registers where the kernel saved a `struct pt_regs`. The callee-saved
ones in between are found afterwards, for the frames that are shown: a frame's function keeps its caller's rbx, or has not
touched it. A value that this does not prove is absent, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from orcdbg.base.errors import MemoryFault, UnsupportedFormat
from orcdbg.base.reading import read_u64
from orcdbg.base.reasons import UnknownRegister, WhyNoValue
from orcdbg.base.sizes import U64
from orcdbg.formats.call_frame_row import Place, Row
from orcdbg.orc.effective import Source
from orcdbg.orc.rules.thunks import is_thunk
from orcdbg.patches.code import Code
from orcdbg.unwind.frame import Frame, FrameKind, Registers, RegisterValue, StackTrace
from orcdbg.x86.registers import CALLEE_SAVED

_CALL_FRAMES = ".debug_frame"
_NOT_BEFORE = UnknownRegister("not known in the frame before", WhyNoValue.NOT_KNOWN)


@dataclass(frozen=True, slots=True)
class KnownRegisters:
    """A frame's registers, and for the callee-saved ones that are not among them, why."""

    values: Registers
    unknown: Mapping[str, UnknownRegister]


class Saved(NamedTuple):
    """A register's value in a frame, and the address of the slot that it was read from; None where no frame saved it."""

    value: int
    slot: int | None


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a frame's function keeps its caller's registers, by whom, or why that is not known."""

    row: Row | None
    by: str


class Saves(Protocol):
    """Where functions keep their callers' registers."""

    def row(self, ip: int, exact: bool, /) -> Row | None:
        """Where a frame's caller's registers are, without a CFA; None where that is not known."""


class RegisterFinder:
    """Restores callee-saved registers.

    Args:
        code: the kernel: its memory, for the slots, and the image's call frame information.
        saves: where functions keep registers, by their instructions.
    """

    def __init__(self, code: Code, saves: Saves) -> None:
        self._code = code
        self._memory = code.memory
        self._saves = saves

    def all(self, trace: StackTrace, last: int | None = None) -> list[KnownRegisters]:
        """The registers of each frame, from the innermost to frame `last`."""
        frames = trace.frames if last is None else trace.frames[: last + 1]
        found: list[KnownRegisters] = []
        for frame in frames:
            found.append(self._first(frame) if not found else self._caller(trace.frames, frame, found[-1]))
        return found

    def saved(self, frames: Sequence[Frame], name: str) -> Saved | None:
        """One callee-saved register in the last of these frames, innermost first, without a look at the others.

        None where it is not known, by the functions' instructions alone.
        """
        own = frames[-1].registers.get(name)

        # From frame to callee, inwards, until one has saved the register: until then it holds the caller's value.
        for index in range(len(frames) - 1, 0, -1):
            callee = frames[index - 1]
            if frames[index].kind is not FrameKind.CALL or callee.cfa is None or _is_guess(callee):
                return _held(frames[index], name, own)

            row = Row() if is_thunk(callee.location) else self._saves.row(*callee.looked_up)
            if row is not None and name not in row.saved:
                continue

            place = None if row is None else row.saved[name]
            if place is not None and place.counts_from_cfa:
                return self._read_slot(callee.cfa + place.offset & U64, own)
            return None if own is None else Saved(own.value, None)

        return _held(frames[0], name, own)

    def _read_slot(self, slot: int, own: RegisterValue | None) -> Saved | None:
        """What a slot holds; None where another account has another value."""
        try:
            value = read_u64(self._memory, slot)
        except MemoryFault:
            return None
        return Saved(value, slot) if own is None or own.value == value else None

    def _first(self, frame: Frame) -> KnownRegisters:
        why = UnknownRegister("not among the registers that the walk began with", WhyNoValue.NOT_AT_START)
        return _complete(frame.registers, dict.fromkeys(CALLEE_SAVED, why))

    def _caller(self, frames: Sequence[Frame], frame: Frame, inner: KnownRegisters) -> KnownRegisters:
        """The registers of `frame`, which called or was interrupted by the one before it."""
        callee = frames[frame.index - 1]
        if frame.kind is not FrameKind.CALL:
            words = "interrupted in entry code, where only the CPU's five words were saved"
            why = UnknownRegister(words, WhyNoValue.NOT_SAVED)
            return _complete(frame.registers, dict.fromkeys(CALLEE_SAVED, why))
        if callee.cfa is None or _is_guess(callee):
            why = UnknownRegister(f"the step from frame #{callee.index} is in doubt", WhyNoValue.DOUBT)
            return _complete(frame.registers, dict.fromkeys(CALLEE_SAVED, why))
        kept = self._kept(callee, inner)
        values, unknown = dict(frame.registers), dict[str, UnknownRegister]()
        for name in CALLEE_SAVED:
            value, unrestored = self._restored(name, callee, inner, kept)
            if name in values and value is not None and values[name].value != value.value:
                words = f"ORC and {kept.by} disagree in frame #{callee.index}"
                unknown[name] = UnknownRegister(words, WhyNoValue.CONTRADICTION)
                del values[name]
            elif name not in values and value is not None:
                values[name] = value
            elif name not in values and unrestored is not None:
                unknown[name] = unrestored
        return _complete(values, unknown)

    def _kept(self, frame: Frame, inner: KnownRegisters) -> _Found:
        """Where a frame's function keeps its caller's registers."""
        if is_thunk(frame.location):
            return _Found(Row(), "the thunk's instructions")
        try:
            row = self._code.call_frame(frame.ip if frame.exact else frame.ip - 1)
        except UnsupportedFormat:
            row = None
        if row is not None and self._agrees(row, frame, inner) and self._is_fresh(row, frame, inner):
            return _Found(row, _CALL_FRAMES)
        row = self._saves.row(*frame.looked_up)
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
        if place.counts_from_cfa:
            return None if frame.cfa is None else frame.cfa + place.offset & U64
        base = inner.values.get(place.base)
        if base is None:
            return None
        address = base.value + place.offset & U64
        try:
            return read_u64(self._memory, address) if place.indirect and not place.counts_from_cfa else address
        except MemoryFault:
            return None

    def _restored(
        self, name: str, frame: Frame, inner: KnownRegisters, kept: _Found
    ) -> tuple[RegisterValue | None, UnknownRegister | None]:
        """The caller's value of a register, or why it is not known."""
        if kept.row is None:
            words = f"where frame #{frame.index} keeps it does not follow from its instructions"
            return None, UnknownRegister(words, WhyNoValue.NOT_KNOWN)
        if name not in kept.row.saved:
            return inner.values.get(name), inner.unknown.get(name, _NOT_BEFORE)
        place = kept.row.saved[name]
        if place is None:
            words = f"where frame #{frame.index} keeps it does not follow from {kept.by}"
            return None, UnknownRegister(words, WhyNoValue.NOT_KNOWN)
        address = self._address(place._replace(indirect=False), frame, inner)
        if address is None:
            words = f"its place in frame #{frame.index} counts from {place.base}, which is not known"
            return None, UnknownRegister(words, WhyNoValue.NOT_KNOWN)
        try:
            value = read_u64(self._memory, address)
        except MemoryFault as error:
            return None, UnknownRegister(str(error), WhyNoValue.NO_MEMORY)
        return RegisterValue(value, f"saved at {address:#x} by frame #{frame.index} ({kept.by})"), None


def _held(frame: Frame, name: str, own: RegisterValue | None) -> Saved | None:
    """A register as a frame holds it; None where it is not known there, or another account has another value."""
    held = frame.registers.get(name)
    if held is None or (own is not None and own.value != held.value):
        return None
    return Saved(held.value, None)


def _is_guess(callee: Frame) -> bool:
    """Whether the step from a frame to its caller is in doubt."""
    return not callee.is_trusted or callee.source in (Source.SCAN, Source.NONE)


def _complete(values: Registers, unknown: Mapping[str, UnknownRegister]) -> KnownRegisters:
    return KnownRegisters(values, {name: why for name, why in unknown.items() if name not in values})

"""Do the frames of a finished walk bear each other out?

A walk believes what it reads from the stack. Here each step is held against what the text and the CPU say of it: the call
before a return address must be able to lead to the function below; an interrupt saves its registers right below the
stack pointer that it saves, at an instruction's start; the user's registers are at the top of the task's stack. Where
that is contradicted, one of the two frames is wrong: the lower one gets a doubt, and so do those below it up to a step that a
direct call or an interrupt's registers confirm; all above it are guesses.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from orcdbg.base.reasons import Reason
from orcdbg.base.sizes import U64
from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import Stack, StackKind, bytes_at_top
from orcdbg.orc.rows import OrcRegister, RowType
from orcdbg.orc.rules.thunks import is_return_thunk, is_thunk
from orcdbg.patches.code import Code
from orcdbg.unwind.frame import NEW_TASK, Frame, FrameKind, Recovered
from orcdbg.unwind.judge.calls import Calls
from orcdbg.unwind.judge.pointers import PointerRead, Pointers
from orcdbg.unwind.reasons import (
    CallLeadsElsewhere,
    CannotGoOn,
    FramePointerBehindReturn,
    NoCallEndsAt,
    NoInstructionAt,
    NotAtUserRegisters,
    NothingBeginsAt,
    NothingConfirms,
    NotSavedAtStackPointer,
    Overflowed,
    PointerLeadsElsewhere,
    ReachedThroughDoubt,
    RecordOfOtherFunction,
    RegisterLeadsElsewhere,
    StackPointerAtOtherDepth,
    UserRegistersNotAtTop,
)
from orcdbg.unwind.registers.finder import RegisterFinder, Saved
from orcdbg.unwind.registers.saves import FunctionSaves
from orcdbg.unwind.saved_registers import USER_PADDINGS, is_unlisted
from orcdbg.x86.registers import IRET_SIZE

if TYPE_CHECKING:
    from orcdbg.unwind.judge.depths import FrameDepths

# The CPU aligns the stack before it saves anything; with FRED more, and it saves event data above the registers.
_ALIGNMENT, _FRED_ALIGNMENT, _FRED_EVENT_DATA = 16, 64, 16
# The entry of #BP moves the registers 48 bytes down, to have room for a call that it emulates; that call pushes a word, and so
# may an instruction that a probe emulates or single-steps.
_EMULATING_ENTRIES = ("asm_exc_int3", "int3", "asm_exc_debug", "debug")
_MAX_GAP = _ALIGNMENT + 64
# At the top of an NMI stack in use: the CPU's five words, rdx, and the word "NMI executing". See asm_exc_nmi.
_NMI_COPIES = 56


class Witness(NamedTuple):
    """What the frame at `depth` tells of the one below it: its call read a pointer, which leads to `callee` or not."""

    depth: int
    read: PointerRead
    callee: Location


class Evidence:
    """Judges walks of one kernel.

    Args:
        code: the kernel.
        saves: where functions keep registers: indirect calls go through them.

    Attributes:
        calls: where direct calls lead.
    """

    def __init__(self, code: Code, saves: FunctionSaves) -> None:
        self._code = code
        self.calls = Calls(code)
        self._pointers = Pointers(code)
        self._finder = RegisterFinder(code, saves)

    @functools.cached_property
    def _depths(self) -> FrameDepths:
        from orcdbg.unwind.judge.depths import FrameDepths  # direct calls confirm most frames

        return FrameDepths(self._code)

    def judge(self, frames: Sequence[Frame], stacks: Sequence[Stack], broke_off: bool) -> list[Frame]:
        """The frames with their doubts.

        Args:
            frames: of one walk, innermost first.
            stacks: those that the walk could touch.
            broke_off: True when the walk ended at something that contradicts the last frame.
        """
        out = [_noted(frame, stacks) for frame in frames]
        for index in range(1, len(out)):
            why = self._against(out, index, stacks)
            if why is None:
                continue
            if out[index].reliable:
                out[index:] = [_guess(one, why, index) for one in out[index:]]
            self._doubt_down(out, index - 1, why)
        misplaced = self._misplaced(out[-1], stacks) if out else None
        if misplaced is not None:
            # Both may be damaged: the address that was written over another caller's, and the stack pointer.
            out[-1] = _guess(out[-1], misplaced, out[-1].index)
            self._doubt_down(out, len(out) - 2, misplaced)
        is_start = len(out) == 1 and _begins_exactly(out)  # where it stands is right, whatever follows from that
        if broke_off and out and out[-1].mark.is_sure and not is_start:
            self._doubt_down(out, len(out) - 1, CannotGoOn())
        return [*out[:1], *(self.with_tail_call(below, frame) for below, frame in itertools.pairwise(out))]

    def _against(self, frames: Sequence[Frame], index: int, stacks: Sequence[Stack]) -> Reason | None:
        """What speaks against the step to the frame at `index`, the cheapest evidence first."""
        below = frames[index - 1]
        return (
            self._contradiction(below, frames[index], stacks)
            or self._refutation(frames, index)
            or self._misses_depth(frames, index - 1, (below.cfa or 0) - below.sp)
        )

    def _doubt_down(self, frames: list[Frame], index: int, why: Reason) -> None:
        """Doubts a frame whose step up is contradicted, and those below it from where the walk may have gone astray.

        The frame itself may be what is wrong. Where a call through a pointer may have led to the frame below it, but need not,
        that one's step may be wrong. And calls that fit each other confirm nothing where the stack pointer was taken from
        memory, and a pointer may have led to the first frame there: what is left of earlier calls fits as well. That the first
        frame's stack pointer is a CPU's own no call needs to confirm.
        """
        lowest = next((at for at in range(index, 0, -1) if self._is_confirmed(frames[at - 1], frames[at])), 0)
        for at in range(1 if _begins_exactly(frames) else 0, lowest):
            if _takes_stack_pointer_from_memory(frames[at]) and not self._is_confirmed(frames[at], frames[at + 1]):
                lowest = at
                break
        for at in range(lowest, index + 1):
            if frames[at].mark.is_sure:
                frames[at] = replace(frames[at], doubt=why if at == index else NothingConfirms(index + 1))

    def _is_confirmed(self, below: Frame, frame: Frame) -> bool:
        """Whether a step is right by more than that nothing speaks against it: saved registers, or a call that leads there."""
        return frame.kind is not FrameKind.CALL or frame.exact or self._is_called_directly(below, frame)

    def _is_called_directly(self, below: Frame, frame: Frame) -> bool:
        if frame.kind is not FrameKind.CALL or frame.exact or below.location is None:
            return False
        return self.calls.leads_to(frame.ip, below.location) is True

    def _fits_above(self, below: Frame, end: int, sp: int) -> bool:
        """Whether saved registers that end at `end` are where the CPU puts them for the stack pointer that they hold."""
        if end == sp & -_ALIGNMENT:
            return True
        is_moved = below.location is not None and below.location.symbol in _EMULATING_ENTRIES
        may_be_fred = (end + _FRED_EVENT_DATA) % _FRED_ALIGNMENT == 0 and self._code.linux.types.has(
            "fred_frame", "regs"
        )
        return (is_moved or may_be_fred) and 0 <= sp - end < _MAX_GAP

    def _misplaced(self, frame: Frame, stacks: Sequence[Stack]) -> Reason | None:
        """Why a frame in which tasks begin is none, or None: it runs with its stack pointer at the user's registers.

        A little below them, its address was written over that of another frame, whose callers would be lost in silence.
        """
        if not _begins(frame) or frame.location is None or frame.location.symbol not in NEW_TASK:
            return None
        stack = next((stack for stack in stacks if stack.holds(frame.sp)), None)
        if stack is None or stack.kind is not StackKind.TASK or stack.end - frame.sp == bytes_at_top(self._code.linux):
            return None
        return NotAtUserRegisters(frame.sp)

    def with_tail_call(self, below: Frame, frame: Frame) -> Frame:
        """A caller with a note where its call entered another function, which jumped into the one of the frame below."""
        has_returned = frame.recovered is not None and frame.recovered.has_returned
        is_asked = frame.kind is FrameKind.CALL and frame.reliable and not has_returned and not frame.exact
        if not is_asked or below.location is None:
            return frame
        note = self.calls.tail_call(frame.ip, below.location)
        return frame if note is None or note in frame.notes else replace(frame, notes=(*frame.notes, note))

    def _misses_depth(self, frames: Sequence[Frame], index: int, depth: int) -> Reason | None:
        """Why a frame whose CFA counts from rbp cannot be right, or None: its stack pointer is where its code never has it.

        Rows of such code do not tell the stack pointer, but the instructions from the function's entry on do. Frames that
        direct calls confirm on both sides are believed without that.

        Args:
            frames: of the walk, as far as their ips decide them.
            index: which of them.
            depth: bytes from its stack pointer to its CFA.
        """
        frame = frames[index]
        row = None if frame.entry is None else frame.entry.row
        if row is None or row.sp_reg is not OrcRegister.BP or row.type is not RowType.CALL:
            return None
        pairs = itertools.pairwise(frames[max(index - 1, 0) : index + 2])
        if all(self._is_called_directly(below, above) for below, above in pairs):
            return None
        expected = self._depths.at(*frame.looked_up)
        return (
            None
            if expected is None or depth in expected
            else StackPointerAtOtherDepth(depth, expected[0], expected[-1])
        )

    def is_plain(self, frames: Sequence[Frame], depths: Sequence[int | None], gap: int | None) -> bool:
        """Whether `judge` would leave as they are frames that are all callers of each other.

        Args:
            frames: innermost first, as far as their ips decide them.
            depths: bytes from each one's stack pointer to its CFA; None where the stack ends.
            gap: bytes between the user's registers and the end of the task's stack; None where the walk finds none.
        """
        is_placed = gap is None or gap in USER_PADDINGS
        is_deep = all(d is None or self._misses_depth(frames, index, d) is None for index, d in enumerate(depths))
        return is_placed and is_deep and all(self._call(a.location, b) is None for a, b in itertools.pairwise(frames))

    def _contradiction(self, below: Frame, frame: Frame, stacks: Sequence[Stack]) -> Reason | None:
        """Why the step from `below` to `frame` cannot be right, or None."""
        if frame.kind is FrameKind.CALL:
            if not frame.reliable and frame.doubt is not None:
                return frame.doubt  # the walk itself found it
            if self._is_above_return_slot(below, frame):
                return FramePointerBehindReturn(frame.registers["rbp"].value)
            if frame.recovered is None:
                return self._call(below.location, frame)
            return self._recorded(below, frame, frame.recovered)
        if frame.kind is FrameKind.USER:
            return _user_registers(below, stacks)
        return self._interrupt(below, frame, stacks)

    def _is_above_return_slot(self, below: Frame, frame: Frame) -> bool:
        """Whether rbp led past the return address: what was taken for the caller's rbp is behind a call of the frame below.

        rbp is 8 too high then, and the caller is lost in silence where its own caller fits as well.
        """
        row = None if below.entry is None else below.entry.row
        if row is None or row.sp_reg is not OrcRegister.BP or below.location is None or frame.bp is None:
            return False
        is_behind_call = self._code.is_text(frame.bp) and self._code.follows_call(frame.bp) is True
        return is_behind_call and self.calls.leads_to(frame.bp, below.location) is True

    def _recorded(self, below: Frame, frame: Frame, recovered: Recovered) -> Reason | None:
        """What speaks against a return address that a tracer's record gave; the slot itself has only a trampoline's."""
        named = None if recovered.callee is None else self._code.locate(recovered.callee)
        if recovered.has_returned:
            return self._call(named, frame)  # the frame below is the trampoline, which nobody called
        callee = below.location
        if (
            recovered.callee is not None
            and callee is not None
            and not self.calls.may_go_on_to(recovered.callee, callee)
        ):
            return RecordOfOtherFunction(recovered.callee)
        return self._call(callee, frame)

    def _call(self, callee: Location | None, frame: Frame) -> Reason | None:
        """What speaks against a caller by the call before its ip; `callee` is what that call led to, where it is known."""
        if frame.exact:
            return None  # about to be entered: see `enters_function`
        if _begins(frame) and not self.calls.ends_call(frame.ip):
            return None if self.calls.may_begin(frame.ip) else NothingBeginsAt(frame.ip)
        verdict = None if callee is None else self.calls.leads_to(frame.ip, callee)
        if verdict is False and callee is not None:
            return CallLeadsElsewhere(frame.ip, callee.symbol)
        if verdict is None and self.calls.ends_call(frame.ip) is False:
            return NoCallEndsAt(frame.ip)
        return None

    def witnesses(self, frames: Sequence[Frame]) -> list[Witness]:
        """What indirect calls of these frames, which are all callers of each other, went through."""
        found = [self._witness(frames, depth) for depth in range(1, len(frames))]
        return [one for one in found if one is not None]

    def _witness(self, frames: Sequence[Frame], depth: int) -> Witness | None:
        """The same of the frame at `depth` alone."""
        below, frame = frames[depth - 1], frames[depth]
        has_returned = frame.recovered is not None and frame.recovered.has_returned
        is_asked = frame.kind is FrameKind.CALL and not has_returned and not frame.exact and frame.doubt is None
        if not is_asked or below.location is None:
            return None
        if is_thunk(below.location) or is_return_thunk(below.location):
            return None
        if self.calls.leads_to(frame.ip, below.location) is not None:
            return None
        read = self._pointers.read_by(frame.ip)
        return None if read is None else Witness(depth, read, below.location)

    def saved(self, witness: Witness, frames: Sequence[Frame]) -> Saved | None:
        """The register that the call went by, in its frame; None where that is not known."""
        # Most calls by a register are of functions that no other question looks at: these are only looked over.
        finder = self._quick_finder if witness.read.offset is None else self._finder
        return finder.saved(frames[: witness.depth + 1], witness.read.register)

    @functools.cached_property
    def _quick_finder(self) -> RegisterFinder:
        return RegisterFinder(self._code, self._depths)

    def refuted(self, witness: Witness, value: int) -> Reason | None:
        """Why the call cannot have led where it is said to, if `value` is in the register; None where it can."""
        read, callee = witness.read, witness.callee
        target = self._pointers.target(read, value)
        if target is None or (self._may_be_code(target) and self.calls.is_reached(target, callee) is not False):
            return None
        if read.offset is None:
            return RegisterLeadsElsewhere(read.register, value, callee.symbol)
        return PointerLeadsElsewhere(read.offset, read.register, value + read.offset & U64, callee.symbol)

    def _may_be_code(self, target: int) -> bool:
        code = self._code
        return code.is_text(target) or code.locate(target) is not None or is_unlisted(code, target, exact=True)

    def _refutation(self, frames: Sequence[Frame], depth: int) -> Reason | None:
        """What speaks against the frame at `depth` by what its registers are; None where nothing does."""
        witness = self._witness(frames, depth) if frames[depth].reliable else None
        found = None if witness is None else self.saved(witness, frames)
        return None if witness is None or found is None else self.refuted(witness, found.value)

    def _interrupt(self, below: Frame, frame: Frame, stacks: Sequence[Stack]) -> Reason | None:
        ip, exact = frame.looked_up
        if exact and ip and self.calls.is_boundary(ip) is False:
            return NoInstructionAt(ip)
        end = _registers_end(below)
        same = next((stack for stack in stacks if stack.holds(end - IRET_SIZE, IRET_SIZE)), None)
        if same is None or not same.begin <= frame.sp <= same.end:
            return None
        if not self._fits_above(below, end, frame.sp) and not is_nested_nmi(same, end, frame.sp):
            return NotSavedAtStackPointer(end, frame.sp)
        return None


def _noted(frame: Frame, stacks: Sequence[Stack]) -> Frame:
    """The frame with a note where an exception found its stack pointer below a stack."""
    if frame.kind in (FrameKind.CALL, FrameKind.USER) or not any(stack.has_overflowed(frame.sp) for stack in stacks):
        return frame
    is_on_another = any(stack.holds(frame.sp - 8) for stack in stacks)
    return frame if is_on_another else replace(frame, notes=(*frame.notes, Overflowed()))


def _begins(frame: Frame) -> bool:
    """True for the first frame of a stack, which no call need have led from: its return address was put there."""
    return frame.row_type is RowType.END_OF_STACK


def _begins_exactly(frames: Sequence[Frame]) -> bool:
    """Whether the walk begins where a CPU stands, or a new task will, and not behind a call that a sleeping task made."""
    return frames[0].exact


def _takes_stack_pointer_from_memory(frame: Frame) -> bool:
    """Whether the step up goes by a stack pointer that an interrupt saved, or by a saved rbp."""
    if frame.kind in (FrameKind.INTERRUPT, FrameKind.INTERRUPT_PARTIAL):
        return True
    return frame.entry is not None and frame.entry.row.sp_reg is OrcRegister.BP


def is_nested_nmi(stack: Stack, end: int, sp: int) -> bool:
    """Whether registers that end at `end` and hold the stack pointer `sp` are those of an NMI that an NMI interrupted.

    The CPU saves them at the top of the stack even where that is in use, so asm_exc_nmi runs above what it interrupted,
    and above the copies of the first NMI's registers; it soon returns and has the first one repeated.
    """
    return stack.kind is StackKind.NMI and end == stack.end and stack.begin <= sp <= stack.end - _NMI_COPIES


def _registers_end(below: Frame) -> int:
    """Where the saved registers that a step went by end: however many there are, the CPU's five words are the last."""
    return (below.return_slot or 0) + IRET_SIZE


def _user_registers(below: Frame, stacks: Sequence[Stack]) -> Reason | None:
    """Why the user's registers cannot be where the frame below says, or None."""
    end = _registers_end(below)
    own = next((stack for stack in stacks if stack.holds(end - IRET_SIZE, IRET_SIZE)), None)
    if own is None or own.kind is not StackKind.TASK or own.end - end in USER_PADDINGS:
        return None
    return UserRegistersNotAtTop(end)


def _guess(frame: Frame, why: Reason, index: int) -> Frame:
    """A frame at or above the one that is contradicted."""
    if not frame.reliable:
        return frame
    doubt = why if frame.index == index else ReachedThroughDoubt(index)
    return replace(frame, reliable=False, doubt=doubt)

"""Who called whom: how does one frame lead to the next by the ORC rule that holds at its ip?

Mirrors unwind_next_frame() of arch/x86/kernel/unwind_orc.c, 5.10 to 7.2. Where that guesses, this refuses, or goes on and
marks what follows as a guess: a step is taken only on a known stack, upwards, to code. Every walk ends with a reason.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reasons import Reason
from orcdbg.base.sizes import U64
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.orc.cfa import CfaRule, Indirection, bp_rule, sp_rule
from orcdbg.orc.effective import Derived, Effective, Source, Unknown
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.entry_code import rule_of_caller_after_saving
from orcdbg.orc.rules.generated_code import FRAME_ROW, FRAME_RULE
from orcdbg.patches.code import Code
from orcdbg.unwind.frame import NEW_TASK, Frame, FrameKind, Recovered, Registers, RegisterValue
from orcdbg.unwind.judge.evidence import Evidence, is_nested_nmi
from orcdbg.unwind.reasons import (
    CalledNoCode,
    InterruptedNotText,
    InterruptedPointerNotUp,
    InterruptedPointerOffStacks,
    InUnlistedCode,
    Layout,
    MayHaveRun,
    NoCallBefore,
    NoCallerHere,
    NoRow,
    NotOnStacks,
    NotOutermost,
    NotSavedRegisters,
    ReachedThroughDoubt,
    RegisterHoldsNoReturn,
    RegisterUnknown,
    ReturnNotText,
    ReturnRegisterUnknown,
    RowUndefined,
    SavedFramePointer,
    SavedStackPointer,
    SlotsCompared,
    Sought,
    StackEnteredTwice,
    StackPointerNotUp,
    StackPointerOffStacks,
    TooManyFrames,
    UnlistedCode,
    Unreadable,
    Wanted,
)
from orcdbg.unwind.saved_registers import implausible, is_unlisted, is_user, may_have_users_sp, saved_registers
from orcdbg.unwind.true_returns import TrueReturn, TrueReturns, enters_function
from orcdbg.x86.branches import INT3
from orcdbg.x86.registers import IRET_FRAME, IRET_SIZE, PT_REGS, PT_REGS_SIZE

MAX_FRAMES = 1024
OUTERMOST_BYTES = PT_REGS_SIZE + 64  # a first frame has no more above it on its stack
_START_UP = (
    *("secondary_startup_64", "common_startup_64", "startup_64"),
    *("startup_xen", "asm_cpu_bringup_and_idle"),  # of Xen PV: the first CPU and the others
)
# The entry of #BP; `int3` to 5.7.
_BREAKPOINT_ENTRIES = ("asm_exc_int3", "int3")
# The switch of tasks: code that "returns" to where the next task goes on.
SWITCH = ("__switch_to_asm", "__switch_to")
REGISTER_OF = {
    OrcRegister.SP: "rsp",
    OrcRegister.BP: "rbp",
    OrcRegister.DI: "rdi",
    OrcRegister.DX: "rdx",
    OrcRegister.AX: "rax",
    OrcRegister.R10: "r10",
    OrcRegister.R13: "r13",
}


@dataclass(frozen=True, slots=True)
class Terrain:
    """What a walk goes over.

    Attributes:
        code: the kernel: memory, names, and which code addresses may be returned to.
        overlay: the rule that holds at each address.
        evidence: judges walks when they are finished.
    """

    code: Code
    overlay: OrcOverlay
    evidence: Evidence


@dataclass(slots=True)
class State:
    """The unwinder's state between two frames.

    Attributes:
        ip: where the next frame is.
        exact: True for an interrupted ip, False for a return address; see `Lookup` in orc/rules/source.py.
        registers: what is known in that frame; rip and rsp always.
        kind: how the frame was come to.
        came_from: the stack slot that the ip was read from; None for a first frame, and where a register held it.
        full_registers: registers that `registers` leaves out and that are known all the same: they were still in the CPU when
            only its five words had been saved, or were just being saved (`state->prev_regs` in the kernel's unwinder).
        doubt: what speaks against the step that led here.
        own_doubt: what is in doubt about the frame's own rule, where the way here is sure.
        recovered: for an ip that a tracer had replaced, where it came from.
        is_behind_int3: the ip was saved by a breakpoint, and is one past the int3; not exact.
        registers_saved: a whole pt_regs lies at rsp, whatever the row says: see orc/rules/entry_code.py.
    """

    ip: int
    exact: bool
    registers: Registers
    kind: FrameKind
    came_from: int | None
    full_registers: Registers | None = None
    doubt: Reason | None = None
    own_doubt: Reason | None = None
    recovered: Recovered | None = None
    is_behind_int3: bool = False
    registers_saved: bool = False

    @property
    def reliable(self) -> bool:
        """True where nothing speaks against the step that led here."""
        return self.doubt is None


class WalkEnd(enum.Enum):
    """Where a walk ended."""

    STOPPED = enum.auto()
    FIRST_FRAME = enum.auto()
    USER = enum.auto()


@dataclass(slots=True)
class Walk:
    """A walk's result: its frames, where it ended, and for one that stopped, why."""

    frames: list[Frame] = field(default_factory=list)
    end: WalkEnd = WalkEnd.STOPPED
    end_reason: Reason | None = None

    @property
    def is_missing(self) -> bool:
        """True where what was needed next is not in the snapshot, which speaks against no frame."""
        return isinstance(self.end_reason, Unreadable)


class _Stop(Exception):
    """Ends a walk; `frame` is the last frame as far as it was explained."""

    def __init__(self, reason: Reason | None, end: WalkEnd = WalkEnd.STOPPED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.end = end
        self.frame: Frame | None = None


class Walker:
    """One walk over one task's stacks.

    Args:
        terrain: the kernel.
        stacks: the stacks the walk may touch, the task's own first.
        returns: where the kernel keeps return addresses of this task that it replaced.
        is_idle: True for a swapper task, whose first frame is start-up code.
    """

    def __init__(self, terrain: Terrain, stacks: Sequence[Stack], returns: TrueReturns, is_idle: bool = False) -> None:
        self._is_idle = is_idle
        self._returns = returns
        self._frames: list[Frame] = []
        self._code = terrain.code
        self._overlay = terrain.overlay
        self._calls = terrain.evidence.calls
        self._stacks = stacks
        self._left: set[tuple[StackKind, int]] = set()
        self._is_nested = False

    def walk(self, start: State, most: int = MAX_FRAMES) -> Walk:
        """All frames from `start` on, at most so many."""
        result, state = Walk(self._frames), start
        try:
            for index in range(most):
                if state.kind is FrameKind.USER or is_user(state.registers):
                    result.frames.append(_user_frame(index, state))
                    raise _Stop(None, WalkEnd.USER)
                frame = self._frame(index, state)
                result.frames.append(frame)
                state, result.frames[-1] = self._step(frame, state)
            raise _Stop(TooManyFrames(most))
        except _Stop as stop:
            result.end, result.end_reason = stop.end, stop.reason
            if stop.frame is not None:
                result.frames[-1] = stop.frame
        return result

    # Frames

    def _frame(self, index: int, state: State) -> Frame:
        """The frame for a state, before its caller is known."""
        stack = self._stack_of_pointer(state.registers["rsp"].value)
        return Frame(
            index=index,
            kind=state.kind,
            stack=StackKind.UNKNOWN if stack is None else stack.kind,
            ip=state.ip,
            exact=state.exact,
            location=self._code.locate(state.ip if state.exact else state.ip - 1),
            registers=state.registers,
            came_from=state.came_from,
            reliable=state.reliable,
            doubt=state.doubt or state.own_doubt,
            recovered=state.recovered,
            is_behind_int3=state.is_behind_int3,
        )

    def _step(self, frame: Frame, state: State) -> tuple[State, Frame]:
        """The caller's state, and the frame completed with how it was found."""
        effective = self._rule_of(frame, state)
        frame, is_first = explained(frame, effective), False
        if frame.row_type is RowType.END_OF_STACK and not isinstance(effective, Derived):
            frame, is_first = self._judge_first(frame)
        elif frame.row_type is RowType.UNDEFINED and not isinstance(effective, Derived):
            # Before 4.18 (d31a580266ee) no row said "end of stack", and that of the first frame is undefined as well.
            judged, is_first = self._judge_first(frame)
            frame = judged if is_first else frame
        try:
            row, rule = _row_and_rule(effective, frame, is_first)
            cfa = self._cfa(rule, frame, state)
            frame = replace(frame, cfa=cfa)
            caller = self._caller(effective, row, frame, cfa, state)
            frame = replace(frame, notes=frame.notes + self._compared_slots(frame, caller.came_from))
        except _Stop as stop:
            stop.frame = frame
            raise

        if isinstance(effective, Derived) and isinstance(effective.reason, UnlistedCode) and caller.reliable:
            caller.doubt = UnlistedCode()
        return caller, replace(frame, return_slot=caller.came_from)

    def _rule_of(self, frame: Frame, state: State) -> Effective:
        """The rule that holds in a frame: the overlay's, with the exceptions that only the way here tells.

        There are three: a frame whose callee has saved all registers at its stack pointer; an address without code that was
        called, whose return address is on top of the stack (null_orc_entry, for NULL alone); and code that is on no list,
        which is walked by its frame pointer (the kernel's orc_fp_entry).
        """
        ip, exact = frame.looked_up
        effective = self._overlay.at(ip, exact)
        if state.registers_saved:
            return rule_of_caller_after_saving(effective)

        if not isinstance(effective, Unknown) or effective.entry is not None or self._code.is_text(ip):
            return effective
        known = {**(state.full_registers or {}), **frame.registers}
        was_called = self._was_called(ip, known) if exact else False
        may_be_code = is_unlisted(self._code, ip, exact)
        # Of code on no list some may have run, unless the pointer still is what the CPU went to.
        if was_called or (was_called is None and not may_be_code):
            return Derived(None, sp_rule(8), FUNCTION_ENTRY, CalledNoCode(ip), Source.INSTRUCTIONS)
        if may_be_code:
            return Derived(None, FRAME_RULE, FRAME_ROW, UnlistedCode(), Source.FRAME_POINTER)
        return effective

    def _caller(self, effective: Effective, row: OrcRow, frame: Frame, cfa: int, state: State) -> State:
        """The caller's state: its ip is in a register, behind a call on the stack, or among saved registers."""
        if isinstance(effective, Derived) and effective.return_register is not None:
            return self._from_register(frame, cfa, effective.return_register, state)
        if row.type is RowType.CALL:
            return self._call(frame, cfa, row, state)
        return self._interrupted(frame, cfa, row, state)

    def _was_called(self, ip: int, registers: Registers) -> bool | None:
        """Whether a call whose return address is on top of a stack led to `ip`, where no code is."""
        from orcdbg.unwind.no_code import NoCode  # hardly any walk comes to such a place

        is_on_stack = self._stack_of(registers["rsp"].value) is not None
        return is_on_stack and NoCode(self._code).was_called(ip, registers)

    def _judge_first(self, frame: Frame) -> tuple[Frame, bool]:
        """Judges a frame whose row says end of stack: whether it is the first of a stack, which it is only where those are.

        That is at the top of a task's stack, with no more than user registers above, and it waits for a return; no call need
        stand before its return address, since start-up code pushes one. Elsewhere (a CPU in entry code, before the
        registers are saved) the row only says that nothing is known.
        """
        stack = self._stack_of_pointer(frame.sp)
        is_at_top = stack is not None and stack.kind is StackKind.TASK and stack.end - frame.sp <= OUTERMOST_BYTES
        symbol = frame.location.symbol if frame.location else ""
        waits = frame.kind is FrameKind.CALL
        is_start_up = self._is_idle and symbol.startswith(_START_UP)
        is_new = symbol in NEW_TASK and (waits or frame.exact)
        if not is_at_top or not (is_new or (is_start_up and waits)):
            return replace(frame, notes=(*frame.notes, NotOutermost())), False

        # Start-up code pushed its own return address: that no call stands before it speaks against nothing.
        is_pushed = is_start_up and frame.doubt == NoCallBefore(frame.ip)
        return (replace(frame, reliable=True, doubt=None) if is_pushed else frame), True

    def _compared_slots(self, frame: Frame, slot: int | None) -> tuple[SlotsCompared, ...]:
        """For a corrected frame: what stands where the row as built would have looked, and what where it really is."""
        if slot is None or not frame.is_corrected or frame.patch is None or frame.patch.stated_rule is None:
            return ()

        compared = []
        for address in (slot - frame.patch.adjust, slot):
            if self._stack_of(address) is None:
                continue
            value = self._word(address, Sought.RETURN_SLOT)
            is_call = self._code.is_text(value) and self._code.follows_call(value) is True
            compared.append((address, is_call))
        return (SlotsCompared(tuple(compared)),)

    # Memory

    def _stack_of(self, address: int, size: int = 8) -> Stack | None:
        return next((stack for stack in self._stacks if stack.holds(address, size)), None)

    def _stack_of_pointer(self, sp: int) -> Stack | None:
        """The stack that a stack pointer is on; an empty stack's is at its end, that of an overflow in the page below."""
        stack = self._stack_of(sp) or self._stack_of(sp - 8)
        return stack or next((stack for stack in self._stacks if stack.has_overflowed(sp)), None)

    def _read(self, address: int, size: int, wanted: Wanted) -> bytes:
        """Bytes of a stack; a walk reads nothing else."""
        if self._stack_of(address, size) is None:
            raise _Stop(NotOnStacks(wanted, address))
        try:
            return self._code.memory.read(address, size)
        except MemoryFault as error:
            raise _Stop(Unreadable(wanted, str(error))) from error

    def _word(self, address: int, wanted: Wanted) -> int:
        return int.from_bytes(self._read(address, 8, wanted), "little")

    def _cfa(self, rule: CfaRule, frame: Frame, state: State) -> int:
        """The CFA by a rule: the value of the stack pointer in the caller, or where its registers are saved."""
        name = REGISTER_OF.get(rule.base, rule.base.value)
        base = frame.registers.get(name) or (state.full_registers or {}).get(name)
        if base is None:
            raise _Stop(RegisterUnknown(str(rule), name))

        saved_pointer = SavedStackPointer(str(rule))
        if rule.indirection is Indirection.BASE:
            return self._word(base.value, saved_pointer) + rule.offset & U64
        address = base.value + rule.offset & U64
        return address if rule.is_direct else self._word(address, saved_pointer)

    # Steps

    def _call(self, frame: Frame, cfa: int, row: OrcRow, state: State) -> State:
        """The caller through a return address at CFA - 8."""
        slot = cfa - 8
        word = self._word(slot, Sought.RETURN_SLOT)

        # Code that a `ret` led to has its caller's stack pointer.
        self._check_progress(frame.sp, cfa, slot, may_stay=frame.source is Source.TRAMPOLINE)

        true_return = self._true_return(slot, word)
        ip = word if true_return is None else true_return.ip
        ip_source = f"return slot {slot:#x} of frame #{frame.index}" if true_return is None else true_return.source

        enters = enters_function(self._code, frame, ip)
        is_on_no_list = not self._code.is_text(ip) and not self._code.is_text(ip - 1)
        if is_on_no_list and not is_unlisted(self._code, ip, exact=False):
            raise _Stop(ReturnNotText(slot, ip))

        registers = _registers_of_caller(frame, cfa, RegisterValue(ip, ip_source))
        rbp = self._rbp_of_caller(frame, cfa, row, frame.registers.get("rbp"))
        if rbp is not None:
            registers["rbp"] = rbp

        is_new_task = self._is_switch_to_new_task(frame, ip)
        return State(
            ip=ip,
            exact=is_new_task or enters,
            registers=registers,
            kind=FrameKind.CALL,
            came_from=slot,
            full_registers=self._kept_while_saving(frame, cfa, ip, state),
            doubt=_doubt_of_caller(frame)
            if is_new_task
            else self._doubt_of_return(frame, ip, is_on_no_list, true_return),
            recovered=None if true_return is None else true_return.recovered,
            registers_saved=self._callee_has_saved(frame, ip),
        )

    def _is_switch_to_new_task(self, frame: Frame, ip: int) -> bool:
        """Whether the switch will "return" to the first instruction of a task that never ran: copy_thread() put it there."""
        place = self._code.locate(ip)
        is_start = place is not None and place.symbol in NEW_TASK and place.start == ip
        return is_start and frame.location is not None and frame.location.symbol in SWITCH

    def _true_return(self, slot: int, word: int) -> TrueReturn | None:
        """What a tracer's trampoline in a return slot stands for; None where the slot has the true address itself."""
        answer = self._returns.of(self._frames, slot, word)
        if isinstance(answer, Reason):
            raise _Stop(answer)
        return answer

    def _doubt_of_return(
        self, frame: Frame, ip: int, is_on_no_list: bool, true_return: TrueReturn | None
    ) -> Reason | None:
        """What speaks against a caller, the strongest first."""
        if self._code.follows_call(ip) is False and not enters_function(self._code, frame, ip):
            return NoCallBefore(ip)
        if not frame.is_trusted:
            return ReachedThroughDoubt(frame.index)
        if is_on_no_list:
            return InUnlistedCode(ip)
        return None if true_return is None else true_return.doubt

    def _from_register(self, frame: Frame, cfa: int, name: str, state: State) -> State:
        """The caller of error_entry or its like, while its return address is on no stack."""
        known = {**(state.full_registers or {}), **frame.registers}
        held = known.get(name)
        if held is None:
            raise _Stop(ReturnRegisterUnknown(name))

        callee = self._overlay.saving.called_before(held.value)
        if callee is None or frame.location is None or callee.start != frame.location.start:
            raise _Stop(RegisterHoldsNoReturn(name, held.value))
        self._check_progress(frame.sp, cfa, cfa - 8, may_stay=True)

        ip = RegisterValue(held.value, f"{name} of frame #{frame.index}")
        return State(
            ip=ip.value,
            exact=False,
            registers=_registers_of_caller(frame, cfa, ip),
            kind=FrameKind.CALL,
            came_from=None,
            full_registers=self._kept_while_saving(frame, cfa, ip.value, state),
            doubt=_doubt_of_caller(frame),
            registers_saved=self._callee_has_saved(frame, ip.value),
        )

    def _interrupted(self, frame: Frame, cfa: int, row: OrcRow, state: State) -> State:
        """The caller through saved registers at the CFA: a whole pt_regs, or the CPU's five words."""
        is_whole = row.type is RowType.REGS
        layout = Layout.PT_REGS if is_whole else Layout.IRET_FRAME
        data = self._read(cfa, PT_REGS_SIZE if is_whole else IRET_SIZE, Sought.SAVED_REGISTERS)
        what = f"pt_regs {cfa:#x}" if is_whole else f"interrupt frame {cfa:#x}"
        registers = saved_registers(data, PT_REGS if is_whole else IRET_FRAME, what)

        slot = cfa + (PT_REGS["rip"] if is_whole else 0)
        has_users_sp = not is_user(registers) and self._has_users_sp(registers)
        why_not = implausible(registers, has_users_sp)
        if why_not is not None:
            raise _Stop(NotSavedRegisters(layout, cfa, why_not))

        full_registers = None
        if not is_whole:
            # What the five words leave out is still in the CPU, as the frame below has it.
            full_registers = frame.registers if "r15" in frame.registers else state.full_registers
            rbp = self._rbp_of_caller(frame, cfa, row, (full_registers or frame.registers).get("rbp"))
            if rbp is not None:
                registers["rbp"] = rbp

        is_behind_int3, unsure = False, None
        if not is_user(registers):
            is_behind_int3, unsure = self._judge_int3(frame, registers)
            known = {**(full_registers or {}), **registers}
            self._check_interrupted(known, slot, not is_behind_int3, has_users_sp)

        return State(
            ip=registers["rip"].value,
            exact=not is_behind_int3,
            registers=registers,
            kind=FrameKind.INTERRUPT if is_whole else FrameKind.INTERRUPT_PARTIAL,
            came_from=slot,
            full_registers=full_registers,
            doubt=_doubt_of_caller(frame),
            own_doubt=unsure,
            is_behind_int3=is_behind_int3,
        )

    def _judge_int3(self, frame: Frame, registers: Registers) -> tuple[bool, Reason | None]:
        """Whether the ip in `registers`, which a breakpoint's entry saved, is still one past the int3; and what is in doubt.

        If it is, the instruction at ip - 1, for which the int3 stands, has not run, and the row at ip - 1 holds (see
        `Frame.looked_up`). The row that led here does not tell: to 6.2 rows have no bit `signal`, and from 6.3 on
        (ffb1b4a41016) it is 0 only up to the call of error_entry, and 1 again behind it. And the handler may set the ip
        anew at any time: where it emulates the instruction, or has a copy of it run, the ip is exact from then on.

        So the text is asked: nothing begins at the ip itself while an instruction of several bytes is not run. An
        instruction of one byte leaves both open. Then the rules at ip - 1 and at ip are compared, by the return address that
        each of them finds.
        """
        if frame.location is None or frame.location.symbol not in _BREAKPOINT_ENTRIES:
            return False, None

        ip = registers["rip"].value
        here, is_int3 = self._calls.begins_as_built(ip - 1), self._is_int3(ip - 1)
        if here is not None and here.size > 1:
            return True, None  # nothing begins at the ip itself
        if here is None and not is_int3:
            return False, None

        before, behind = (self._overlay.at(place, True).rule for place in (ip - 1, ip))
        if before == behind:
            return is_int3, None
        if_not_run, if_run = (self._evidence_of_call(rule, registers) for rule in (before, behind))
        if if_not_run == if_run:
            return is_int3, MayHaveRun(ip - 1)
        return if_not_run > if_run, None

    def _is_int3(self, address: int) -> bool:
        try:
            return self._code.memory.read(address, 1) == INT3
        except MemoryFault:
            return False

    def _evidence_of_call(self, rule: CfaRule | None, registers: Registers) -> int:
        """How well the return address that a rule finds fits the function that was interrupted with these registers.

        2 where the call before it leads there, 1 where it may, 0 where it does not, or there is none.
        """
        base = (
            None if rule is None or not rule.is_direct else registers.get(REGISTER_OF.get(rule.base, rule.base.value))
        )
        function = self._code.locate(registers["rip"].value - 1)
        if rule is None or base is None or function is None:
            return 0

        slot = base.value + rule.offset - 8 & U64
        if self._stack_of(slot) is None:
            return 0
        try:
            word = int.from_bytes(self._code.memory.read(slot, 8), "little")
        except MemoryFault:
            return 0
        if not self._code.is_text(word - 1) or not self._code.follows_call(word):
            return 0
        verdict = self._calls.leads_to(word, function)
        if verdict is None:
            return 1
        return 2 if verdict else 0

    def _check_interrupted(self, registers: Registers, slot: int, exact: bool, has_users_sp: bool) -> None:
        """Stops where the kernel cannot have been interrupted with these registers, which were saved at `slot`."""
        if not has_users_sp:
            self._check_switch(registers["rsp"].value, slot)

        ip = registers["rip"].value
        if self._code.is_text(ip) or is_unlisted(self._code, ip, exact):
            return
        # That the CPU was at NULL is believed without a call: saved registers with that ip are no chance find.
        if ip and self._was_called(ip, registers) is False:
            raise _Stop(InterruptedNotText(slot, ip))

    # Registers of the caller

    def _callee_has_saved(self, frame: Frame, return_address: int) -> bool:
        """Whether the caller called error_entry or its like, which has saved all registers by now."""
        saving = self._overlay.saving
        is_called = saving.called_before(return_address) is not None
        return is_called and not (frame.exact and saving.is_early(frame.ip))

    def _kept_while_saving(self, frame: Frame, cfa: int, return_address: int, state: State) -> Registers | None:
        """The caller's registers while error_entry or its like is saving them: from the stack, or still in place."""
        saving = self._overlay.saving
        is_saving = frame.exact and saving.is_early(frame.ip) and saving.called_before(return_address) is not None
        if not is_saving:
            return None

        known = {**(state.full_registers or {}), **frame.registers}
        begin = cfa - 8 - PT_REGS["rdi"]  # of the pt_regs to be: the return address is where rdi will be
        for name, offset in PT_REGS.items():
            if frame.sp <= begin + offset < cfa - 8:
                known[name] = RegisterValue(self._word(begin + offset, Sought.SAVED_REGISTER), f"pt_regs {begin:#x}")
        return known

    def _has_users_sp(self, registers: Registers) -> bool:
        """Whether kernel code runs with a stack pointer that is none: the walk goes no further from there."""
        is_at_edge = may_have_users_sp(self._code, registers["rip"].value)
        return is_at_edge and not self._stack_of_pointer(registers["rsp"].value)

    def _rbp_of_caller(self, frame: Frame, cfa: int, row: OrcRow, own: RegisterValue | None) -> RegisterValue | None:
        """The caller's rbp by the row's second half; None where it is not known."""
        if row.bp_reg is OrcRegister.UNDEFINED:
            return own  # the function has not touched it

        if row.bp_reg is OrcRegister.PREV_SP:
            base = cfa
        elif row.bp_reg is OrcRegister.BP and own is not None:
            base = own.value
        else:
            return None
        address = base + row.bp_offset & U64
        value = self._word(address, SavedFramePointer(bp_rule(row)))
        return RegisterValue(value, f"saved at {address:#x} by frame #{frame.index}")

    # Progress

    def _check_progress(self, sp: int, new_sp: int, slot: int, may_stay: bool) -> None:
        """Within a stack the walk must go up; a stack that was left is not entered again."""
        here, there = self._stack_of_pointer(sp), self._stack_of(slot)
        if there is None:
            raise _Stop(StackPointerOffStacks(new_sp))
        if here is None:
            return
        if here != there:
            self._enter(here, there)
        elif new_sp < sp or (new_sp == sp and not may_stay):
            raise _Stop(StackPointerNotUp(sp, new_sp))

    def _check_switch(self, sp: int, slot: int) -> None:
        """An interrupted stack pointer may be on another stack, but on a known one that was not left before."""
        here, there = self._stack_of(slot), self._stack_of_pointer(sp)
        if there is None:
            raise _Stop(InterruptedPointerOffStacks(sp))
        if here is not None and here != there:
            self._enter(here, there)
        elif here is not None and not self._is_nested and is_nested_nmi(here, slot + IRET_SIZE, sp):
            self._is_nested = True  # once: a second NMI within an NMI has no place to be saved
        elif sp <= slot:
            raise _Stop(InterruptedPointerNotUp(slot, sp))

    def _enter(self, here: Stack, there: Stack) -> None:
        self._left.add((here.kind, here.begin))
        if (there.kind, there.begin) in self._left:
            raise _Stop(StackEnteredTwice(there.kind, there.begin))


def _user_frame(index: int, state: State) -> Frame:
    return Frame(
        index=index,
        kind=FrameKind.USER,
        stack=StackKind.UNKNOWN,
        ip=state.ip,
        exact=True,
        location=None,
        registers=state.registers,
        came_from=state.came_from,
        reliable=state.reliable,
        doubt=state.doubt if index == 0 else None,
    )


def _registers_of_caller(frame: Frame, cfa: int, ip: RegisterValue) -> dict[str, RegisterValue]:
    """What every step by a return address tells: the ip, and the stack pointer behind the return."""
    return {"rip": ip, "rsp": RegisterValue(cfa, f"CFA of frame #{frame.index}")}


def _doubt_of_caller(frame: Frame) -> Reason | None:
    """What a frame passes on to its caller."""
    return None if frame.is_trusted else ReachedThroughDoubt(frame.index)


def explained(frame: Frame, effective: Effective) -> Frame:
    """The frame with the rule that holds in it and where that came from."""
    return replace(
        frame,
        rule=None if effective.rule is None else str(effective.rule),
        source=effective.source,
        entry=effective.entry,
        patch=effective.patch,
        doubt=frame.doubt or effective.doubt,
        notes=(effective.reason,) if isinstance(effective, Derived) else (),
    )


def _row_and_rule(effective: Effective, frame: Frame, is_first: bool) -> tuple[OrcRow, CfaRule]:
    """The row and rule to step by; stops where there is none, and at the first frame of a stack."""
    if isinstance(effective, Derived):
        return effective.row, effective.rule

    if effective.entry is None:
        raise _Stop(NoRow(frame.ip))

    row = effective.entry.row
    if is_first:
        raise _Stop(None, WalkEnd.FIRST_FRAME)
    if row.type is RowType.END_OF_STACK:
        raise _Stop(NoCallerHere(frame.ip))
    if effective.rule is None:
        raise _Stop(RowUndefined(frame.ip))
    return row, effective.rule

"""Who called whom: how does one frame lead to the next by the ORC rule that holds at its ip?

Mirrors unwind_next_frame() of arch/x86/kernel/unwind_orc.c, 5.10 to 7.2, and refuses where that guesses: a step is taken
only on a known stack, upwards, to kernel text. Every walk ends with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import U64, AddressSpace
from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import IRET_SIZE, PT_REGS_SIZE, Stack
from orcdbg.orc.cfa import CfaRule, bp_rule
from orcdbg.orc.overlay import Effective, OrcOverlay
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRow
from orcdbg.orc.rules.entry_code import WHY_MOVED, WHY_R12
from orcdbg.orc.rules.generated_code import FRAME_ROW
from orcdbg.unwind.frame import Frame, Recovered, Registers, RegisterValue
from orcdbg.unwind.judge.evidence import Evidence, is_nested_nmi
from orcdbg.unwind.true_returns import TrueReturns

# struct pt_regs, arch/x86/include/asm/ptrace.h.
PT_REGS = {
    "r15": 0, "r14": 8, "r13": 16, "r12": 24, "rbp": 32, "rbx": 40, "r11": 48, "r10": 56, "r9": 64, "r8": 72, "rax": 80,
    "rcx": 88, "rdx": 96, "rsi": 104, "rdi": 112, "orig_rax": 120, "rip": 128, "cs": 136, "rflags": 144, "rsp": 152,
    "ss": 160,
}  # fmt: skip
IRET = ("rip", "cs", "rflags", "rsp", "ss")
_RIP_AT = 128
_SELECTORS = ("cs", "ss")
MAX_FRAMES = 1024
OUTERMOST_BYTES = PT_REGS_SIZE + 64  # a first frame has no more above it on its stack
_START_UP = ("secondary_startup_64", "common_startup_64", "startup_64", "asm_cpu_bringup_and_idle")
_UNLISTED = "code that the kernel has no list of, as of classic socket filters: by frame pointer, which is a guess"
_LISTED_ABOVE = 0xFFFF_FFFF_8000_0000  # code that calls the kernel directly lies here, as its image does
# Code in which rsp may be anything: the user's, or a place to compute in. See user_edge.py.
USERS_SP = ("entry_SYSCALL_64", "entry_SYSRETQ_unsafe_stack", "syscall_return_via_sysret")
NEW_TASK = ("ret_from_fork", "ret_from_fork_asm")
_IN_REGISTER = {WHY_MOVED: "rsi", WHY_R12: "r12"}
_NOT_OUTERMOST = "ORC has no caller here, and this is not the first frame of a stack (entry or exit code)"
REGISTER_OF = {"sp": "rsp", "bp": "rbp", "di": "rdi", "dx": "rdx", "ax": "rax", "r10": "r10", "r13": "r13"}


@dataclass(frozen=True, slots=True)
class Terrain:
    """What a walk goes over: memory, rules, names, and which code addresses may be returned to.

    `follows_call` says whether a call ends at an address, `call_target` where a direct one goes; both None where the
    text is not to be had. `rewritten` are the trampolines whose address in a return slot means that the kernel keeps the
    true one elsewhere. `evidence` judges walks when they are finished.
    """

    memory: AddressSpace
    overlay: OrcOverlay
    locate: Callable[[int], Location | None]
    is_text: Callable[[int], bool]
    follows_call: Callable[[int], bool | None]
    call_target: Callable[[int], int | None]
    rewritten: Collection[int]
    evidence: Evidence | None = None


@dataclass(slots=True)
class State:
    """The unwinder's state between two frames."""

    ip: int
    exact: bool
    registers: Registers
    kind: str
    came_from: int | None
    previous: Registers | None = None  # full registers from before a partial frame
    reliable: bool = True
    doubt: str | None = None
    recovered: Recovered | None = None
    registers_saved: bool = False  # a whole pt_regs lies at rsp, whatever the row says: see orc/entry_code.py


@dataclass(slots=True)
class Walk:
    """A walk's result: frames, and an end word of the JSON contract with its reason."""

    frames: list[Frame] = field(default_factory=list)
    end: str = "stopped"
    end_reason: str | None = None
    is_missing: bool = False  # what was needed next is not in the snapshot, which speaks against no frame


class _Stop(Exception):
    """Ends a walk; `end` is `stopped` for anything but a proper end, `frame` the last frame as far as it was explained."""

    def __init__(self, reason: str | None, end: str = "stopped") -> None:
        super().__init__(reason)
        self.reason = reason
        self.end = end
        self.frame: Frame | None = None


class Walker:
    """One walk over one task's stacks.

    Args:
        terrain: the kernel.
        stacks: the stacks the walk may touch, the task's own first.
        is_idle: True for a swapper task, whose first frame is start-up code.
        returns: where the kernel keeps return addresses of this task that it replaced.
    """

    def __init__(
        self, terrain: Terrain, stacks: Sequence[Stack], is_idle: bool = False, returns: TrueReturns | None = None
    ) -> None:
        self._is_idle = is_idle
        self._returns = returns
        self._frames: list[Frame] = []
        self._terrain = terrain
        self._stacks = stacks
        self._left: set[tuple[str, int]] = set()
        self._is_nested = False

    def walk(self, start: State, most: int = MAX_FRAMES) -> Walk:
        """All frames from `start` on, at most so many."""
        result, state = Walk(self._frames), start
        try:
            for index in range(most):
                if is_user(state.registers):
                    result.frames.append(self._user_frame(index, state))
                    raise _Stop(None, "user")
                frame = self._frame(index, state)
                result.frames.append(frame)
                state, result.frames[-1] = self._step(frame, state)
            raise _Stop(f"more than {most} frames")
        except _Stop as stop:
            result.end, result.end_reason = stop.end, stop.reason
            result.is_missing = isinstance(stop.__cause__, MemoryFault)
            if stop.frame is not None:
                result.frames[-1] = stop.frame
        return result

    def _stack_of(self, address: int, size: int = 8) -> Stack | None:
        return next((stack for stack in self._stacks if stack.holds(address, size)), None)

    def _stack_of_pointer(self, sp: int) -> Stack | None:
        """The stack that a stack pointer is on; an empty stack's is at its end, that of an overflow in the page below."""
        found = self._stack_of(sp) or self._stack_of(sp - 8)
        return found or next((stack for stack in self._stacks if stack.has_overflowed(sp)), None)

    def _user_frame(self, index: int, state: State) -> Frame:
        return Frame(
            index, "user", "unknown", state.ip, True, None, state.registers, state.came_from, reliable=state.reliable
        )

    def _frame(self, index: int, state: State) -> Frame:
        """The frame for a state, before its caller is known."""
        stack = self._stack_of_pointer(state.registers["rsp"].value)
        return Frame(
            index=index,
            kind=state.kind,
            stack=stack.kind if stack else "unknown",
            ip=state.ip,
            exact=state.exact,
            location=self._terrain.locate(state.ip if state.exact else state.ip - 1),
            registers=state.registers,
            came_from=state.came_from,
            reliable=state.reliable,
            doubt=state.doubt,
            recovered=state.recovered,
        )

    def _step(self, frame: Frame, state: State) -> tuple[State, Frame]:
        """The caller's state, and the frame completed with how it was found."""
        effective = self._terrain.overlay.at(frame.ip, frame.exact)
        is_unlisted = effective.entry is None and effective.rule is None and self._is_unlisted(frame.ip, frame.exact)
        if is_unlisted:
            effective = Effective(None, CfaRule("bp", 16), None, None, (), FRAME_ROW, _UNLISTED, "frame-pointer")
        if state.registers_saved:
            effective = self._terrain.overlay.after_saving(effective)
        frame = self._outermost(explained(frame, effective))
        try:
            row, rule = _row_and_rule(effective, frame)
            frame = replace(frame, cfa=self._cfa(rule, frame, state))
            if effective.why in _IN_REGISTER:
                return self._from_register(frame, _IN_REGISTER[effective.why], state), frame
            take = self._call if row.type == "call" else self._interrupted
            following, slot = take(frame, row, state)
            frame = replace(frame, notes=frame.notes + self._evidence(frame, slot))
            if is_unlisted and following.reliable:
                following.reliable, following.doubt = False, _UNLISTED
        except _Stop as stop:
            stop.frame = frame
            raise
        return following, replace(frame, return_slot=slot)

    def _is_unlisted(self, ip: int, exact: bool) -> bool:
        """Whether code that no list names may be at an ip: memory where such code lies, and a call before a return address.

        The kernel's unwinder believes any such ip and goes on by frame pointer (orc_fp_entry), no longer reliable.
        """
        terrain, inside = self._terrain, ip if exact else ip - 1
        if inside < _LISTED_ABOVE or terrain.is_text(inside) or terrain.locate(inside) is not None:
            return False
        try:
            terrain.memory.read(inside, 1)
        except MemoryFault:
            return False
        return exact or terrain.follows_call(ip) is True

    def _outermost(self, frame: Frame) -> Frame:
        """Judges a frame whose row says end of stack: it is a first frame only where first frames are.

        That is at the top of a task's stack, with no more than user registers above, and it waits for a return; no call need
        stand before its return address, since start-up code pushes one. Elsewhere (a CPU in entry code, before the
        registers are saved) the row only says that nothing is known.
        """
        if frame.source == "trampoline" or frame.entry is None or frame.entry.row.type != "end_of_stack":
            return frame
        stack = self._stack_of_pointer(frame.sp)
        at_top = stack is not None and stack.kind == "task" and stack.end - frame.sp <= OUTERMOST_BYTES
        symbol = frame.location.symbol if frame.location else ""
        is_start_up = self._is_idle and symbol.startswith(_START_UP)
        is_new = symbol in NEW_TASK and (frame.kind == "call" or frame.exact)
        if not at_top or not (is_new or (is_start_up and frame.kind == "call")):
            return replace(frame, notes=(_NOT_OUTERMOST,))
        return replace(frame, reliable=True, doubt=None) if is_start_up and frame.doubt == _no_call(frame.ip) else frame

    def _evidence(self, frame: Frame, slot: int) -> tuple[str, ...]:
        """For a corrected frame: what stands where the row as built would have looked, and what where it really is."""
        if frame.patch is None or not frame.patch.adjust or frame.patch.stated_rule is None:
            return ()
        words = []
        for at in (slot - frame.patch.adjust, slot):
            if self._stack_of(at) is None:
                continue
            value = self._word(at, "return address slot")
            is_call = self._terrain.is_text(value) and self._terrain.follows_call(value)
            words.append(f"[{at & 0xFFF:03x}] {'follows a call' if is_call else 'is not a return address'}")
        return (", ".join(words),)

    def _read(self, address: int, size: int, what: str) -> bytes:
        """Bytes of a stack; a walk reads nothing else."""
        if self._stack_of(address, size) is None:
            raise _Stop(f"{what} at {address:#x} is on none of this task's stacks")
        try:
            return self._terrain.memory.read(address, size)
        except MemoryFault as error:
            raise _Stop(f"{what}: {error}") from error

    def _word(self, address: int, what: str) -> int:
        return int.from_bytes(self._read(address, 8, what), "little")

    def _cfa(self, rule: CfaRule, frame: Frame, state: State) -> int:
        """The CFA by a rule: the value of the stack pointer in the caller, or where its registers are saved."""
        name = REGISTER_OF.get(rule.base, rule.base)
        base = frame.registers.get(name) or (state.previous or {}).get(name)
        if base is None:
            raise _Stop(f"the rule {rule} needs {name}, which is not known in this frame")
        if rule.indirect == "base":
            return self._word(base.value, f"saved stack pointer ({rule})") + rule.offset & U64
        address = base.value + rule.offset & U64
        return self._word(address, f"saved stack pointer ({rule})") if rule.indirect else address

    def _call(self, frame: Frame, row: OrcRow, state: State) -> tuple[State, int]:
        """The caller through a return address at CFA - 8."""
        cfa = frame.cfa or 0
        slot = cfa - 8
        ip = self._word(slot, "return address slot")
        self._check_progress(frame.sp, cfa, slot, frame.source == "trampoline")
        true = None if self._returns is None else self._returns.of(self._frames, slot, ip)
        if true is not None and true.problem:
            raise _Stop(true.problem)
        if true is None and ip in self._terrain.rewritten:
            raise _Stop(f"the return address in {slot:#x} was replaced by a trampoline; the true one is kept elsewhere")
        ip, source = (ip, f"return slot {slot:#x} of frame #{frame.index}") if true is None else true[:2]
        is_unlisted = not self._terrain.is_text(ip) and not self._terrain.is_text(ip - 1)
        if is_unlisted and not self._is_unlisted(ip, False):
            raise _Stop(f"the word in return slot {slot:#x}, {ip:#x}, is not an address of kernel text")
        registers = {
            "rip": RegisterValue(ip, source),
            "rsp": RegisterValue(cfa, f"CFA of frame #{frame.index}"),
        }
        bp = self._caller_bp(frame, cfa, row, frame.registers.get("rbp"))
        if bp is not None:
            registers["rbp"] = bp
        reliable, doubt = frame.reliable and frame.doubt is None, None
        if self._terrain.follows_call(ip) is False:
            reliable, doubt = False, _no_call(ip)
        elif not reliable:
            doubt = f"reached through frame #{frame.index}, which is in doubt"
        if is_unlisted and reliable:
            reliable, doubt = False, f"{ip:#x} is in {_UNLISTED}"
        if true is not None and true.doubt and reliable:
            reliable, doubt = False, true.doubt
        recovered = None if true is None else true.recovered
        is_saving, is_saved = self._saving(frame, ip)
        previous = self._before_saving(frame, cfa, state) if is_saving else None
        return State(ip, False, registers, "call", slot, previous, reliable, doubt, recovered, is_saved), slot

    def _saving(self, frame: Frame, ip: int) -> tuple[bool, bool]:
        """Whether the caller called error_entry or its like, which is about to save all registers, or has done so."""
        saving = self._terrain.overlay.saving
        is_called, is_early = saving.called_before(ip) is not None, frame.exact and saving.is_early(frame.ip)
        return is_called and is_early, is_called and not is_early

    def _before_saving(self, frame: Frame, cfa: int, state: State) -> Registers:
        """The caller's registers while error_entry or its like is saving them: from the stack, or still in place."""
        known = {**(state.previous or {}), **frame.registers}
        begin = cfa - 8 - PT_REGS["rdi"]  # of the pt_regs to be: the return address is where rdi will be
        for name, offset in PT_REGS.items():
            if frame.sp <= begin + offset < cfa - 8:
                known[name] = RegisterValue(self._word(begin + offset, "saved register"), f"pt_regs {begin:#x}")
        return known

    def _from_register(self, frame: Frame, name: str, state: State) -> State:
        """The caller of error_entry or its like, while its return address is on no stack."""
        known = {**(state.previous or {}), **frame.registers}
        found = known.get(name)
        if found is None:
            raise _Stop(f"the return address is in {name} here, which is not known in this frame")
        callee, cfa = self._terrain.overlay.saving.called_before(found.value), frame.cfa or 0
        if callee is None or frame.location is None or callee.start != frame.location.start:
            raise _Stop(f"{name}, {found.value:#x}, should hold the address behind a call of this function")
        self._check_progress(frame.sp, cfa, cfa - 8, True)
        registers = {
            "rip": RegisterValue(found.value, f"{name} of frame #{frame.index}"),
            "rsp": RegisterValue(cfa, f"CFA of frame #{frame.index}"),
        }
        reliable = frame.reliable and frame.doubt is None
        doubt = None if reliable else f"reached through frame #{frame.index}, which is in doubt"
        is_saving, is_saved = self._saving(frame, found.value)
        previous = self._before_saving(frame, cfa, state) if is_saving else None
        return State(found.value, False, registers, "call", None, previous, reliable, doubt, None, is_saved)

    def _interrupted(self, frame: Frame, row: OrcRow, state: State) -> tuple[State, int]:
        """The caller through saved registers at the CFA: a whole pt_regs, or the CPU's five words."""
        cfa = frame.cfa or 0
        full = row.type == "regs"
        names = PT_REGS if full else {name: 8 * i for i, name in enumerate(IRET)}
        data = self._read(cfa, PT_REGS_SIZE if full else IRET_SIZE, "saved registers")
        what = f"pt_regs {cfa:#x}" if full else f"interrupt frame {cfa:#x}"
        registers = saved_registers(data, names, what)
        has_users_sp = not is_user(registers) and self._has_users_sp(registers)
        why = implausible(registers, has_users_sp)
        if why:
            raise _Stop(f"{what} cannot be saved registers: {why}")
        previous = None
        if not full:
            previous = frame.registers if "r15" in frame.registers else state.previous
            bp = self._caller_bp(frame, cfa, row, (previous or frame.registers).get("rbp"))
            if bp is not None:
                registers["rbp"] = bp
        slot = cfa + (_RIP_AT if full else 0)
        ip, sp = registers["rip"].value, registers["rsp"].value
        if not is_user(registers):
            if not has_users_sp:
                self._check_switch(frame, sp, slot)
            if not self._terrain.is_text(ip) and ip and not self._is_unlisted(ip, row.signal):
                raise _Stop(f"the interrupted ip in {slot:#x}, {ip:#x}, is not an address of kernel text")
        reliable = frame.reliable and frame.doubt is None
        doubt = None if reliable else f"reached through frame #{frame.index}, which is in doubt"
        # Bit `signal` of the row: clear for #BP alone, whose saved ip is one past the int3.
        kind = "interrupt" if full else "interrupt-partial"
        return State(ip, row.signal, registers, kind, slot, previous, reliable, doubt), slot

    def _has_users_sp(self, registers: Registers) -> bool:
        """Whether kernel code runs with a stack pointer that is none: the walk goes no further from there."""
        place = self._terrain.locate(registers["rip"].value)
        return place is not None and place.symbol in USERS_SP and not self._stack_of_pointer(registers["rsp"].value)

    def _caller_bp(self, frame: Frame, cfa: int, row: OrcRow, own: RegisterValue | None) -> RegisterValue | None:
        """The caller's rbp by the row's second half."""
        if row.bp_reg == "undefined":
            return own
        base = cfa if row.bp_reg == "prev_sp" else None if own is None else own.value
        if base is None or row.bp_reg not in ("prev_sp", "bp"):
            return None
        address = base + row.bp_offset & U64
        value = self._word(address, f"saved rbp {bp_rule(row)}")
        return RegisterValue(value, f"saved at {address:#x} by frame #{frame.index}")

    def _check_progress(self, sp: int, new_sp: int, slot: int, may_stay: bool) -> None:
        """Within a stack the walk must go up; a stack that was left is not entered again.

        Code that a `ret` led to has its caller's stack pointer.
        """
        here, there = self._stack_of_pointer(sp), self._stack_of(slot)
        if there is None:
            raise _Stop(f"the stack pointer {new_sp:#x} is on none of this task's stacks")
        if here == there or here is None:
            if here is not None and (new_sp < sp or (new_sp == sp and not may_stay)):
                raise _Stop(f"the stack pointer does not move up: {sp:#x} to {new_sp:#x}")
            return
        self._enter(here, there)

    def _check_switch(self, frame: Frame, sp: int, slot: int) -> None:
        """An interrupted stack pointer may be on another stack, but on a known one that was not left before."""
        here, there = self._stack_of(slot), self._stack_of_pointer(sp)
        if there is None:
            raise _Stop(f"the interrupted stack pointer {sp:#x} is on none of this task's stacks")
        if here is None or here == there:
            if here is not None and not self._is_nested and is_nested_nmi(here, slot + IRET_SIZE, sp):
                self._is_nested = True
            elif sp <= slot:
                raise _Stop(f"the interrupted stack pointer does not move up: {slot:#x} to {sp:#x}")
            return
        self._enter(here, there)

    def _enter(self, here: Stack, there: Stack) -> None:
        self._left.add((here.kind, here.begin))
        if (there.kind, there.begin) in self._left:
            raise _Stop(f"the {there.kind} stack at {there.begin:#x} is entered a second time")


def _no_call(ip: int) -> str:
    return f"{ip:#x} does not follow a call"


def explained(frame: Frame, effective: Effective) -> Frame:
    """The frame with the rule that holds in it and where that came from."""
    corrected = effective.patch is not None and effective.patch.adjust != 0
    return replace(
        frame,
        rule=None if effective.rule is None else str(effective.rule),
        source=_source(effective, corrected),
        entry=effective.entry,
        patch=effective.patch,
        doubt=frame.doubt or effective.doubt,
        notes=(effective.why,) if effective.why and effective.rule else (),
    )


def _source(effective: Effective, corrected: bool) -> str:
    """The contract's word for what the rule was taken from."""
    if effective.thunk is not None:
        return effective.by
    return "none" if effective.entry is None else "patch" if corrected else "orc"


def _row_and_rule(effective: Effective, frame: Frame) -> tuple[OrcRow, CfaRule]:
    """The row and rule to step by; stops where there is none."""
    entry = effective.entry
    if effective.thunk is not None and effective.rule is not None:
        return effective.row or FUNCTION_ENTRY, effective.rule
    if entry is None:
        if frame.ip == 0 and frame.exact:
            # A call through a NULL pointer: the return address is on top of the stack (null_orc_entry).
            return FUNCTION_ENTRY, CfaRule("sp", 8)
        raise _Stop(f"no ORC row covers {frame.ip:#x}")
    if entry.row.type == "end_of_stack":
        if _NOT_OUTERMOST in frame.notes:
            raise _Stop(f"{_NOT_OUTERMOST} at {frame.ip:#x}")
        raise _Stop(None, "end")
    if effective.rule is None:
        raise _Stop(f"the ORC row for {frame.ip:#x} is undefined")
    return entry.row, effective.rule


def saved_registers(data: bytes, places: Mapping[str, int], what: str) -> dict[str, RegisterValue]:
    """Registers that were saved in `data` at the offsets `places`, each naming its place in `what`."""
    found = {}
    for name, at in places.items():
        size = 2 if name in _SELECTORS else 8  # 6.9 and later keep FRED's event data above a selector
        found[name] = RegisterValue(int.from_bytes(data[at : at + size], "little"), f"{what} +{at}")
    return found


def is_user(registers: Registers) -> bool:
    """True for registers of user mode: their code segment has privilege 3."""
    cs = registers.get("cs")
    return cs is not None and cs.value & 3 == 3


_KERNEL_CS, USER_CS = (0x10, 0x08, 0xE030), (0x33, 0x23, 0xE033, 0xE02B)


def implausible(registers: Registers, has_users_sp: bool = False) -> str | None:
    """Why these cannot be registers that an interrupt saved, or None; `has_users_sp` where the kernel runs with the user's."""
    cs, flags, sp = registers["cs"].value, registers["rflags"].value, registers["rsp"].value
    if cs in USER_CS:
        # The user's flags are whatever r11 held at a syscall instruction: seen in the lab with reserved bits set.
        return None if registers["ss"].value & 3 == 3 else f"cs is the user's, but ss is {registers['ss'].value:#x}"
    if cs not in _KERNEL_CS:
        return f"cs is {cs:#x}"
    # Reserved bits below 32 are zero on hardware; QEMU's emulator leaves in them what popf or sysret brought.
    if not flags & 2 or flags >> 32:
        return f"rflags is {flags:#x}"
    return None if sp >> 63 or has_users_sp else f"rsp is {sp:#x}"

"""Why does a walk doubt a frame, say something of it, or end?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from orcdbg.base.reasons import Reason
from orcdbg.kernel.stacks import StackKind

# What speaks against a frame.


class NoCallBefore(Reason):
    """The bytes before the return address are no call's. The walker looks at a few bytes; see `NoCallEndsAt`."""

    ip: int


class ReachedThroughDoubt(Reason):
    """A frame below, number `index`, is in doubt."""

    index: int


class ReachedThroughGuess(Reason):
    """A frame below, number `index`, is a guess."""

    index: int


class NothingConfirms(Reason):
    """Frame number `index` is contradicted, and the walk may have gone astray here: calls by pointers may lead elsewhere."""

    index: int


class UnlistedCode(Reason):
    """Code that the kernel has no list of: the rule is a guess."""


class CalledNoCode(Reason):
    """There is no code at the ip; a call or jump through a pointer led there, and nothing was run."""

    ip: int


class InUnlistedCode(Reason):
    """The return address is in code that the kernel has no list of: see `UnlistedCode`, which is for that code's own frame."""

    ip: int


class MayHaveRun(Reason):
    """The instruction of one byte at `address`, which an int3 stands for, may have been run elsewhere by now, or not."""

    address: int


class EntryHalfWritten(Reason):
    """function_graph may have been writing the entry that the return address is from."""


class NotBehindSwitch(Reason):
    """A sleeping task's saved ip does not follow the call of __switch_to_asm."""

    ip: int


# What the judge holds against a step.


class NothingBeginsAt(Reason):
    """The frame is the first of a stack, but neither start-up code nor a new task begins at its ip. The judge's."""

    ip: int


class CallLeadsElsewhere(Reason):
    """The call before the ip does not lead to the function of the frame below."""

    ip: int
    callee: str


class NoCallEndsAt(Reason):
    """Decoded from the function's start, no call ends at the ip: the bytes before it only look like one. The judge's."""

    ip: int


class PointerLeadsElsewhere(Reason):
    """An indirect call went through the pointer at `address`, and not to the function of the frame below."""

    offset: int
    register: str
    address: int
    callee: str


class RegisterLeadsElsewhere(Reason):
    """An indirect call went to `target`, which was in a register that functions keep, and not to the function below."""

    register: str
    target: int
    callee: str


class StackPointerAtOtherDepth(Reason):
    """The stack pointer is `depth` bytes below the CFA, which counts from rbp; by the instructions `least` to `most`."""

    depth: int
    least: int
    most: int


class RecordOfOtherFunction(Reason):
    """The tracer's record that the return address is from names another function, at `callee`, than the frame below is in."""

    callee: int


class NoInstructionAt(Reason):
    """The interrupted ip is inside an instruction."""

    ip: int


class NotSavedAtStackPointer(Reason):
    """An interrupt saves registers right below the stack pointer; these end elsewhere."""

    end: int
    sp: int


class FramePointerBehindReturn(Reason):
    """What should be the caller's rbp is an address behind a call of this function: rbp leads past the return address."""

    value: int


class NotAtUserRegisters(Reason):
    """A task begins with its stack pointer at the user's registers, and this one is elsewhere."""

    sp: int


class UserRegistersNotAtTop(Reason):
    """The user's registers do not end at the top of the task's stack."""

    end: int


class CannotGoOn(Reason):
    """The walk broke off at something that contradicts its last frame."""


# What a scan found.


class MaybeOfEarlierCall(Reason):
    """A return address that nothing vouches for."""


class ResumedByGuess(Reason):
    """The walk goes on from what a scan found: a return address, or a whole set of saved registers."""

    from_registers: bool


class TextOnStack(Reason):
    """An address of text; `is_behind_call` where a call ends there."""

    is_behind_call: bool


# What is said of a frame without a doubt.


class NotOutermost(Reason):
    """The row says end of stack, where no stack ends."""


class Overflowed(Reason):
    """The stack pointer is below its stack."""


class TailCalled(Reason):
    """The call before the ip enters function `called`, which goes on to `callee` by the jumps at these addresses."""

    called: str
    callee: str
    jumps: tuple[int, ...]


class SlotsCompared(Reason):
    """For a corrected frame: each looked-at slot, and whether the word in it follows a call."""

    slots: tuple[tuple[int, bool], ...]


class UserIpInRcx(Reason):
    """syscall put the user's ip into rcx, and sysret takes it from there."""


class IretWordsPushed(Reason):
    """Only the words that iret takes are saved yet."""


class UserRegistersRestored(Reason):
    """The user's registers are back in the CPU, and still on the stack."""


# Why a walk ends.


class Sought(enum.Enum):
    """What a walk wanted to read from a stack."""

    RETURN_SLOT = enum.auto()
    SAVED_REGISTER = enum.auto()
    SAVED_REGISTERS = enum.auto()


@dataclass(frozen=True, slots=True)
class SavedStackPointer:
    """A walk wanted the stack pointer that an indirect rule reads."""

    rule: str


@dataclass(frozen=True, slots=True)
class SavedFramePointer:
    """A walk wanted the caller's rbp, by a row's second half."""

    rule: str


Wanted = Sought | SavedStackPointer | SavedFramePointer


class Layout(enum.Enum):
    """What an interrupt leaves on a stack."""

    PT_REGS = enum.auto()
    IRET_FRAME = enum.auto()  # the CPU's five words


class TooManyFrames(Reason):
    """The walk reached its bound."""

    most: int


class NotOnStacks(Reason):
    """What was wanted is on none of the task's stacks."""

    wanted: Wanted
    address: int


class Unreadable(Reason):
    """What was wanted is not to be had; `fault` is the memory's own account."""

    wanted: Wanted
    fault: str


class RegisterUnknown(Reason):
    """The rule counts from a register that is not known in the frame."""

    rule: str
    register: str


class ReturnRegisterUnknown(Reason):
    """The return address is in a register that is not known in the frame."""

    register: str


class RegisterHoldsNoReturn(Reason):
    """The register that must have the return address has another value."""

    register: str
    value: int


class TrueReturnLost(Reason):
    """A named trampoline stands in for the return address, and the true one is not found, `why`."""

    slot: int
    trampoline: str
    why: Reason


class RecordsUnreadable(Reason):
    """The tracer's structures cannot be read."""

    fault: str


class RecordsWithoutSlots(Reason):
    """The tracer's structures do not say which slot each is of."""


class NoRecordOfSlot(Reason):
    """None of the tracer's structures names the slot."""

    structure: str


class ReplacedTooOften(Reason):
    """More trampolines stand in for one another than are followed."""

    slot: int
    most: int


class ReturnNotText(Reason):
    """The word in the return slot is no address of kernel text."""

    slot: int
    ip: int


class InterruptedNotText(Reason):
    """The interrupted ip is no address of kernel text."""

    slot: int
    ip: int


class RegisterImplausible(Reason):
    """No interrupt can have saved this value."""

    register: str
    value: int


class UserCodeOnKernelStack(Reason):
    """The code segment is the user's, the stack segment is not."""

    ss: int


Implausible = RegisterImplausible | UserCodeOnKernelStack


class NotSavedRegisters(Reason):
    """What lies there cannot be what an interrupt saved."""

    layout: Layout
    address: int
    why: Implausible


class StackPointerOffStacks(Reason):
    """The caller's stack pointer is on none of the task's stacks."""

    sp: int


class StackPointerNotUp(Reason):
    """Within a stack a caller's stack pointer is above its callee's."""

    sp: int
    new_sp: int


class InterruptedPointerOffStacks(Reason):
    """The interrupted stack pointer is on none of the task's stacks."""

    sp: int


class InterruptedPointerNotUp(Reason):
    """The interrupted stack pointer is not above the registers saved there."""

    slot: int
    sp: int


class StackEnteredTwice(Reason):
    """A walk comes back to a stack that it left."""

    kind: StackKind
    begin: int


class NoRow(Reason):
    """No ORC row covers the ip."""

    ip: int


class RowUndefined(Reason):
    """The row that covers the ip states no rule."""

    ip: int


class NoCallerHere(Reason):
    """The row at the ip says end of stack, where no stack ends."""

    ip: int


class SysenterKeepsNothing(Reason):
    """sysenter keeps neither ip nor stack pointer, and the kernel has not filled them in."""


# Of which time the registers are that a walk begins with.


class SwitchingFrom(Reason):
    """A CPU is about to leave the task for another, and has saved its registers."""

    cpu: int
    incoming: int


class SwitchingTo(Reason):
    """A CPU is on the task's stack already, while `current` is still the task that it comes from."""

    cpu: int
    outgoing: int


class MaybeSwitchingTo(Reason):
    """A CPU whose registers are not known has chosen the task to run next, and may be on its stack already."""

    cpu: int


class CurrentDisagrees(Reason):
    """A CPU that is in no switch has one task as its `current`, and another in its scheduler's queue: one word is damaged."""

    cpu: int
    current: int
    chosen: int


class MaybeOfEarlierEntry(Reason):
    """The user's registers are at the top of the stack, and may have been left there by an earlier entry."""


# Why there is no walk.


class CpuNotSaved(Reason):
    """The task runs on a CPU whose registers are not in the snapshot."""

    cpu: int | None


class WhereInXen(enum.Enum):
    """Why a virtual CPU's registers are not to be had."""

    ENTRY_CODE = enum.auto()  # the physical CPU was just saving or restoring them
    OTHER_STACK = enum.auto()  # it was handling an NMI or the like on a stack of its own
    NOT_FOUND = enum.auto()  # they are on no physical CPU, and in no structure of Xen's that leads back to this kernel


class HeldByXen(Reason):
    """The task runs on a virtual CPU that Xen has the registers of."""

    cpu: int
    where: WhereInXen


class RanMeanwhile(Reason):
    """The task is of the running kernel, and ran again and again while its stack was read."""


class StartUnreadable(Reason):
    """The registers to begin with cannot be read."""

    fault: str


class StackGone(Reason):
    """The task gave its stack back."""


class StackPointerElsewhere(Reason):
    """A sleeping task's saved stack pointer is not on its stack."""

    begin: int


class OnlyText(Reason):
    """The frames are text addresses on the stack; nobody walked."""

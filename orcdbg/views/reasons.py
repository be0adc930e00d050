"""In which words is a reason said?

One line a reason, for people and for the prose fields of the JSON contract. No code decides by these words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reasons import Reason
from orcdbg.orc import reasons as orc
from orcdbg.unwind import reasons as unwind

_UNLISTED = "code that the kernel has no list of, as of classic socket filters: by frame pointer, which is a guess"
_NO_CALLER = "ORC has no caller here, and this is not the first frame of a stack (entry or exit code)"

_ORIGINALS = {
    orc.Original.FTRACE_TRAMPOLINE: "ftrace's own trampoline",
    orc.Original.PROBED_INSTRUCTION: "the probed instruction",
    orc.Original.PROBED_INSTRUCTIONS: "the probed instructions",
    orc.Original.BEHIND_PROBED: "what follows the probed instruction",
}
_IN_XEN = {
    unwind.WhereInXen.ENTRY_CODE: "Xen was just saving or restoring",
    unwind.WhereInXen.OTHER_STACK: "Xen had not yet saved: it was handling an NMI, or the like",
    unwind.WhereInXen.NOT_FOUND: "are on no physical CPU, and Xen's own record of them was not found",
}
_LAYOUTS = {
    unwind.Layout.PT_REGS: "pt_regs",
    unwind.Layout.IRET_FRAME: "interrupt frame",
}
_SOUGHT = {
    unwind.Sought.RETURN_SLOT: "return address slot",
    unwind.Sought.SAVED_REGISTER: "saved register",
    unwind.Sought.SAVED_REGISTERS: "saved registers",
}


def _wanted(wanted: unwind.Wanted) -> str:
    if isinstance(wanted, unwind.SavedStackPointer):
        return f"saved stack pointer ({wanted.rule})"
    if isinstance(wanted, unwind.SavedFramePointer):
        return f"saved rbp {wanted.rule}"
    return _SOUGHT[wanted]


def _other_depth(reason: unwind.StackPointerAtOtherDepth) -> str:
    is_one = reason.least == reason.most
    here = f"{reason.least:#x}" if is_one else f"between {reason.least:#x} and {reason.most:#x}"
    return f"the stack pointer is {reason.depth:#x} bytes below the CFA, and by the function's instructions {here}"


def _in_register(reason: orc.ReturnAddressInRegister) -> str:
    here = f"the return address is in {reason.register} here"
    return f"{here}; the registers are all saved" if reason.are_all_saved else f"{here}, until all registers are saved"


def _left_out_of_orc(reason: orc.LeftOutOfOrc) -> str:
    confirmed = ", and .debug_frame says the same" if reason.is_confirmed else ""
    return f"this function was left out of ORC: the rule follows from its instructions{confirmed}"


def _compared(reason: unwind.SlotsCompared) -> str:
    said = {True: "follows a call", False: "is not a return address"}
    return ", ".join(f"[{slot & 0xFFF:03x}] {said[is_call]}" for slot, is_call in reason.slots)


def _tail_called(reason: unwind.TailCalled) -> str:
    jumps = ", ".join(f"{address:#x}" for address in reason.jumps)
    plural = "s" if len(reason.jumps) > 1 else ""
    return f"the call before it enters {reason.called}, which goes on to {reason.callee} by the jump{plural} at {jumps}"


# A template's `r` is the reason.
_WORDS: dict[type[Reason], str | Callable[[Any], str]] = {
    # Why a rule holds that is not the row as built.
    orc.StandsForReturnAddress: (
        "this code stands in for a return address; its rule follows from its instructions, the caller from {r.holder.value}"
    ),
    orc.InsideThunk: "no ORC row holds inside this thunk: the rule follows from its instructions",
    orc.InsideHypercall: "no ORC row holds inside what Xen wrote for a hypercall: the rule follows from its instructions",
    orc.BesideXen: "no ORC row holds where Xen and the kernel hand over to each other: the rule follows from the instructions",
    orc.BpfFrame: "BPF code has no ORC rows: the rule follows from its frame pointer",
    orc.CopiedCode: lambda r: f"a copy of {_ORIGINALS[r.original]}, whose row holds here",
    orc.BehindFtraceCopy: "the return behind a copy of ftrace's trampoline",
    orc.KprobeDetour: ("the detour of an optimised kprobe: the probed instruction's row, and what the detour pushed"),
    orc.RegistersAtResult: (
        "the row describes the state before error_entry returned; rax holds the address of the registers it saved"
    ),
    orc.RegistersSavedSince: ("the row describes the state before the call, and all registers have been saved since"),
    orc.ReturnAddressInRegister: _in_register,
    orc.CallerLeftOut: (
        "the row leaves out who called this function; the return address is right below the saved registers"
    ),
    orc.LeftOutOfOrc: _left_out_of_orc,
    # What is in doubt about a rule.
    orc.DepthsDiffer: "derived, and not uniquely: paths through this function come here with different stack pointers",
    orc.BehindUnreadTable: "derived, and this function jumps by a table that could not be read: a path may be missing",
    orc.WayUnknown: "derived, and no way was found that leads here: a function is assumed to begin here or before",
    orc.FollowedTooLong: "derived, and not all paths through this function were followed to their ends",
    orc.NoRuleInThunk: "no rule is known inside {r.symbol}",
    orc.CallerInUnknownRegister: ("who called error_entry is in r12, which is not known here: that caller is left out"),
    orc.SavingFunctionUnknown: ("the text of this function is missing or unknown: its caller may be left out"),
    orc.PatchedTextMissing: (
        "patched text is not in the snapshot and cannot be replayed; whether the row still holds is not known"
    ),
    orc.InsidePatchedInstruction: "{r.ip:#x} is inside an instruction of the patched text",
    orc.NotBehindPatchedCall: "{r.ip:#x} does not follow a call of the patched text",
    orc.StackPointerNotFollowed: "the patched text sets the stack pointer in a way not followed",
    orc.RowBeganTooFarBack: (
        "its row began {r.size} bytes before; whether a patch moved the stack there was not looked at"
    ),
    orc.NoText: (
        "the text is not in the snapshot, and there is no image: whether a patch moved the stack is not known"
    ),
    orc.FillsReturnStack: (
        "this is in code that fills the return stack buffer, whose depth is not followed without its tables"
    ),
    orc.NotABoundarySinceRow: "no instruction begins at {r.ip:#x}, counted from the beginning of its row",
    orc.TookMoreThanPut: "instructions since its row began took more from the stack than they put there",
    # What speaks against a frame.
    unwind.NoCallBefore: "{r.ip:#x} does not follow a call",
    unwind.ReachedThroughDoubt: "reached through frame #{r.index}, which is in doubt",
    unwind.NothingConfirms: "frame #{r.index} is contradicted, and nothing confirms the step from here on the way to it",
    unwind.ReachedThroughGuess: "reached through frame #{r.index}, which is a guess",
    unwind.UnlistedCode: _UNLISTED,
    unwind.InUnlistedCode: "{r.ip:#x} is in " + _UNLISTED,
    unwind.CalledNoCode: (
        "there is no code at {r.ip:#x}, and a pointer led here: the return address of that call is on top of the stack"
    ),
    unwind.MayHaveRun: "the instruction at {r.address:#x}, which an int3 stands for, may have been run already",
    unwind.EntryHalfWritten: (
        "function_graph was just taking this return address: its entry may be from an earlier call"
    ),
    unwind.NotBehindSwitch: "the saved ip {r.ip:#x} does not follow the call of __switch_to_asm",
    unwind.NothingBeginsAt: "nothing puts {r.ip:#x} at the beginning of a stack",
    unwind.CallLeadsElsewhere: "the call before {r.ip:#x} does not lead to {r.callee}",
    unwind.NoCallEndsAt: "no instruction that ends at {r.ip:#x} is a call",
    unwind.PointerLeadsElsewhere: (
        "the call went through {r.offset:#x}({r.register}), {r.address:#x}, and not to {r.callee}"
    ),
    unwind.RegisterLeadsElsewhere: "the call went to {r.target:#x}, which was in {r.register}, and not to {r.callee}",
    unwind.StackPointerAtOtherDepth: _other_depth,
    unwind.RecordOfOtherFunction: "the tracer's record of this return address is of another function, at {r.callee:#x}",
    unwind.NoInstructionAt: "no instruction begins at {r.ip:#x}",
    unwind.NotSavedAtStackPointer: (
        "the registers saved below {r.end:#x} were not saved at the stack pointer {r.sp:#x}"
    ),
    unwind.FramePointerBehindReturn: (
        "rbp leads past the return address: where the caller's rbp should be is {r.value:#x}, behind a call of this function"
    ),
    unwind.NotAtUserRegisters: (
        "a task begins with its stack pointer at the user's registers at the top of its stack, not at {r.sp:#x}"
    ),
    unwind.UserRegistersNotAtTop: ("the user's registers end at {r.end:#x}, not at the top of the task's stack"),
    unwind.CannotGoOn: "the walk cannot go on from here: this frame, or what it saved, is not right",
    # What a scan found.
    unwind.MaybeOfEarlierCall: "a return address, maybe of an earlier call",
    unwind.ResumedByGuess: lambda r: (
        f"the walk goes on here by a guess, from {'saved registers' if r.from_registers else 'a return address'}"
        " that a scan found"
    ),
    unwind.TextOnStack: lambda r: "text, behind a call" if r.is_behind_call else "text, not behind a call",
    # What is said of a frame without a doubt.
    unwind.NotOutermost: _NO_CALLER,
    unwind.Overflowed: "the stack pointer is in the guard page below the stack, which has overflowed",
    unwind.SlotsCompared: _compared,
    unwind.TailCalled: _tail_called,
    unwind.UserIpInRcx: (
        "no registers are saved here; the user's ip is in rcx, where syscall put it and sysret takes it from"
    ),
    unwind.IretWordsPushed: (
        "the registers are not all saved here; the words that iret takes are at the top of the task's stack"
    ),
    unwind.UserRegistersRestored: ("the user's registers are restored; they still lie at the top of the task's stack"),
    unwind.MaybeOfEarlierEntry: (
        "the registers at the top of the task's stack, maybe of an earlier entry into the kernel"
    ),
    unwind.MaybeSwitchingTo: (
        "CPU {r.cpu}, whose registers are not in the snapshot, has chosen this task to run next, and may be on its stack"
    ),
    unwind.CurrentDisagrees: (
        "CPU {r.cpu} is in no switch of tasks, but its `current` names task {r.current:#x} and its scheduler task"
        " {r.chosen:#x}"
    ),
    unwind.SwitchingFrom: (
        "CPU {r.cpu} is in the middle of a switch from this task to task {r.incoming:#x}: `current` still names this one,"
        " whose registers are those that the switch has saved"
    ),
    unwind.SwitchingTo: (
        "CPU {r.cpu} is in the middle of a switch to this task: it is on its stack already, while `current` still names"
        " task {r.outgoing:#x}"
    ),
    # Why a walk ends.
    unwind.TooManyFrames: "more than {r.most} frames",
    unwind.NotOnStacks: lambda r: f"{_wanted(r.wanted)} at {r.address:#x} is on none of this task's stacks",
    unwind.Unreadable: lambda r: f"{_wanted(r.wanted)}: {r.fault}",
    unwind.RegisterUnknown: "the rule {r.rule} needs {r.register}, which is not known in this frame",
    unwind.ReturnRegisterUnknown: ("the return address is in {r.register} here, which is not known in this frame"),
    unwind.RegisterHoldsNoReturn: (
        "{r.register}, {r.value:#x}, should hold the address behind a call of this function"
    ),
    unwind.TrueReturnLost: lambda r: (
        f"the return address in {r.slot:#x} was replaced by {r.trampoline}, and {words(r.why)}"
    ),
    unwind.RecordsUnreadable: "the true one cannot be read: {r.fault}",
    unwind.RecordsWithoutSlots: "this kernel does not say which entry is of this slot",
    unwind.NoRecordOfSlot: "no {r.structure} names this slot",
    unwind.ReplacedTooOften: "the return address in {r.slot:#x} was replaced more than {r.most} times",
    unwind.ReturnNotText: "the word in return slot {r.slot:#x}, {r.ip:#x}, is not an address of kernel text",
    unwind.InterruptedNotText: ("the interrupted ip in {r.slot:#x}, {r.ip:#x}, is not an address of kernel text"),
    unwind.RegisterImplausible: "{r.register} is {r.value:#x}",
    unwind.UserCodeOnKernelStack: "cs is the user's, but ss is {r.ss:#x}",
    unwind.NotSavedRegisters: lambda r: (
        f"{_LAYOUTS[r.layout]} {r.address:#x} cannot be saved registers: {words(r.why)}"
    ),
    unwind.StackPointerOffStacks: "the stack pointer {r.sp:#x} is on none of this task's stacks",
    unwind.StackPointerNotUp: "the stack pointer does not move up: {r.sp:#x} to {r.new_sp:#x}",
    unwind.InterruptedPointerOffStacks: ("the interrupted stack pointer {r.sp:#x} is on none of this task's stacks"),
    unwind.InterruptedPointerNotUp: ("the interrupted stack pointer does not move up: {r.slot:#x} to {r.sp:#x}"),
    unwind.StackEnteredTwice: "the {r.kind.value} stack at {r.begin:#x} is entered a second time",
    unwind.NoRow: "no ORC row covers {r.ip:#x}",
    unwind.RowUndefined: "the ORC row for {r.ip:#x} is undefined",
    unwind.NoCallerHere: _NO_CALLER + " at {r.ip:#x}",
    unwind.SysenterKeepsNothing: (
        "sysenter keeps neither the user's ip nor its stack pointer, and the kernel has not filled them in"
    ),
    # Why there is no walk.
    unwind.HeldByXen: lambda r: f"running on virtual CPU {r.cpu}, whose registers {_IN_XEN[r.where]}",
    unwind.CpuNotSaved: "running on CPU {r.cpu}, whose registers are not in the snapshot",
    unwind.RanMeanwhile: "the task ran again and again while its stack was read",
    unwind.StartUnreadable: "the starting registers cannot be read: {r.fault}",
    unwind.StackGone: "the task has no stack any more (it has exited)",
    unwind.StackPointerElsewhere: "thread.sp is not on the task's stack at {r.begin:#x}",
    unwind.OnlyText: "these are the text addresses on the stack, not who called whom",
}


def words(reason: Reason) -> str:
    """A reason in English, without a full stop."""
    said = _WORDS[type(reason)]
    return said.format(r=reason) if isinstance(said, str) else said(reason)


def message_of(error: OrcdbgError) -> str:
    """An error's message, with its reason where it has one."""
    return error.message if error.reason is None else f"{error.message}: {words(error.reason)}"


def words_or_none(reason: Reason | None) -> str | None:
    """The same for JSON, where no reason is null."""
    return None if reason is None else words(reason)

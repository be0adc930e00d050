"""Why does a CFA rule hold that is not the row as built, and what is in doubt about a rule?"""

from __future__ import annotations

import enum

from orcdbg.base.reasons import Reason


class Holder(enum.Enum):
    """Where the true return address is while the code runs that stands in for it; values as the reason shows them."""

    RECORD = "record"  # the tracer's own structures
    SLOT = "slot"  # back on the stack
    RESULT = "rax"  # what the tracer's handler returned
    ARGUMENT = "rdi"


class Original(enum.Enum):
    """What code was copied from."""

    FTRACE_TRAMPOLINE = enum.auto()
    PROBED_INSTRUCTION = enum.auto()
    PROBED_INSTRUCTIONS = enum.auto()
    BEHIND_PROBED = enum.auto()


# Why a rule holds that is not the row as built.


class StandsForReturnAddress(Reason):
    """Inside the code that a replaced return address leads to; the true address is with `holder`."""

    holder: Holder


class InsideThunk(Reason):
    """Inside a speculation thunk, by its instructions."""


class InsideHypercall(Reason):
    """Inside what Xen wrote for the hypercall of that number, by its instructions."""

    number: int


class BesideXen(Reason):
    """Where Xen begins or ends code of a PV kernel, by its instructions."""


class BpfFrame(Reason):
    """Inside BPF code, by its frame pointer."""


class CopiedCode(Reason):
    """Inside a copy of code that has a row."""

    original: Original


class BehindFtraceCopy(Reason):
    """At the return that the kernel put behind its copy of an ftrace trampoline."""


class KprobeDetour(Reason):
    """Inside the detour of an optimised kprobe."""


class RegistersAtResult(Reason):
    """error_entry has just returned, with the address of the registers that it saved in rax."""


class RegistersSavedSince(Reason):
    """The row describes the state before a call that has saved all registers since."""


class ReturnAddressInRegister(Reason):
    """The return address is on no stack, but in this register; `are_all_saved` where the whole pt_regs is written."""

    register: str
    are_all_saved: bool


class CallerLeftOut(Reason):
    """The row leaves out the caller, whose return address is right below the saved registers."""


class LeftOutOfOrc(Reason):
    """A function without rows, by its instructions; `is_confirmed` where call frame information says the same."""

    is_confirmed: bool


# What is in doubt about a rule.


class DepthsDiffer(Reason):
    """Derived: paths through the function come here with different stack pointers."""


class BehindUnreadTable(Reason):
    """Derived: the function jumps by a table that was not read, so that a path may be missing."""


class WayUnknown(Reason):
    """Derived: no way was found that leads here, and a function is assumed to begin there or before."""


class FollowedTooLong(Reason):
    """Derived: the function's paths were not followed to their ends."""


class NoRuleInThunk(Reason):
    """A thunk's instructions do not tell."""

    symbol: str


class CallerInUnknownRegister(Reason):
    """error_entry's caller is in r12, whose value is not known in this frame."""


class SavingFunctionUnknown(Reason):
    """The text of error_entry, or of its like, is missing or does not look as expected."""


class PatchedTextMissing(Reason):
    """Patched text is neither in the snapshot nor can it be replayed."""


class InsidePatchedInstruction(Reason):
    """The ip is no instruction boundary of the patched text."""

    ip: int


class NotBehindPatchedCall(Reason):
    """No call of the patched text returns to the ip."""

    ip: int


class StackPointerNotFollowed(Reason):
    """The patched text sets the stack pointer in a way that is not followed."""


# What is in doubt where the tables of patched places are lost.


class RowBeganTooFarBack(Reason):
    """The row began `size` bytes before, more than are looked at."""

    size: int


class NoText(Reason):
    """There is no text to look for patches in."""


class FillsReturnStack(Reason):
    """Beside code that fills the return stack buffer."""


class NotABoundarySinceRow(Reason):
    """No instruction begins at the ip, counted from the beginning of its row."""

    ip: int


class TookMoreThanPut(Reason):
    """Instructions since the row's beginning took more from the stack than they put there."""

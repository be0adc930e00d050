"""Which rows hold in entry code, which nobody calls, and where the stack holds what an exception or system call has saved?

objtool is told by annotations, of which nothing is left in the text but the rows. What can be known without them: the CPU
goes to the handlers of the interrupt descriptor table with its five words on the stack, above which some vectors push an error
code; it comes to the entries of system calls with the user's stack pointer. From there the words are followed through the
whole entry text, along jumps from symbol to symbol. Where all registers lie on the stack in the order of pt_regs, the
row is one of registers; where only the CPU's five words do, or copies of them, one of these.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from orcdbg.base.errors import MemoryFault
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.derivation import (
    CFA,
    FunctionRows,
    FunctionText,
    NeverReturning,
    Tracing,
    at_entry,
    row_of,
    row_of_function,
)
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.entry_code import SavingFunctions
from orcdbg.patches.code import Code
from orcdbg.x86.registers import IRET_FRAME, PT_REGS, PT_REGS_SIZE
from orcdbg.x86.stack_words import NOT_KEPT, REGISTERS, SET, WORD, Distance, KnownWords

MAX_ENTRY_TEXT = 1 << 17
_VECTORS, _GATE = 256, 16
# Intel SDM volume 3, 6.15; 21 is #CP, 29 and 30 are AMD's #VC and #SX.
_WITH_ERROR_CODE = (8, 10, 11, 12, 13, 14, 17, 21, 29, 30)
_ENTRY_NAMES, _NO_ENTRIES = (
    ("asm_", "xen_asm_", "irq_entries_start", "spurious_entries_start"),
    ("asm_load_gs_index", "asm_call_on_stack", "asm_call_irq_on_stack"),
)
_ALIGNED = 16
_SYSTEM_CALLS = ("entry_SYSCALL_64", "entry_SYSCALL_compat", "entry_SYSENTER_compat")
_FRED = ("asm_fred_entrypoint_user", "asm_fred_entrypoint_kernel")
# These put the stack pointer to the user's registers themselves (5.10 to today, and to 5.15).
REWOUND = ("rewind_stack_and_make_dead", "rewind_stack_do_exit")
START_UP = ("secondary_startup_64", "common_startup_64", "startup_64", "asm_cpu_bringup_and_idle", "start_cpu0")
# Outside of entry text (arch/x86/xen/xen-asm.S, arch/x86/kernel/head_64.S): what lies on the stack is not followed.
ENTERED = ("xen_asm_", "xen_entry_SYS", "xen_sys", "xen_iret", "xen_early_idt_handler", "early_idt_handler_")
SWITCH = ("__switch_to_asm",)

SAVED = "saved"
"""What the address of the CPU's five words counts from, once they are known."""

_FIVE = tuple(IRET_FRAME.values())
_KEPT_ORDER = ("r15", "r14", "r13", "r12", "rbp", "rbx")  # the first six words of a pt_regs
_RIP = PT_REGS["rip"]
_FIVE_WORDS = Distance(SAVED, 0)
_REGISTERS = Distance(SAVED, -_RIP)  # where a whole pt_regs begins
END_ROW = OrcRow(OrcRegister.UNDEFINED, 0, OrcRegister.UNDEFINED, 0, RowType.END_OF_STACK, False)


def _iret_words(at: int) -> dict[Distance, Distance]:
    return {Distance(SAVED, at + offset): Distance("iret", offset) for offset in _FIVE}


def at_exception(error_code: bool) -> KnownWords:
    """Where the CPU goes to with its five words on the stack, and below them an error code or not."""
    registers = {name: Distance(name, 0) for name in REGISTERS}
    registers["rsp"] = Distance(SAVED, -WORD if error_code else 0)
    return KnownWords(registers, _iret_words(0))


def at_system_call() -> KnownWords:
    """Where the CPU goes to with the user's stack pointer, and all registers the user's."""
    registers = {name: Distance(name, 0) for name in REGISTERS}
    registers["rsp"] = Distance("user", 0)
    return KnownWords(registers, {})


def with_saved(words: KnownWords, at: Distance) -> KnownWords:
    """A state with a whole pt_regs at `at`, in the one way in which it is said: all ways that lead here look the same."""
    sp = words.sp
    if sp is None:
        return words

    def moved(value: Distance) -> Distance:
        return Distance(SAVED, value.offset - at.offset - _RIP) if value.name == at.name else value

    stack = _iret_words(0)
    stack |= {Distance(SAVED, PT_REGS[name] - _RIP): Distance(name, 0) for name in _KEPT_ORDER}
    # What was pushed below them stays, such as a return address.
    for place, value in words.stack.items():
        if place.name == at.name and place.offset < at.offset:
            stack[moved(place)] = moved(value)
    registers = {name: moved(value) for name, value in words.registers.items() if value.name == at.name}
    return KnownWords(registers, stack, words.is_disputed, words.is_first)


def _moved_to(words: KnownWords, at: Distance) -> KnownWords:
    """The same where the CPU's five words at `at`, a copy of the first ones, are those that count from now on."""

    def moved(value: Distance) -> Distance:
        return Distance(SAVED, value.offset - at.offset) if value.name == at.name else value

    registers = {name: moved(value) for name, value in words.registers.items() if value.name in (at.name, name)}
    stack = {moved(place): moved(value) for place, value in words.stack.items() if place.name == at.name}
    return words._replace(registers=registers, stack=stack)


def settle(words: KnownWords) -> KnownWords:
    """A state after each change: where that completes a pt_regs, it is said as `with_saved` says it.

    By then the other registers may have been cleared, or not; that makes no difference behind this point.
    """
    sp = words.sp
    if sp is None:
        return words
    if words.is_first and words.registers.get("rdi") == _REGISTERS:
        words = words._replace(is_first=False)  # what is called now gets the user's registers: they are above
    if all(words.stack.get(sp.plus(8 * number)) == Distance(name, 0) for number, name in enumerate(_KEPT_ORDER)):
        return with_saved(words, sp)
    if sp != _FIVE_WORDS and all(words.stack.get(sp.plus(offset)) == Distance("iret", offset) for offset in _FIVE):
        return _moved_to(words, sp)
    if sp.name.startswith(SET) and sp.offset == -PT_REGS_SIZE:
        # A system call's stack is built from nothing, to 4.15 without the registers that functions keep.
        return with_saved(words, sp)
    if sp == _FIVE_WORDS and _REGISTERS in words.stack:
        # All that was pushed below them has been taken back.
        return words._replace(stack={p: v for p, v in words.stack.items() if p.name != SAVED or p.offset >= 0})
    return words


def saved_row(words: KnownWords) -> tuple[OrcRow, CfaRule | None]:
    """The row that a state in entry code stands for: END_OF_STACK where no way on is known."""
    if words.is_first:
        return END_ROW, None
    has_regs = all(words.stack.get(Distance(SAVED, PT_REGS[name] - _RIP)) == Distance(name, 0) for name in _KEPT_ORDER)
    found = row_of(words, *_REGISTERS, RowType.REGS) if has_regs else None
    if found is not None:
        return found[0]._replace(bp_reg=OrcRegister.UNDEFINED, bp_offset=0), found[1]
    partial = _partial(words)
    if partial is not None:
        return partial
    return row_of_function(words) or (END_ROW, None)


def _partial(words: KnownWords) -> tuple[OrcRow, CfaRule | None] | None:
    """The row of the lowest five words that an iret could take, at or above the stack pointer if it counts from there."""
    sp = words.sp
    places = [
        place
        for place, value in words.stack.items()
        if value == Distance("iret", 0) and all(words.stack.get(place.plus(o)) == Distance("iret", o) for o in _FIVE)
    ]
    own = [place for place in places if sp is not None and place.name == sp.name and place.offset >= sp.offset]
    for place in sorted(own, key=lambda place: place.offset) or sorted(places, key=lambda place: place.offset):
        found = row_of(words, place.name, place.offset, RowType.REGS_PARTIAL)
        if found is not None and (found[0].sp_reg is not OrcRegister.SP or found[1].offset >= 0):
            row, rule = found
            return row._replace(bp_reg=OrcRegister.UNDEFINED, bp_offset=0), rule
    return None


def first_functions(code: Code) -> tuple[str, ...]:
    """Where a task begins: since 6.6 (3aec4ecb3d1f) ret_from_fork is what that calls."""
    since = "ret_from_fork_asm"
    return ("ret_from_fork",) if code.linux.find_address(since) is None else (since,)


def after_call(words: KnownWords) -> KnownWords | None:
    """Behind a call that got the stack pointer, with saved registers there: a stack pointer that it gives back is of a copy.

    sync_regs and fixup_bad_iret do so, which move the registers to the task's stack.
    """
    sp = words.sp
    if sp is None or sp.name != SAVED or words.registers.get("rdi") != sp:
        return None
    return words.without(NOT_KEPT).below_gone().with_register("rax", sp)


def first_of_task() -> KnownWords:
    """Where a task begins, with its stack pointer at the user's registers."""
    return with_saved(at_system_call(), Distance("user", 0))._replace(is_first=True)


def settle_switched(words: KnownWords) -> KnownWords:
    """In the switch of tasks: the next task's stack has the same words on it as the one that is left."""
    sp = words.sp
    if sp is None or not sp.name.startswith(SET):
        return words
    lowest = min((place.offset for place in words.stack if place.name == CFA), default=-WORD)
    return words.with_register("rsp", Distance(CFA, lowest))


def settle_rewound(words: KnownWords) -> KnownWords:
    """Where the stack pointer is put back to the user's registers, whatever lies below."""
    sp = words.sp
    return with_saved(words, sp) if sp is not None and sp.name.startswith(SET) else words


class EntryText:
    """The kernel's entry text.

    Args:
        code: the kernel.
        never_returns: which functions never come back.
    """

    def __init__(self, code: Code, never_returns: NeverReturning) -> None:
        self._code = code
        self._never_returns = never_returns
        self._linux = code.linux

    @functools.cached_property
    def bounds(self) -> tuple[int, int]:
        """[start, end) of the section, empty where no symbol tells."""
        start, end = (self._linux.find_address(f"__entry_text_{name}") for name in ("start", "end"))
        if start is None or end is None or not start < end <= start + MAX_ENTRY_TEXT:
            return 0, 0
        return start, end

    @functools.cached_property
    def _handlers(self) -> dict[int, bool]:
        """Where the CPU goes to for exceptions and interrupts, and whether it pushes an error code; none without a table."""
        table = self._linux.find_address("idt_table")
        found: dict[int, bool] = {}
        try:
            data = b"" if table is None else self._linux.memory.read(table, _VECTORS * _GATE)
        except MemoryFault:
            data = b""
        for vector in range(len(data) // _GATE):
            low, high = (int.from_bytes(data[at : at + 8], "little") for at in (16 * vector, 16 * vector + 8))
            handler = low & 0xFFFF | low >> 32 & 0xFFFF_0000 | (high & 0xFFFF_FFFF) << 32
            if handler and self._code.is_text(handler):
                found.setdefault(handler, vector in _WITH_ERROR_CODE)
        return found

    def holds(self, place: Location) -> bool:
        """Whether a symbol is of entry text, or one that the CPU itself goes to."""
        start, end = self.bounds
        return start <= place.start < end or any(
            place.start <= handler < place.start + place.size for handler in self._handlers
        )

    @functools.cached_property
    def _saving(self) -> SavingFunctions:
        names = ("error_entry", "paranoid_entry", "xen_error_entry")
        starts = [address for name in names if (address := self._linux.find_address(name)) is not None]
        return SavingFunctions(starts, self._code.memory)

    def _after_call(self, target: int | None, words: KnownWords) -> KnownWords | None:
        """Behind a call of error_entry or its like, which leaves a whole pt_regs on the stack."""
        function, sp = None if target is None else self._saving.near(target), words.sp
        if function is None or function.start != target or sp is None:
            return after_call(words)
        # To 4.15 the caller makes room, and only the words are written (SAVE_C_REGS).
        begin = sp.plus(-PT_REGS["orig_rax"]) if function.pushes else sp
        return with_saved(words.with_register("rsp", begin), begin).with_register("rax", _REGISTERS)

    @functools.cached_property
    def derivation(self) -> FunctionRows | None:
        """All rows of entry text; None where that is not to be had."""
        start, end = self.bounds
        if not start:
            return None
        text = FunctionText(self._code, Location("entry text", start, end - start, None, True))
        if not text.ranges:
            return None
        tracing = Tracing(text, self._never_returns, self._after_call, settle)
        begin = {handler: at_exception(has_code) for handler, has_code in self._handlers.items() if text.holds(handler)}
        for names, words in ((_SYSTEM_CALLS, at_system_call()), (_FRED, at_exception(True))):
            for name in names:
                address = self._linux.find_address(name)
                if address is not None and text.holds(address):
                    begin[address] = words
        for name in first_functions(self._code):
            address = self._linux.find_address(name)
            if address is not None and text.holds(address):
                begin[address] = first_of_task()
        tracing.follow(begin)
        # What no gate leads to may be an entry of another boot, or of a hypervisor's; the rest is called, as functions are.
        unmet = [place for place in self._symbols() if place.start not in tracing.known]
        entries = {place.start: at_exception(not _pushes_number(text, place)) for place in unmet if _is_entry(place)}
        tracing.follow(entries)
        for place in unmet:
            if place.start not in tracing.known:
                # Labels inside of code are not aligned as what is called is.
                tracing.follow({place.start: called()}, is_guessed=place.start % _ALIGNED != 0)
        return FunctionRows(tracing, text, saved_row)

    def _symbols(self) -> Iterator[Location]:
        """The symbols of entry text, in the order of their addresses."""
        address, end = self.bounds
        while address < end:
            place = self._code.locate(address)
            if place is None or place.size <= 0:
                address += 1
                continue
            yield place
            address = place.start + place.size


def _is_entry(place: Location) -> bool:
    return place.symbol.startswith(_ENTRY_NAMES) and place.symbol not in _NO_ENTRIES


def _pushes_number(text: FunctionText, place: Location) -> bool:
    """Whether an entry pushes a word of its own where the CPU may push an error code: then the CPU pushes none."""
    address = place.start
    while (insn := text.instruction(address)) is not None and address < place.start + place.size:
        if insn.mnemonic.startswith("push") and insn.operands.startswith("$"):
            return True
        if insn.mnemonic.startswith(("call", "j")):
            return False
        address = insn.end
    return False


def called() -> KnownWords:
    """At the start of a function that may save registers: what they hold has a name each."""
    words = at_entry()
    return words._replace(registers={name: Distance(name, 0) for name in REGISTERS} | {"rsp": Distance(CFA, -WORD)})

"""How does crash print a stack?

The form of its lines is that of crash 8 on x86-64, which scripts read; the frames are ours, also where crash finds
others. A guess, and where a walk stopped, are said at the end of a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from orcdbg.commands.crash import CrashStacks
from orcdbg.commands.stack_words import FrameWords
from orcdbg.commands.stacks import FrameKey
from orcdbg.kernel.stacks import StackKind
from orcdbg.unwind.frame import End, Frame, FrameKind, Registers, StackTrace
from orcdbg.unwind.starts import INACTIVE
from orcdbg.views.as_json import encode
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.reasons import words_or_none
from orcdbg.views.stack_pieces import TextWriter, json_pieces, text_pieces
from orcdbg.views.view import Width, view

Offsets = Callable[[int], str]
_STACKS = {
    StackKind.IRQ: "IRQ stack",
    StackKind.NMI: "NMI exception stack",
    StackKind.DF: "DOUBLEFAULT exception stack",
    StackKind.DB: "DEBUG exception stack",
    StackKind.MCE: "MCE exception stack",
    StackKind.VC: "VC exception stack",
    StackKind.ENTRY: "ENTRY_TRAMPOLINE stack",
    StackKind.SOFTIRQ: "IRQ stack",
}
_ROWS = (
    (("RIP", "rip"), ("RSP", "rsp"), ("RFLAGS", "rflags")),
    (("RAX", "rax"), ("RBX", "rbx"), ("RCX", "rcx")),
    (("RDX", "rdx"), ("RSI", "rsi"), ("RDI", "rdi")),
    (("RBP", "rbp"), (" R8", "r8"), (" R9", "r9")),
    (("R10", "r10"), ("R11", "r11"), ("R12", "r12")),
    (("R13", "r13"), ("R14", "r14"), ("R15", "r15")),
    (("ORIG_RAX", "orig_rax"), ("CS", "cs"), ("SS", "ss")),
)
_DIGITS = {"rflags": 8, "cs": 4, "ss": 4}


def crash_header(trace: StackTrace) -> Line:
    """Whose stack it is."""
    cpu = "-" if trace.cpu is None else str(trace.cpu)
    return line((f'PID: {trace.pid:<7}  TASK: {trace.task:x}  CPU: {cpu:<3}  COMMAND: "{trace.comm}"', "header"))


def register_lines(registers: Registers) -> Iterator[Line]:
    """Saved registers, those that are known."""
    for row in _ROWS:
        known = [(label, name, registers[name].value) for label, name in row if name in registers]
        if known:
            words = [f"{label}: {value:0{_DIGITS.get(name, 16)}x}" for label, name, value in known]
            yield line("    " + "  ".join(words))


def _slot(frame: Frame) -> int:
    """The address in brackets: of a sleeping task's first frame the saved stack pointer, of an interrupted one its own."""
    if frame.kind is not FrameKind.CALL or frame.came_from is None:
        return frame.sp
    return frame.came_from if frame.index else frame.came_from - INACTIVE["ret_addr"]


def _frame_line(frame: Frame, name: str) -> Line:
    module = f" [{frame.location.module}]" if frame.location and frame.location.module else ""
    pieces = line(f"{f'#{frame.index}':>3} [{_slot(frame):x}] ", (name, "symbol"), f" at {frame.ip:x}{module}")
    return pieces if frame.mark.is_sure else [*pieces, *line(("  ?", "doubt"))]


def _name(frame: Frame, offsets: Offsets | None = None) -> str:
    if frame.location is None:
        return "(unknown)"
    return frame.location.symbol + (offsets(frame.ip - frame.location.start) if offsets is not None else "")


def _decimal(offset: int) -> str:
    return f"+{offset}"


def _hexadecimal(offset: int) -> str:
    return f"+{offset:#x}"


def _offsets(result: CrashStacks) -> Offsets | None:
    """How offsets in functions are written; None for not at all."""
    if not result.has_offsets:
        return None
    return _hexadecimal if result.is_hex else _decimal


def _word_lines(words: FrameWords | None) -> Iterator[Line]:
    """The words of a frame, two a line; those with names in the names' place, in brackets."""
    if words is None:
        return
    for first in range(0, len(words.values), 2):
        shown = []
        for number in range(first, min(first + 2, len(words.values))):
            name = words.names[number] if words.names is not None else None
            shown.append(f"{f'{words.values[number]:016x}' if name is None else name.split('/')[0]:<16}")
        yield line(f"    {words.address + 8 * first:x}: " + " ".join(shown))


def crash_lines(
    trace: StackTrace, offsets: Offsets | None = None, words: Mapping[FrameKey, FrameWords] | None = None
) -> Iterator[Line]:
    """One stack."""
    yield crash_header(trace)
    for index, frame in enumerate(trace.frames):
        before = trace.frames[index - 1] if index else None
        if frame.kind is FrameKind.USER:
            first, *others = register_lines(frame.registers)
            yield first if frame.is_trusted else [*first, *line(("  ?", "doubt"))]
            yield from others
            continue
        if before is not None and frame.kind is not FrameKind.CALL:
            offset = f"+{frame.ip - frame.location.start}" if frame.location else ""
            yield line(f"    [exception RIP: {_name(frame)}{offset}]" if offset else "    [exception RIP: unknown]")
            yield from register_lines(frame.registers)
        if before is not None and before.stack is not frame.stack and before.stack in _STACKS:
            yield line(f"--- <{_STACKS[before.stack]}> ---")
        yield _frame_line(frame, _name(frame, offsets))
        yield from _word_lines((words or {}).get((trace.task, frame.index)))
    if trace.end is End.STOPPED:
        yield line((f"bt: {words_or_none(trace.end_reason)}", "doubt"))


def crash_stacks_lines(result: CrashStacks) -> Iterator[Line]:
    """Stacks, a blank line between them."""
    for index, trace in enumerate(result.stacks.stacks):
        if index:
            yield line("")
        yield from crash_lines(trace, _offsets(result), result.stacks.words)


class CrashWriter(TextWriter):
    """Stacks as crash prints them."""

    def __init__(self, result: CrashStacks) -> None:
        super().__init__(result.stacks)
        self._offsets = _offsets(result)

    def lines(self, trace: StackTrace, syscall: str | None) -> Iterator[Line]:
        """All lines of a stack."""
        return crash_lines(trace, self._offsets, self.result.words)

    def header(self, trace: StackTrace) -> Line:
        """The first of them."""
        return crash_header(trace)

    def user_lines(self, frame: Frame, syscall: str | None) -> Iterable[Line]:
        """Those of the user's frame."""
        return register_lines(frame.registers)


def _all_lines(result: CrashStacks, width: Width) -> Iterator[Line]:
    yield from crash_stacks_lines(result)
    yield from problem_lines(result.stacks.problems)


def _text_pieces(result: CrashStacks, width: Width) -> Iterator[str]:
    return text_pieces(CrashWriter(result), result.stacks)


def _json_pieces(result: CrashStacks) -> Iterator[str]:
    return json_pieces(result.stacks)


# Programs get what they would get without `--crash`.
view(
    CrashStacks,
    text=_all_lines,
    json=lambda result: encode(result.stacks),
    text_pieces=_text_pieces,
    json_pieces=_json_pieces,
)

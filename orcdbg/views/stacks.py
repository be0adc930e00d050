"""How does a stack look: one line a frame, a mark in column 0, and a reason for whatever is not plain ORC?"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orcdbg.commands.lines import lookup
from orcdbg.commands.stacks import StackGroups, Stacks
from orcdbg.kernel.stacks import StackKind
from orcdbg.orc.effective import Source, TextFrom
from orcdbg.orc.rows import RowType
from orcdbg.patches.mechanisms.paravirt import ParavirtPass
from orcdbg.patches.site import PatchSite
from orcdbg.unwind.frame import End, Frame, FrameKind, Mark, StackTrace
from orcdbg.unwind.reasons import Overflowed, SwitchingFrom, SwitchingTo, TailCalled
from orcdbg.views.lines import position_json, position_lines
from orcdbg.views.page import Line, Piece, fitted, fold, line, plain, problem_lines
from orcdbg.views.reasons import words, words_or_none
from orcdbg.views.rows import orc_json, patch_json
from orcdbg.views.stack_runs import Recursion, recursions, repeated_doubts
from orcdbg.views.view import Json, Width, hexadecimal, view

if TYPE_CHECKING:
    from orcdbg.commands.local_variables import FrameVariables
    from orcdbg.commands.stack_words import FrameWords
    from orcdbg.image.source_position import Position

NARROW = 100  # columns below which the return slot is left to `frame N`
REASON_INDENT = 10
WORDS_INDENT = 6
_STACK_NAMES = {
    StackKind.IRQ: "IRQ stack",
    StackKind.NMI: "NMI exception stack",
    StackKind.DF: "#DF exception stack",
    StackKind.DB: "#DB exception stack",
    StackKind.MCE: "#MC exception stack",
    StackKind.VC: "#VC exception stack",
    StackKind.ENTRY: "entry stack",
    StackKind.TASK: "task stack",
    StackKind.SOFTIRQ: "softirq stack",
}
# Notes that a frame has whatever rule holds in it; other notes explain the rule.
_ALWAYS_SAID = (Overflowed, TailCalled, SwitchingFrom, SwitchingTo)
_USER_REGISTERS = (("RIP", "rip"), ("RSP", "rsp"))


def name_of(frame: Frame) -> str:
    """`symbol+0xoffset/0xsize [module]`, or the bare address where no symbol is near."""
    place = frame.location
    if place is None:
        return f"{frame.ip:#x}"
    module = f" [{place.module}]" if place.module else ""
    return f"{place.symbol}+{frame.ip - place.start:#x}/{place.size:#x}{module}"


def provenance(frame: Frame, is_doubt_told: bool = False) -> str:
    """The short words on where the CFA came from; a doubt that is told already, as the frame before has it, not again."""
    if frame.source is Source.SCAN:
        return f"scan: {words(frame.doubt)}" if frame.doubt is not None and not is_doubt_told else "scan"
    if frame.source is Source.FRAME_POINTER:
        return f"frame pointer {frame.rule}"
    if frame.source.is_derived and frame.source is not Source.DERIVED:
        return f"derived {frame.rule}" if frame.rule else "derived, no CFA"
    if frame.entry is None:
        return frame.rule or "no ORC row"
    row, by = frame.entry.row, "derived" if frame.source is Source.DERIVED else "ORC"
    if row.type is RowType.END_OF_STACK:
        return f"{by} end of stack"
    if frame.rule is None:
        return f"{by} undefined"
    if row.type in (RowType.REGS, RowType.REGS_PARTIAL):
        where = f"@{frame.cfa:x}" if frame.cfa is not None else str(frame.rule)
        return f"{by} {'regs' if row.type is RowType.REGS else 'iret frame'} {where}"
    if frame.is_corrected and frame.patch is not None:
        return f"ORC {frame.patch.stated_rule}, patch {frame.patch.adjust:+d} = {frame.rule}"
    return f"{by} {frame.rule}"


def _remark(frame: Frame) -> str:
    """What a reader would stumble over: an ip that belongs to the next instruction, or even symbol, already."""
    if frame.is_behind_int3:
        return "   (row of the int3, ip-1)"
    place = frame.location
    if place is not None and not frame.exact and frame.ip - place.start == place.size:
        return "   (row of the call, ip-1)"
    return ""


def _replaced(site: PatchSite) -> str:
    """What a site stands for: of a paravirt call the pointer, which names its variable where that is not `pv_ops`."""
    if site.mechanism != ParavirtPass.mechanism:
        return site.name
    return f"stands for call *{'' if site.name.startswith('pv_') else 'pv_ops '}{site.name}"


def reasons(frame: Frame, is_doubt_told: bool = False) -> list[str]:
    """Why a frame is not plain ORC, in sentences; without its doubt where that is told already."""
    found = list[str]()
    notes = [words(note) for note in frame.notes]
    patch = frame.patch if frame.is_corrected else None
    if patch is not None:
        moved = " ".join(patch.instructions)
        place = f"+{patch.site.address - frame.location.start:#x}" if frame.location else f"{patch.site.address:x}"
        why = f"{moved} at {place} {_replaced(patch.site)} ({patch.site.mechanism}: {patch.site.decided_by})"
        found.append("; ".join((why, *notes)))
        if patch.text_from is not TextFrom.MEMORY:
            found.append(f"instructions from {patch.text_from.value}")
    if frame.recovered is not None:
        found.append(f"recovered from {frame.registers['rip'].source}")
    if frame.source.is_derived:
        found += notes
    elif patch is None:
        found += [words(note) for note in frame.notes if isinstance(note, _ALWAYS_SAID)]
    if frame.doubt is not None and frame.source is not Source.SCAN and not is_doubt_told:
        found.append(words(frame.doubt))
    return found


def header(trace: StackTrace) -> Line:
    """Whose stack it is."""
    cpu = "-" if trace.cpu is None else str(trace.cpu)
    task = f'PID: {trace.pid:<6}  TASK: {trace.task:016x}  CPU: {cpu:<3}  COMMAND: "{trace.comm}"'
    return line((task, "header"), f"    regs: {trace.registers_from}")


def _frame_lines(frame: Frame, width: int | None, column: int, is_doubt_told: bool) -> Iterator[Line]:
    style = "mark" if frame.mark.is_sure else "doubt"
    pieces = [Piece(frame.mark.value, style), Piece(f"#{frame.index:<2} ")]
    if _has_slots(width):
        slot = f"[{frame.came_from:016x}]" if frame.came_from is not None and frame.kind is FrameKind.CALL else ""
        pieces.append(Piece(f"{slot:<19} ", "slot"))
    pieces.append(Piece(f"{name_of(frame):<{column}}  ", "symbol"))
    text = provenance(frame, is_doubt_told) + _remark(frame)
    needed = sum(len(piece.text) for piece in pieces) + 18 + len(text)
    if width is not None and needed > width:
        yield [*pieces, Piece(f"{frame.ip:016x}", "address")]
        yield [Piece("       "), Piece(text, "rule")]
    else:
        yield [*pieces, Piece(f"{frame.ip:016x}  ", "address"), Piece(text, "rule")]
    yield from _reason_lines(frame, width, is_doubt_told)


def _reason_lines(frame: Frame, width: int | None, is_doubt_told: bool) -> Iterator[Line]:
    for reason in reasons(frame, is_doubt_told):
        yield from fold([Piece(" " * REASON_INDENT), Piece(reason, "reason")], width, REASON_INDENT)


def _has_slots(width: int | None) -> bool:
    """Whether there is room for the return slots."""
    return width is None or width >= NARROW


def _told(frame: Frame, is_doubt_told: bool) -> Hashable:
    """All that a frame's lines say besides its number and the addresses of its stack."""
    return provenance(frame, is_doubt_told), _remark(frame), tuple(reasons(frame, is_doubt_told))


def _recursion_line(run: Recursion, frames: Sequence[Frame]) -> Line:
    """What stands for the frames of a recursion that have no lines of their own, with their mark."""
    first, last = frames[run.first], frames[run.end - 1]
    each = f"{run.size} bytes of stack" if run.period == 1 else f"{run.period} frames and {run.size} bytes of stack"
    style = "mark" if first.mark.is_sure else "doubt"
    return line(
        (first.mark.value, style),
        " " * (REASON_INDENT - 1),
        (f"x {run.times}", "header"),
        (f": #{first.index} to #{last.index}, {each} each; --every-frame shows them", "note"),
    )


def _switch(before: Frame, after: Frame) -> Line | None:
    """The line between two frames on different stacks."""
    if before.stack is after.stack or after.kind is FrameKind.USER:
        return None
    name = _STACK_NAMES.get(before.stack, f"{before.stack.value} stack")
    target = _STACK_NAMES.get(after.stack, f"{after.stack.value} stack")
    return line((f"--- <{name}> ---  -> {target}, RSP {after.sp:016x}", "note"))


def user_line(frame: Frame, syscall: str | None) -> Line:
    """Where the task was in user mode, with its mark."""
    values = [f"{label}: {frame.registers[name].value:016x}" for label, name in _USER_REGISTERS]
    number = frame.registers.get("orig_rax")
    if number is not None:
        shown = number.value - (1 << 64) if number.value >> 63 else number.value
        values.append(f"ORIG_RAX: {shown:x}" if shown >= 0 else "ORIG_RAX: -")
        if syscall:
            values[-1] += f" ({syscall})"
    return line((f"{frame.mark.value}   user mode  " + "  ".join(values), "note" if frame.is_trusted else "doubt"))


_ENDS = {
    End.USER: "Ends at user registers.",
    End.KTHREAD: "Ends where the kernel thread began.",
    End.IDLE: "Ends where the idle task began.",
    End.BOOT: "Ends where the boot began.",
}


class _Change(enum.Enum):
    """Why a frame is not by its row and return slot as built; the values are the words of a stack's last line."""

    PATCH = "corrected for a patch"
    RETURN = "recovered"
    RULE = "derived"


def _changed_by(frame: Frame) -> _Change:
    if frame.is_corrected:
        return _Change.PATCH
    return _Change.RULE if frame.recovered is None else _Change.RETURN


def _has_statement(frame: Frame) -> bool:
    """Whether a row says how to go on from the frame, or that it is the first: one without a row can be sure all the same."""
    return frame.rule is not None or frame.row_type is RowType.END_OF_STACK


def _summary(trace: StackTrace) -> Line:
    frames = [frame for frame in trace.frames if frame.kind is not FrameKind.USER]
    marks = [frame.mark for frame in frames]
    changes = [_changed_by(frame) for frame in frames if frame.mark is Mark.CHANGED]
    shown = [change for change in _Change if change is _Change.PATCH or change in changes]
    without = sum(frame.mark is Mark.AS_BUILT and not _has_statement(frame) for frame in frames)
    parts = [f"{marks.count(Mark.AS_BUILT) - without} ORC as built"]
    parts += [f"{changes.count(change)} {change.value}" for change in shown]
    parts += [f"{without} without a rule"] if without else []
    parts.append(f"{marks.count(Mark.GUESS)} guessed")
    if Mark.STEP_IN_DOUBT in marks:
        parts.append(f"{marks.count(Mark.STEP_IN_DOUBT)} in contradiction")
    end = _ENDS.get(trace.end) or f"Stopped: {words_or_none(trace.end_reason) or 'no reason known'}."
    plural = "frame" if len(frames) == 1 else "frames"
    return line(f"{len(frames)} {plural}: {', '.join(parts)}. ", (end, "" if trace.end in _ENDS else "doubt"))


def word_lines(words: FrameWords | None) -> Iterator[Line]:
    """The words of a frame: two a line, or one with what it points into."""
    if words is None:
        return
    per_line = 2 if words.names is None else 1
    for first in range(0, len(words.values), per_line):
        shown = " ".join(f"{value:016x}" for value in words.values[first : first + per_line])
        name = words.names[first] if words.names is not None else None
        address = words.address + 8 * first
        yield line(" " * WORDS_INDENT, (f"{address:016x}:  ", "slot"), shown, (f"  {name}" if name else "", "symbol"))


def trace_lines(trace: StackTrace, result: Stacks, width: int | None) -> Iterator[Line]:
    """A stack among a result's, with what that has of its frames: source lines, variables, words."""
    yield from fold(header(trace), width, 4)
    frames = list(trace.frames)
    in_kernel = [frame for frame in frames if frame.kind is not FrameKind.USER]
    longest = max((len(name_of(frame)) for frame in in_kernel), default=8)
    column = min(max(longest, 8), 48)
    if in_kernel:
        slot = f"{'return slot':<19} " if _has_slots(width) else ""
        yield line((f"     {slot}{'function':<{column}}  {'ip':<16}  CFA from", "label"))

    is_told = repeated_doubts(frames)
    runs = _collapsed(frames, is_told, result)
    hidden = {place for run in runs for place in range(run.shown.stop, run.end)}
    run_behind = {run.shown.stop: run for run in runs}
    for place, frame in enumerate(frames):
        if place in run_behind:
            yield from fold(_recursion_line(run_behind[place], frames), width, REASON_INDENT)
        if place in hidden:
            continue
        between = _switch(frames[place - 1], frame) if place else None
        if between:
            yield from fold(between, width, 4)
        if frame.kind is FrameKind.USER:
            yield from fold(user_line(frame, result.syscalls.get(trace.task)), width, 4)
            yield from _reason_lines(frame, width, is_told[place])
        else:
            yield from _frame_lines(frame, width, column, is_told[place])
            for found in position_lines(result.positions.get(lookup(frame)), REASON_INDENT):
                yield from fold(found, width, REASON_INDENT)
            yield from _variable_lines(result.variables.get((trace.task, frame.index)), width)
            yield from word_lines(result.words.get((trace.task, frame.index)))
    yield from fold(_summary(trace), width, 4)


def _collapsed(frames: Sequence[Frame], is_told: Sequence[bool], result: Stacks) -> list[Recursion]:
    """The recursions that are told once; none where frames have words or variables of their own, or all were asked for."""
    if result.with_every_frame or result.words or result.variables:
        return []
    return recursions(frames, lambda place: _told(frames[place], is_told[place]))


def _variable_lines(found: FrameVariables | None, width: int | None) -> Iterator[Line]:
    if found is None:
        return
    from orcdbg.views.local_variables import variables_lines  # a stack alone needs none of it

    for each in variables_lines(found, REASON_INDENT):
        yield from fold(each, width, REASON_INDENT)


def stacks_lines(result: Stacks, width: int | None) -> Iterator[Line]:
    """Stacks, a blank line between them, and which were left out."""
    for index, trace in enumerate(result.stacks):
        if index:
            yield line("")
        yield from trace_lines(trace, result, width)
    yield from left_out_lines(result)


def left_out_lines(result: Stacks) -> Iterator[Line]:
    """The CPUs whose idle tasks are not shown."""
    if result.idle_cpus:
        plural = "CPU" if len(result.idle_cpus) == 1 else "CPUs"
        yield line((f"idle, and left out: {plural} {_ranges(result.idle_cpus)}", "note"))


def _dropped_lines(result: Stacks, width: int | None) -> Iterator[Line]:
    """What there is no room for."""
    if not _has_slots(width) and any(len(trace.frames) > 1 for trace in result.stacks):
        text = f"Return slots are shown from {NARROW} columns on; `frame N` shows a frame's."
        yield from fold(line((text, "note")), width, 4)


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as `1-3 7`, in order."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def group_lines(result: StackGroups, width: int | None) -> Iterator[Line]:
    """Equal stacks once: how many tasks have each, which, and the stack of the first of them."""
    for index, group in enumerate(result.groups):
        if index:
            yield line("")
        plural = "task has" if len(group.pids) == 1 else "tasks have"
        shown = line((f"{len(group.pids)} {plural} this stack", "header"), f"  PIDs: {_ranges(group.pids)}")
        yield from fold(shown, width, 4)
        yield from trace_lines(group.trace, result.stacks, width)
    tasks = sum(len(group.pids) for group in result.groups)
    yield line((f"{tasks} tasks, {len(result.groups)} different stacks", "note"))


def words_json(words: FrameWords | None) -> list[Json] | None:
    """A frame's words, each as STACKWORD."""
    if words is None:
        return None
    return [
        {
            "address": hexadecimal(words.address + 8 * number),
            "value": hexadecimal(value),
            "symbol": words.names[number] if words.names is not None else None,
        }
        for number, value in enumerate(words.values)
    ]


def frame_json(
    found: Frame,
    position: Position | None = None,
    stack_words: FrameWords | None = None,
    variables: FrameVariables | None = None,
) -> Json:
    """FRAME of the contract."""
    place = found.location
    recovered = found.recovered
    return {
        "index": found.index,
        "kind": found.kind.value,
        "stack": found.stack.value,
        "ip": hexadecimal(found.ip),
        "symbol": place.symbol if place else None,
        "offset": found.ip - place.start if place else None,
        "size": place.size if place else None,
        "module": place.module if place else None,
        "sp": hexadecimal(found.sp),
        "bp": hexadecimal(found.bp),
        "cfa": hexadecimal(found.cfa),
        "rule": found.rule,
        "source": found.source.value,
        "orc": orc_json(found.entry),
        "patch": patch_json(found.patch),
        "return_slot": hexadecimal(found.return_slot),
        "recovered": {"by": recovered.by.value, "trampoline": hexadecimal(recovered.trampoline)} if recovered else None,
        "reliable": found.is_trusted,
        "doubt": words_or_none(found.doubt),
        "notes": [words(note) for note in found.notes],
        "words": words_json(stack_words),
        **position_json(position),
        "variables": None if variables is None else _variables_json(variables),
    }


def _variables_json(found: FrameVariables) -> list[Json]:
    from orcdbg.views.local_variables import variable_json

    return [variable_json(variable) for variable in found.variables]


def stack_json(trace: StackTrace, result: Stacks, frames: Sequence[Any] | None = None) -> Json:
    """STACK of the contract, of a stack among a result's, with other values for its frames where they are given."""
    if frames is None:
        frames = [
            frame_json(
                found,
                result.positions.get(lookup(found)),
                result.words.get((trace.task, found.index)),
                result.variables.get((trace.task, found.index)),
            )
            for found in trace.frames
        ]
    return {
        "task": hexadecimal(trace.task),
        "pid": trace.pid,
        "comm": trace.comm,
        "cpu": trace.cpu,
        "running": trace.running,
        "registers_from": trace.registers_from,
        "syscall": result.syscalls.get(trace.task),
        "frames": frames,
        "end": trace.end.value,
        "end_reason": words_or_none(trace.end_reason),
    }


def _all_lines(result: Stacks, width: Width) -> Iterator[Line]:
    yield from stacks_lines(result, width)
    yield from _dropped_lines(result, width)
    yield from problem_lines(result.problems)


def _all_json(result: Stacks) -> Json:
    stacks = [stack_json(trace, result) for trace in result.stacks]
    return {"stacks": stacks, "idle_cpus": list(result.idle_cpus), "problems": list(result.problems)}


def _text_pieces(result: Stacks, width: Width) -> Iterator[str]:
    from orcdbg.views.stack_pieces import TextWriter, text_pieces

    if width is None:
        yield from text_pieces(TextWriter(result), result)
    else:
        yield plain(fitted(_all_lines(result, width), width))


def _json_pieces(result: Stacks) -> Iterator[str]:
    from orcdbg.views.stack_pieces import json_pieces

    return json_pieces(result)


def _groups_lines(result: StackGroups, width: Width) -> Iterator[Line]:
    yield from group_lines(result, width)
    yield from _dropped_lines(result.stacks, width)
    yield from problem_lines(result.stacks.problems)


def _groups_json(result: StackGroups) -> Json:
    shared = result.stacks
    groups = [
        {
            "count": len(group.pids),
            "pids": list(group.pids),
            "stack": stack_json(group.trace, shared),
        }
        for group in result.groups
    ]
    return {"groups": groups, "problems": list(shared.problems)}


view(Stacks, text=_all_lines, json=_all_json, text_pieces=_text_pieces, json_pieces=_json_pieces)
view(StackGroups, text=_groups_lines, json=_groups_json)

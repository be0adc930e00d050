"""How do steps look: a line an instruction, what it changed, whose patch it is, and who called?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.steps import SteppedPlace, Steps
from orcdbg.emulation.stops import StoppedBy
from orcdbg.unwind.frame import End, Frame, FrameKind, Mark, StackTrace
from orcdbg.views.display import displayed_json, displayed_lines
from orcdbg.views.instructions import what_is_wrong
from orcdbg.views.page import Line, Piece, fold, line
from orcdbg.views.reasons import words, words_or_none
from orcdbg.views.stacks import frame_json, provenance
from orcdbg.views.view import Json, hexadecimals, view
from orcdbg.views.what_if import comparison_json, comparison_lines

NOTE_INDENT = 8
_WORDS = {
    StoppedBy.COUNT: "stands",
    StoppedBy.BREAKPOINT: "stopped",
    StoppedBy.WATCHPOINT: "stopped: memory changed",
    StoppedBy.UNSUPPORTED: "stopped: not emulated",
    StoppedBy.FAULT: "stopped: fault",
    StoppedBy.LIMIT: "stopped: limit",
    StoppedBy.START: "stands",
}
REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)


def steps_lines(result: Steps, width: int | None) -> Iterator[Line]:
    """What was run, then where the CPU stands, and its callers."""
    if result.runner is not None:
        runner = result.runner
        where = f"with the data of CPU {runner.cpu}" if runner.cpu is not None else "with no CPU's data"
        said = f"A snapshot does not run: this is an emulation of task {runner.pid} {runner.comm}, {where}."
        yield from fold([Piece(said, "note")], width, 0)
    if result.comparison is not None:
        yield from comparison_lines(result.comparison, width)
        yield line("")
    for place in result.trace[:-1]:
        yield from _place_lines(place, width, " ")
    yield from _place_lines(result.trace[-1], width, ">")
    yield from fold([Piece("        callers  ", "label"), Piece(_callers(result.stack))], width, NOTE_INDENT)
    for ip, text in result.skipped:
        yield line(("!       skipped  ", "doubt"), f"{text} at {ip:x}")
    if result.zeroed and result.position == result.instructions:
        said = f"not known at the start, taken as 0: {', '.join(result.zeroed)}"
        yield from fold([Piece("?       ", "doubt"), Piece(said)], width, NOTE_INDENT)
    why = f": {result.why}" if result.why else ""
    plural = "" if result.instructions == 1 else "s"
    counts = f"{result.instructions} instruction{plural} run, {result.position} since {result.source}"
    yield from fold([Piece(f"{_WORDS[result.stopped_by]}{why}", "header"), Piece(f"; {counts}", "note")], width, 4)
    if result.displays:
        yield from displayed_lines(result.displays, width)


def _callers(trace: StackTrace) -> str:
    """The frames above in one sentence."""
    names = [_caller_name(frame) for frame in trace.frames[1:] if frame.kind is not FrameKind.USER]
    end = "user mode" if trace.end is End.USER else words_or_none(trace.end_reason) or trace.end.value
    return " < ".join([*names, f"({end})"])


def _caller_name(frame: Frame) -> str:
    place = frame.location
    name = f"{place.symbol}+{frame.ip - place.start:#x}" if place else f"{frame.ip:#x}"
    return f"{frame.mark.value.strip()}{name}"


def _place_lines(place: SteppedPlace, width: int | None, arrow: str) -> Iterator[Line]:
    """Mark, address, instruction, where the CFA came from and what it is; then what is not plain."""
    insn, frame = place.instruction, place.frame
    where = f"<{insn.symbol}+{insn.offset:#x}>" if insn.symbol and insn.offset is not None else ""
    patched = insn.site is not None and (insn.image is not None or insn.adjust)
    mark = Mark.CHANGED if patched and frame.mark is Mark.AS_BUILT else frame.mark
    cfa = f"{frame.cfa:016x}" if frame.cfa is not None else "-"
    pieces = line(
        (mark.value, "mark" if mark.is_sure else "doubt"),
        f"{arrow} ",
        (f"{insn.address:016x} {where}  ", "address"),
        (f"{insn.mnemonic} {insn.operands}".strip(), "symbol"),
    )
    yield from fold(pieces, width, NOTE_INDENT)
    rule = [
        Piece(" " * NOTE_INDENT),
        Piece(f"CFA {cfa}  ", "address"),
        Piece(provenance(frame), "rule"),
        Piece(f"  caller {_caller_name(place.caller)}" if place.caller else ""),
    ]
    yield from fold(rule, width, NOTE_INDENT)
    for text in notes(place):
        yield from fold([Piece(" " * NOTE_INDENT), Piece(text, "reason")], width, NOTE_INDENT)
    if place.changed:
        values = "  ".join(f"{name} {place.changed[name]:x}" for name in REGISTERS if name in place.changed)
        yield from fold([Piece(" " * NOTE_INDENT), Piece(values, "changed")], width, NOTE_INDENT)


def notes(place: SteppedPlace) -> Iterator[str]:
    """Whose patch the instruction is, and what is in doubt."""
    insn, site = place.instruction, place.instruction.site
    if site is not None and (insn.image is not None or insn.adjust):
        image = f": image {site.image.hex(' ')}" + (f"  {insn.site_image}" if insn.site_image else "")
        yield f"{site.mechanism} {site.name}{image if insn.address == site.address else ''}"
    elif insn.image is not None:
        yield f"not as built: image {insn.image.hex(' ')}"
    if wrong := what_is_wrong(insn):
        yield wrong
    if place.frame.doubt is not None:
        yield words(place.frame.doubt)


def place_json(place: SteppedPlace) -> dict[str, Any]:
    """STEP of the contract."""
    insn, frame = place.instruction, place.frame
    site = insn.site if insn.image is not None or insn.adjust else None
    return {
        "ip": f"{insn.address:#x}",
        "symbol": insn.symbol,
        "offset": insn.offset,
        "text": f"{insn.mnemonic} {insn.operands}".strip(),
        "bytes": insn.raw.hex(),
        "image_bytes": insn.image.hex() if insn.image is not None else None,
        "mechanism": site.mechanism if site else None,
        "patch": site.name if site else None,
        "rule": frame.rule,
        "orc_rule": insn.stated_rule if insn.adjust else frame.rule,
        "source": frame.source.value,
        "cfa": f"{frame.cfa:#x}" if frame.cfa is not None else None,
        "caller": f"{place.caller.ip:#x}" if place.caller else None,
        "caller_symbol": place.caller.location.symbol if place.caller and place.caller.location else None,
        "reliable": frame.is_trusted,
        "doubt": words_or_none(frame.doubt),
        "changed": hexadecimals(place.changed),
    }


def steps_json(result: Steps) -> Json:
    """STEPS of the contract."""
    return {
        "stopped_by": result.stopped_by.value,
        "why": result.why,
        "instructions": result.instructions,
        "position": result.position,
        "trace": [place_json(place) for place in result.trace],
        "registers": hexadecimals(result.registers),
        "frames": [frame_json(found) for found in result.stack.frames],
        "end": result.stack.end.value,
        "end_reason": words_or_none(result.stack.end_reason),
        "started_from": result.source,
        "zeroed": list(result.zeroed),
        "skipped": [{"ip": f"{ip:#x}", "text": text} for ip, text in result.skipped],
        "what_if": None if result.comparison is None else comparison_json(result.comparison),
        "displays": displayed_json(result.displays),
    }


view(Steps, text=steps_lines, json=steps_json)

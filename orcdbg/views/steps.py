"""How do steps look: a line an instruction, what it changed, whose patch it is, and who called?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orcdbg.commands.results import Instruction
from orcdbg.commands.stepped import Comparison, Place, VersionRun
from orcdbg.commands.stepped import Context as Context
from orcdbg.commands.stepped import Steps as Steps
from orcdbg.commands.stepped import Stops as Stops
from orcdbg.emulation.stops import StoppedBy
from orcdbg.unwind.frame import End, Frame, FrameKind, Mark, StackTrace
from orcdbg.views.code import instruction_lines
from orcdbg.views.page import Line, Piece, fold, line
from orcdbg.views.reasons import words, words_or_none
from orcdbg.views.stacks import name_of, provenance

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
_ORDER = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)
_ROW = 3  # registers a line
EncodeFrame = Callable[[Frame], dict[str, Any]]


def steps_lines(result: Steps, width: int | None) -> Iterator[Line]:
    """What was run, then where the CPU stands, and its callers."""
    if result.comparison is not None:
        yield from _comparison_lines(result.comparison, width)
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


def _callers(trace: StackTrace) -> str:
    """The frames above in one sentence."""
    names = [_caller_name(frame) for frame in trace.frames[1:] if frame.kind is not FrameKind.USER]
    end = "user mode" if trace.end is End.USER else words_or_none(trace.end_reason) or trace.end.value
    return " < ".join([*names, f"({end})"])


def _caller_name(frame: Frame) -> str:
    place = frame.location
    name = f"{place.symbol}+{frame.ip - place.start:#x}" if place else f"{frame.ip:#x}"
    return f"{frame.mark.value.strip()}{name}"


def _place_lines(place: Place, width: int | None, arrow: str) -> Iterator[Line]:
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
    for text in _notes(place):
        yield from fold([Piece(" " * NOTE_INDENT), Piece(text, "reason")], width, NOTE_INDENT)
    if place.changed:
        values = "  ".join(f"{name} {place.changed[name]:x}" for name in _ORDER if name in place.changed)
        yield from fold([Piece(" " * NOTE_INDENT), Piece(values, "changed")], width, NOTE_INDENT)


def _notes(place: Place) -> Iterator[str]:
    """Whose patch the instruction is, and what is in doubt."""
    insn, site = place.instruction, place.instruction.site
    if site is not None and (insn.image is not None or insn.adjust):
        image = f": image {site.image.hex(' ')}" + (f"  {insn.site_image}" if insn.site_image else "")
        yield f"{site.mechanism} {site.name}{image if insn.address == site.address else ''}"
    elif insn.image is not None:
        yield f"not as built: image {insn.image.hex(' ')}"
    if place.frame.doubt is not None:
        yield words(place.frame.doubt)


def _comparison_lines(found: Comparison, width: int | None) -> Iterator[Line]:
    """Both texts of a site side by side: instructions, rules, and what differs at its end."""
    where = f"{found.symbol or hex(found.site)}, {found.size} bytes ({', '.join(found.mechanisms)})"
    yield line(("what if: ", "header"), where)
    for run in (found.patched, found.other):
        yield from fold(line((f"  {run.name:<12}  ", "label"), "; ".join(run.instructions)), width, NOTE_INDENT)
        rules = "  ".join(f"+{one.offset:#x} {one.rule or '-'}" for one in run.boundaries)
        yield from fold(line(f"  {'':<12}  ", (rules, "rule")), width, NOTE_INDENT)
        yield from fold(line(f"  {'':<12}  ", _outcome(run)), width, NOTE_INDENT)
    if found.differing is None:
        yield line("  at its end    not compared")
    elif not found.differing:
        yield line("  at its end    the same registers")
    else:
        yield from fold(line("  at its end    ", (_different(found), "changed")), width, NOTE_INDENT)


def _outcome(run: VersionRun) -> str:
    deepest = max((one.pushed for one in run.boundaries if one.pushed is not None), default=0)
    pushed = f"at most {deepest} bytes pushed" if deepest else "nothing pushed between its instructions"
    return f"{pushed}; " + (f"{run.executed} instructions to its end" if run.registers else f"its end: {run.why}")


def _different(found: Comparison) -> str:
    first, second = found.patched.registers or {}, found.other.registers or {}
    return "  ".join(f"{name} {first[name]:x} / {second[name]:x}" for name in found.differing or ())


def context_lines(result: Context, width: int | None) -> Iterator[Line]:
    """One screen: code, registers, stack, callers."""
    insn = result.place.instruction
    yield line((f"{insn.location or hex(insn.address)}", "header"), (f"  instruction {result.position}", "note"))
    yield from instruction_lines(result.code, True, insn.address, width)
    yield from (
        fold([Piece("        "), Piece(text, "reason")], width, NOTE_INDENT)[0] for text in _notes(result.place)
    )
    yield line("")
    for start in range(0, len(_ORDER), _ROW):
        yield [piece for name in _ORDER[start : start + _ROW] for piece in _register(name, result)]
    yield line("")
    for index, (word, name) in enumerate(result.stack.words):
        at = result.stack.address + 8 * index
        yield line(("  ", ""), (f"{at:016x}  ", "slot"), f"{word:016x}  ", (name or "", "symbol"))
    yield line("")
    for frame in result.trace.frames:
        if frame.kind is FrameKind.USER:
            yield line(f"      user mode  RIP: {frame.ip:016x}")
            continue
        style = "mark" if frame.mark.is_sure else "doubt"
        yield line(
            (frame.mark.value, style),
            f"#{frame.index:<2} ",
            (name_of(frame), "symbol"),
            ("  " + provenance(frame), "rule"),
        )
    if result.trace.end_reason is not None:
        yield line(("! ", "doubt"), words(result.trace.end_reason))


def _register(name: str, result: Context) -> list[Piece]:
    """A register, one that changed since the last context with a star."""
    changed = name in result.place.changed
    text = f"{'*' if changed else ' '}{name:>6} {result.registers[name]:016x}  "
    return [Piece(text, "changed" if changed else "")]


def stops_lines(result: Stops) -> Iterator[Line]:
    """Breakpoints and watched memory."""
    if not result.stops:
        yield line("no breakpoints, nothing is watched")
    for number, address, size, name in result.stops:
        what = f"watch {size} bytes" if size else "break"
        yield line(f"{number:>3}  {what:<15}  {address:016x}  ", (name or "", "symbol"))


def _hex(values: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{value:#x}" for name, value in values.items()}


def _place_json(place: Place) -> dict[str, Any]:
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
        "changed": _hex(place.changed),
    }


def _version_json(run: VersionRun) -> dict[str, Any]:
    boundaries = [{"address": f"{one.address:#x}", "pushed": one.pushed, "rule": one.rule} for one in run.boundaries]
    return {
        "name": run.name,
        "bytes": run.text.hex(),
        "instructions": list(run.instructions),
        "boundaries": boundaries,
        "executed": run.executed,
        "registers": _hex(run.registers) if run.registers is not None else None,
        "why": run.why,
    }


def _comparison_json(found: Comparison | None) -> dict[str, Any] | None:
    """WHAT-IF of the contract."""
    if found is None:
        return None
    return {
        "site": f"{found.site:#x}",
        "size": found.size,
        "symbol": found.symbol,
        "mechanisms": list(found.mechanisms),
        "patched": _version_json(found.patched),
        "other": _version_json(found.other),
        "differing": list(found.differing) if found.differing is not None else None,
    }


def steps_json(result: Steps, frame: EncodeFrame) -> dict[str, Any]:
    """STEPS of the contract; `frame` encodes a FRAME."""
    return {
        "stopped_by": result.stopped_by.value,
        "why": result.why,
        "instructions": result.instructions,
        "position": result.position,
        "trace": [_place_json(place) for place in result.trace],
        "registers": _hex(result.registers),
        "frames": [frame(found) for found in result.stack.frames],
        "end": result.stack.end.value,
        "end_reason": words_or_none(result.stack.end_reason),
        "started_from": result.source,
        "zeroed": list(result.zeroed),
        "skipped": [{"ip": f"{ip:#x}", "text": text} for ip, text in result.skipped],
        "what_if": _comparison_json(result.comparison),
    }


def context_json(result: Context, frame: EncodeFrame, code: list[dict[str, Any]]) -> dict[str, Any]:
    """CONTEXT of the contract; `code` are the INSTRUCTIONs around."""
    shown = [
        {"address": f"{result.stack.address + 8 * index:#x}", "value": f"{word:#x}", "symbol": name}
        for index, (word, name) in enumerate(result.stack.words)
    ]
    return {
        "position": result.position,
        "step": _place_json(result.place),
        "instructions": code,
        "registers": _hex(result.registers),
        "stack": shown,
        "frames": [frame(found) for found in result.trace.frames],
        "end": result.trace.end.value,
        "end_reason": words_or_none(result.trace.end_reason),
    }


def stops_json(result: Stops) -> dict[str, Any]:
    """STOPS of the contract."""
    return {
        "stops": [
            {"number": number, "address": f"{address:#x}", "size": size, "symbol": name}
            for number, address, size, name in result.stops
        ]
    }


def stepping_json(
    result: Steps | Context | Stops, frame: EncodeFrame, instruction: Callable[[Instruction], dict[str, Any]]
) -> dict[str, Any]:
    """STEPS, CONTEXT or STOPS; the other two encode a FRAME and an INSTRUCTION."""
    if isinstance(result, Steps):
        return steps_json(result, frame)
    if isinstance(result, Context):
        return context_json(result, frame, [instruction(line) for line in result.code])
    return stops_json(result)

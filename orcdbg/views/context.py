"""How does one screen of what is stepped look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.context import Context
from orcdbg.unwind.frame import FrameKind
from orcdbg.views.instructions import instruction_json, instruction_lines
from orcdbg.views.page import Line, Piece, fold, line
from orcdbg.views.reasons import words, words_or_none
from orcdbg.views.stack_runs import repeated_doubts
from orcdbg.views.stacks import frame_json, name_of, provenance
from orcdbg.views.steps import NOTE_INDENT, REGISTERS, notes, place_json
from orcdbg.views.view import Json, hexadecimals, view

_ROW = 3  # registers a line


def context_lines(result: Context, width: int | None) -> Iterator[Line]:
    """One screen: code, registers, stack, callers."""
    insn = result.place.instruction
    yield line((f"{insn.location or hex(insn.address)}", "header"), (f"  instruction {result.position}", "note"))
    yield from instruction_lines(result.code, True, insn.address, width)
    yield from (fold([Piece("        "), Piece(text, "reason")], width, NOTE_INDENT)[0] for text in notes(result.place))
    yield line("")
    for start in range(0, len(REGISTERS), _ROW):
        yield [piece for name in REGISTERS[start : start + _ROW] for piece in _register(name, result)]
    yield line("")
    for index, (word, name) in enumerate(result.stack.words):
        at = result.stack.address + 8 * index
        yield line(("  ", ""), (f"{at:016x}  ", "slot"), f"{word:016x}  ", (name or "", "symbol"))
    yield line("")
    frames = list(result.trace.frames)
    for frame, is_doubt_told in zip(frames, repeated_doubts(frames), strict=True):
        if frame.kind is FrameKind.USER:
            yield line(f"      user mode  RIP: {frame.ip:016x}")
            continue
        style = "mark" if frame.mark.is_sure else "doubt"
        yield line(
            (frame.mark.value, style),
            f"#{frame.index:<2} ",
            (name_of(frame), "symbol"),
            ("  " + provenance(frame, is_doubt_told), "rule"),
        )
    if result.trace.end_reason is not None:
        yield line(("! ", "doubt"), words(result.trace.end_reason))


def _register(name: str, result: Context) -> list[Piece]:
    """A register, one that changed since the last context with a star."""
    changed = name in result.place.changed
    text = f"{'*' if changed else ' '}{name:>6} {result.registers[name]:016x}  "
    return [Piece(text, "changed" if changed else "")]


def context_json(result: Context) -> Json:
    """CONTEXT of the contract."""
    shown = [
        {"address": f"{result.stack.address + 8 * index:#x}", "value": f"{word:#x}", "symbol": name}
        for index, (word, name) in enumerate(result.stack.words)
    ]
    return {
        "position": result.position,
        "step": place_json(result.place),
        "instructions": [instruction_json(found) for found in result.code],
        "registers": hexadecimals(result.registers),
        "stack": shown,
        "frames": [frame_json(found) for found in result.trace.frames],
        "end": result.trace.end.value,
        "end_reason": words_or_none(result.trace.end_reason),
    }


view(Context, text=context_lines, json=context_json)

"""How does a printed report look, decoded?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.decode import Decoded, DecodedLine, OnlyDump
from orcdbg.kernel.oops import PrintedFrame
from orcdbg.target.printed_kernel import CodeLine, GuessVerdict, SlideFrom
from orcdbg.views.finding_words import words_of
from orcdbg.views.lines import position_json, position_lines
from orcdbg.views.page import Line, fold, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, hexadecimals, view

_TITLE = 160
_INDENT = 10
_WIDE = 96  # columns of three registers in a row
_VERDICTS = {
    GuessVerdict.POSSIBLE: "may be a frame: its call leads to a line inside of it that is sure, or may be one itself",
    GuessVerdict.OPEN: "cannot be told: its call is indirect, or no sure line is inside of it",
    GuessVerdict.BYPASSED: "most likely left over: the line outside of it itself calls the line inside of it",
    GuessVerdict.CALLS_ELSEWHERE: "most likely left over: the call before it leads to another function",
    GuessVerdict.NO_CALL: "no return address: no call ends there",
    GuessVerdict.NO_ROW: "no frame: no ORC row says how to go on from there",
}
_ONLY_DUMP = {
    OnlyDump.IMAGE: "with the vmlinux of this kernel: source lines, the code as built, which `?` lines may be frames",
    OnlyDump.SLIDE: "where the kernel was loaded (KASLR): the text does not say, so that no register value has a name",
    OnlyDump.RETURN_SLOTS: "where each return address lay on the stack: `?` lines are judged by calls alone",
    OnlyDump.PATCHES: "which patches were applied: the image tells only which may be",
    OnlyDump.LOADED_FROM: "where a register was loaded from, and what is there",
    OnlyDump.SLAB: "whether an object was freed, and which one it is",
    OnlyDump.WAITS: "who holds what the others wait for",
    OnlyDump.OTHER_CPUS: "the stacks of all CPUs and tasks, and arguments and variables",
    OnlyDump.PLANTED: "whether a line is the kernel's own, or was written by a program",
}


def title_of(result: Decoded) -> str:
    """What it died of in a line: as an analysis of the dump would put it, else in the kernel's own words."""
    if result.cause is not None:
        return words_of(result.cause)[:_TITLE]
    return "not known" if result.death.said is None else result.death.said.text[:_TITLE]


def _lines(result: Decoded, width: Width) -> Iterator[Line]:
    yield from fold(line((title_of(result), "header")), width, 2)
    if result.death.signature is not None:
        yield from fold(line(("signature: ", "label"), result.death.signature), width, 11)
    yield from _kernel_lines(result, width)
    if result.said:
        yield []
        yield line(("What was printed", "header"))
        for said in result.said:
            yield from fold(line("  ", (f"line {said.seq}: ", "label"), said.text), width, 4)
    yield from _register_lines(result, width)
    yield from _code_lines(result, width)
    for decoded in result.traces:
        trace = decoded.trace
        yield []
        cpu = "" if trace.cpu is None else f"  CPU: {trace.cpu}"
        yield line((f'Trace of line {trace.time}  PID: {trace.pid}{cpu}  COMMAND: "{trace.comm}"', "header"))
        for one in decoded.lines:
            yield from _frame_lines(one, width)
    yield []
    yield line(("Only a dump would tell", "header"))
    for what in result.only_dump:
        yield from fold(line("  ", _ONLY_DUMP[what]), width, 4)
    yield from problem_lines(result.problems)


def _kernel_lines(result: Decoded, width: Width) -> Iterator[Line]:
    kernel = result.kernel
    yield []
    facts = [
        ("release", ", ".join(kernel.releases) or "not in the text"),
        ("version", kernel.version),
        ("taint", kernel.taint),
        ("modules", " ".join(name + (f"({flags})" if flags else "") for name, flags in kernel.modules.items())),
    ]
    if result.image is not None:
        facts.append(("vmlinux", f"{result.image}: nothing in the text contradicts it"))
    facts.append(("slide", _slide_words(result)))
    for label, value in facts:
        if value:
            yield from fold(line((f"{label:>8}: ", "label"), value), width, 10)


def _slide_words(result: Decoded) -> str:
    if result.slide is not None:
        by = {SlideFrom.KERNEL_OFFSET: "Kernel Offset", SlideFrom.ADDRESSES: "addresses of functions in the text"}
        return f"{result.slide.value:#x} (by {by[result.slide.source]})"
    if result.image is None and result.kernel.offset is not None:
        return f"{result.kernel.offset:#x} (by Kernel Offset)"
    return "not known: nothing in the text tells it"


def _register_lines(result: Decoded, width: Width) -> Iterator[Line]:
    found = result.death.registers
    if found is None or not found.values:
        return
    yield []
    yield line(("Registers", "header"))
    names = list(found.values)
    columns = 3 if width is None or width >= _WIDE else 2
    for start in range(0, len(names), columns):
        row = names[start : start + columns]
        yield line("  " + "  ".join(f"{name:>8}: {found.values[name]:016x}" for name in row))
    for name, symbol in result.names.items():
        yield line("  ", (f"{name} is ", "label"), (symbol, "symbol"))


def _code_lines(result: Decoded, width: Width) -> Iterator[Line]:
    if not result.code:
        return
    yield []
    yield line(("Code", "header"))
    for one in result.code:
        mark = ("=>", "doubt") if one.is_marked else "  "
        text = "(bad)" if one.instruction is None else one.instruction.text
        place = f"{one.offset:+#x}" if one.address is None else f"{one.address:016x}"
        shown = line(mark, (f" {place:<17} ", "address"), (f"{one.raw.hex(' '):<32} ", "slot"), text)
        yield from fold(shown, width, 22)
        for words in _beside(one):
            yield from fold(line(" " * _INDENT, (words, "reason")), width, _INDENT)


def _beside(one: CodeLine) -> Iterator[str]:
    by = ", ".join(one.mechanisms)
    if one.built is not None:
        built = one.built.hex(" ")
        yield f"built as {built}; {f'may be patched by {by}' if by else 'no patch is known for this place'}"
    elif one.mechanisms:
        yield f"as built; may be patched by {by}"


def _frame_lines(one: DecodedLine, width: Width) -> Iterator[Line]:
    printed = one.printed
    mark = " " if printed.sure else "?"
    pieces = line((f"{mark} ", "doubt"), "RIP " if printed.is_rip else "    ", (printed.name, "symbol"))
    if one.address is not None:
        pieces += line("  ", (f"{one.address:016x}", "address"))
    yield from fold(pieces, width, _INDENT)
    for found in position_lines(one.position, _INDENT):
        yield from fold(found, width, _INDENT)
    if one.verdict is not None:
        yield from fold(line(" " * _INDENT, (_VERDICTS[one.verdict], "reason")), width, _INDENT)


def _json(result: Decoded) -> Json:
    registers = result.death.registers
    return {
        "title": title_of(result),
        "signature": result.death.signature,
        "kind": None if result.death.kind is None else result.death.kind.value,
        "said": [{"what": one.announced.value, "text": one.text, "line": one.seq} for one in result.said],
        "kernel": {
            "releases": list(result.kernel.releases),
            "version": result.kernel.version,
            "taint": result.kernel.taint,
            "modules": dict(result.kernel.modules),
        },
        "image": result.image,
        "slide": hexadecimal(None if result.slide is None else result.slide.value),
        "slide_from": None if result.slide is None else result.slide.source.value,
        "registers": None if registers is None else hexadecimals(registers.values),
        "register_names": dict(result.names),
        "code": [_code_json(one) for one in result.code],
        "traces": [
            {
                "line": decoded.trace.time,
                "pid": decoded.trace.pid,
                "comm": decoded.trace.comm,
                "cpu": decoded.trace.cpu,
                "reached_user": decoded.trace.reached_user,
                "lines": [_line_json(one) for one in decoded.lines],
            }
            for decoded in result.traces
        ],
        "only_dump": [one.value for one in result.only_dump],
        "problems": list(result.problems),
    }


def _code_json(one: CodeLine) -> Json:
    return {
        "offset": one.offset,
        "address": hexadecimal(one.address),
        "bytes": one.raw.hex(),
        "text": None if one.instruction is None else one.instruction.text,
        "faulting": one.is_marked,
        "built": None if one.built is None else one.built.hex(),
        "mechanisms": list(one.mechanisms),
    }


def _line_json(one: DecodedLine) -> Json:
    printed: PrintedFrame = one.printed
    return {
        "name": printed.name,
        "symbol": printed.symbol or None,
        "offset": printed.offset if printed.address is None else None,
        "size": printed.size if printed.address is None else None,
        "module": printed.module,
        "sure": printed.sure,
        "rip": printed.is_rip,
        "address": hexadecimal(one.address),
        "verdict": None if one.verdict is None else one.verdict.value,
        **position_json(one.position),
    }


view(Decoded, text=_lines, json=_json)

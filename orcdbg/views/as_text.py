"""How does a result look to a person?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from orcdbg.checkup.account import Checkup
from orcdbg.commands import results
from orcdbg.commands.journal import Exported
from orcdbg.commands.live import Stopped
from orcdbg.commands.log import Log
from orcdbg.commands.log_check import LogChecks
from orcdbg.commands.mapping import AddressMapping
from orcdbg.commands.register_search import SavedSets
from orcdbg.commands.stack_choice import CrashStacks, StackGroups
from orcdbg.commands.structures import Structure
from orcdbg.commands.trim import Trimmed, TrimmedImage
from orcdbg.orc.effective import Corrected, Derived
from orcdbg.patches.text import TextSource
from orcdbg.views import (
    audit,
    checkup,
    code,
    crash,
    frames,
    live,
    log,
    log_check,
    mapping,
    saved,
    stacks,
    static,
    structures,
    trim,
)
from orcdbg.views.page import Line, line
from orcdbg.views.reasons import words
from orcdbg.views.steps import Context, Steps, Stops, context_lines, steps_lines, stops_lines

Width = int | None


@functools.singledispatch
def lines_of(result: results.Result, width: Width) -> Iterator[Line]:
    """The lines of a result; one of a plug-in brings its own text."""
    for text in result.to_text():  # type: ignore[attr-defined]
        yield line(str(text))


@lines_of.register
def _(result: results.Nothing, width: Width) -> Iterator[Line]:
    return iter(())


@lines_of.register
def _(result: results.Text, width: Width) -> Iterator[Line]:
    return (line(text) for text in result.lines)


@lines_of.register
def _(result: results.Stacks, width: Width) -> Iterator[Line]:
    yield from stacks.stacks_lines(list(result.stacks), result.syscalls, width, result.positions)
    yield from problem_lines(result.problems)


@lines_of.register
def _(result: CrashStacks, width: Width) -> Iterator[Line]:
    yield from crash.crash_stacks_lines(result.stacks.stacks)
    yield from problem_lines(result.stacks.problems)


@lines_of.register
def _(result: StackGroups, width: Width) -> Iterator[Line]:
    yield from stacks.group_lines(result, width)
    yield from problem_lines(result.stacks.problems)


def problem_lines(problems: Sequence[str]) -> Iterator[Line]:
    """What could not be read, one line each."""
    for problem in problems:
        yield line(("! ", "doubt"), problem)


@lines_of.register
def _(result: results.FrameDetail, width: Width) -> Iterator[Line]:
    return frames.detail_lines(result, width)


@lines_of.register
def _(result: results.FrameRegisters, width: Width) -> Iterator[Line]:
    yield line((f"registers of frame #{result.frame.index}  {stacks.name_of(result.frame)}", "header"))
    yield from frames.register_lines(result.registers, result.unknown)


@lines_of.register
def _(result: results.OrcAnswer, width: Width) -> Iterator[Line]:
    yield line((f"{result.address:016x}  {result.symbol or '(no symbol)'}", "header"))
    if result.entry is None:
        yield line("      no ORC row covers this address")
        return
    yield from frames.entry_lines(result.entry)
    effective = result.effective
    rule = str(effective.rule) if effective.rule else "none"
    if isinstance(effective, Corrected):
        yield line(("~    true rule  ", "mark"), f"{rule}  (stated {effective.patch.stated_rule})")
        yield from frames.site_lines(effective.patch.site)
    elif isinstance(effective, Derived):
        yield line(("~    true rule  ", "mark"), f"{rule}  ({words(effective.reason)})")
    else:
        yield line(("          rule  ", "label"), rule)
    yield line(("  caller's rbp  ", "label"), result.bp_rule or "none")
    if effective.doubt is not None:
        yield line(("!  ", "doubt"), words(effective.doubt))


@lines_of.register
def _(result: results.Sites, width: Width) -> Iterator[Line]:
    if not result.sites:
        yield line("no recorded patch site there")
        return
    for state in result.sites:
        yield from _site_lines(state)
    if len(result.sites) > 1:
        yield line((f"{len(result.sites)} sites", "note"))


def _site_lines(state: results.SiteState) -> Iterator[Line]:
    site = state.site
    changed = state.memory is not None and state.memory != site.image
    mark = "~" if changed else " "
    yield line(
        (mark, "mark"),
        f"{site.address:016x} ",
        (f"{state.symbol or '(no symbol)'}", "symbol"),
        f"  {site.mechanism} {site.name}  ",
        (site.decided_by, "note"),
    )
    yield line(("      image   ", "label"), site.image.hex(" "))
    yield line(("      replay  ", "label"), site.expected.hex(" ") if site.expected is not None else "not known")
    shown = "not in the snapshot" if state.memory is None else "the same" if state.memory == site.expected else None
    yield line(("      memory  ", "label"), shown or (state.memory or b"").hex(" "))


@lines_of.register
def _(result: results.Check, width: Width) -> Iterator[Line]:
    for hazard in result.report.hazards:
        name = result.symbols[hazard.boundary.address] or "(no symbol)"
        yield static.hazard_line(hazard.boundary, name, f"{hazard.site.mechanism} {hazard.site.name}")
    report = result.report
    unread = f", {report.unread} sites not in the snapshot" if report.unread else ""
    summary = f"{len(report.hazards)} hazards; {report.sites} sites, {report.boundaries} boundaries checked{unread}"
    yield line((summary, "note"))


@lines_of.register
def _(result: results.Replay, width: Width) -> Iterator[Line]:
    yield line(f"{result.size} bytes of text from {result.address:016x} and {result.symbols} symbols in {result.path}")
    yield from problem_lines(result.problems)


@lines_of.register
def _(result: results.Disassembly, width: Width) -> Iterator[Line]:
    yield from code.instruction_lines(result.instructions, result.show_image, None, width, result.positions)
    yield from problem_lines(result.problems)
    if result.source is not TextSource.MEMORY:
        yield line(
            (
                "the text is not in the snapshot: these are the image's bytes with the recorded patches replayed",
                "reason",
            )
        )


@lines_of.register
def _(result: results.Symbols, width: Width) -> Iterator[Line]:
    for found in result.symbols:
        offset = f"+{found.offset:#x}" if found.offset else ""
        module = f" [{found.module}]" if found.module else ""
        name = f"{found.name}{offset}/{found.size:#x}{module}"
        yield line(f"{found.address:016x} ({found.letter}) ", (name, "symbol"))


@lines_of.register
def _(result: results.Words, width: Width) -> Iterator[Line]:
    step = result.width
    per_line = 1 if result.names is not None else 16 // step
    for at in range(0, len(result.data), step * per_line):
        chunk = result.data[at : at + step * per_line]
        words = [int.from_bytes(chunk[i : i + step], "little") for i in range(0, len(chunk), step)]
        text = " ".join(f"{word:0{2 * step}x}" for word in words)
        name = result.names[at // step] if result.names is not None else None
        tail = name or "".join(chr(b) if 32 <= b < 127 else "." for b in chunk)
        filled = (2 * step + 1) * per_line - 1
        yield line(f"{result.address + at:016x}:  {text:<{filled}}   ", (tail, "symbol" if name else "note"))


@lines_of.register
def _(result: results.Tasks, width: Width) -> Iterator[Line]:
    yield line(("      PID    TGID  CPU        TASK        ST  COMM", "label"))
    for task in result.tasks:
        mark = ">" if task.address in result.running else " "
        name = f"[{task.comm}]" if task.is_kernel_thread else task.comm
        tgid = "-" if task.tgid is None else task.tgid
        cpu = "-" if task.cpu is None else task.cpu
        yield line(
            (mark, "mark"),
            f"{task.pid:>8}{tgid:>8}{cpu:>5}  {task.address:016x}  {task.state or '-':>2}  ",
            (name, "symbol"),
        )
    for name in result.absent:
        yield line((f"column {name} is absent: this kernel's types have no such member", "note"))
    yield from problem_lines(result.problems)


@lines_of.register
def _(result: results.Modules, width: Width) -> Iterator[Line]:
    yield line(("     MODULE       NAME                         TEXT             SIZE", "label"))
    for module in result.modules:
        yield line(
            f"{module.address:016x}  ", (f"{module.name:<22}", "symbol"), f"  {module.text[0]:016x}  {module.size:>10}"
        )
    yield from problem_lines(result.problems)


@lines_of.register
def _(result: results.System, width: Width) -> Iterator[Line]:
    for fact in result.facts:
        value = "-" if fact.value is None else str(fact.value)
        if fact.key == "memory" and isinstance(fact.value, int):
            value = f"{fact.value / (1 << 20):.0f} MB"
        why = f"  ({fact.why})" if fact.why else ""
        yield line((f"{fact.label:>12}: ", "label"), value, (why, "note"))


@lines_of.register
def _(result: results.Settings, width: Width) -> Iterator[Line]:
    task = result.task
    if task is not None:
        yield line(("     PID: ", "label"), str(task.pid))
        yield line((" COMMAND: ", "label"), f'"{task.comm}"')
        yield line(("    TASK: ", "label"), f"{task.address:016x}")
        yield line(("     CPU: ", "label"), "-" if result.cpu is None else str(result.cpu))
        yield line(("   STATE: ", "label"), task.state or "-")
        yield line(("   FRAME: ", "label"), str(result.frame))
    for name, value in sorted(result.values.items()):
        yield line((f"{name:>8}: ", "label"), value)


@lines_of.register
def _(result: Exported, width: Width) -> Iterator[Line]:
    yield line(f"{result.path}: {result.size} bytes, {result.places} places, {result.rows} corrected rows")


@lines_of.register
def _(result: TrimmedImage, width: Width) -> Iterator[Line]:
    yield line(f"{result.path}: {result.size} bytes")


@lines_of.register
def _(result: Steps, width: Width) -> Iterator[Line]:
    return steps_lines(result, width)


@lines_of.register
def _(result: Context, width: Width) -> Iterator[Line]:
    return context_lines(result, width)


@lines_of.register
def _(result: Stops, width: Width) -> Iterator[Line]:
    return stops_lines(result)


def _in_any_width(view: Callable[[Any], Iterator[Line]]) -> Callable[[Any, Width], Iterator[Line]]:
    """A view that asks for no width."""
    return lambda result, width: view(result)


# Results whose two forms stand together in a file of their own.
lines_of.register(results.StaticCheck, _in_any_width(static.check_lines))
lines_of.register(results.Union, _in_any_width(static.union_lines))
lines_of.register(results.OrcDump, _in_any_width(static.dump_lines))
lines_of.register(results.Audit, _in_any_width(audit.audit_lines))
lines_of.register(Stopped, _in_any_width(live.stopped_lines))
lines_of.register(SavedSets, _in_any_width(saved.saved_lines))
lines_of.register(LogChecks, _in_any_width(log_check.checks_lines))
lines_of.register(Structure, _in_any_width(structures.structure_lines))
lines_of.register(AddressMapping, _in_any_width(mapping.mapping_lines))
lines_of.register(Log, _in_any_width(log.log_lines))
lines_of.register(Checkup, _in_any_width(checkup.checkup_lines))
lines_of.register(Trimmed, _in_any_width(trim.trimmed_lines))

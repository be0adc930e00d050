"""How does everything behind one frame look?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orcdbg.commands.results import FrameDetail
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.site import PatchSite
from orcdbg.unwind.frame import Frame, FrameKind, Registers
from orcdbg.views.code import instruction_lines
from orcdbg.views.lines import words
from orcdbg.views.page import Line, fold, line
from orcdbg.views.stacks import name_of, reasons

_ORDER = (
    *("rip", "rsp", "rbp", "rbx", "r12", "r13", "r14", "r15", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "rflags", "orig_rax", "cs", "ss"),
)


LABEL = 16  # columns that labels take


def _fact(label: str, value: str) -> Line:
    return line((f"{label:>{LABEL - 2}}  ", "label"), value)


def row_text(entry: OrcEntry) -> str:
    """An ORC row's fields as the kernel names them."""
    row = entry.row
    return (
        f"sp_reg {row.sp_reg.value}  sp_offset {row.sp_offset}  bp_reg {row.bp_reg.value}  bp_offset {row.bp_offset}  "
        f"type {row.type.value}  signal {int(row.signal)}"
    )


def entry_lines(entry: OrcEntry) -> Iterator[Line]:
    """An ORC entry: where it stands, its bytes, what they mean."""
    place = f" at {entry.address:016x}" if entry.address is not None else ""
    yield _fact(
        "ORC row", f"{entry.table}[{entry.number}]{place}, from {entry.entry_ip:016x} on, bytes {entry.raw.hex(' ')}"
    )
    yield _fact("", row_text(entry))


def site_lines(site: PatchSite) -> Iterator[Line]:
    """A patch site in two lines."""
    yield _fact(f"pass {site.order}", f"{site.mechanism} {site.name} at {site.address:016x}, {site.size} bytes")
    yield _fact("decided by", site.decided_by)


def _kind_words(frame: Frame) -> str:
    if frame.kind is FrameKind.CALL:
        return "a return address: looked up at ip - 1"
    return "an exact address" + ("" if frame.kind is FrameKind.USER else ": the instruction that was to run next")


def detail_lines(result: FrameDetail, width: int | None) -> Iterator[Line]:
    """`frame N`, `bt --why N`."""
    for found in _detail(result):
        yield from fold(found, width, LABEL)
    if result.instructions:
        yield line("")
        yield from instruction_lines(result.instructions, True, result.frame.ip, width)


def _detail(result: FrameDetail) -> Iterator[Line]:
    frame = result.frame
    where = "in user mode" if frame.kind is FrameKind.USER else f"on the {frame.stack.value} stack"
    name = "user mode" if frame.kind is FrameKind.USER else name_of(frame)
    yield line((f"{frame.mark.value}#{frame.index} {name}", "header"), f"  {frame.ip:016x}  {where}")
    yield _fact("ip", f"{_kind_words(frame)}; from {frame.registers['rip'].source}")
    if frame.kind is FrameKind.USER:
        yield _fact("ORC row", "none: ORC describes the kernel only")
        return
    if result.position is not None:
        for index, text in enumerate(words(result.position)):
            yield _fact("" if index else "source", text)
    if frame.entry is None:
        yield _fact("ORC row", "none covers this address")
    else:
        yield from entry_lines(frame.entry)
    yield from _patch_lines(result)
    yield from _step_lines(result)
    for reason in reasons(frame):
        yield _fact("why", reason)


def _patch_lines(result: FrameDetail) -> Iterator[Line]:
    if not result.sites:
        return
    start = min(site.address for site in result.sites)
    image = next(site.image for site in result.sites if site.address == start)
    for site in result.sites:
        yield from site_lines(site)
    yield _fact("image bytes", image.hex(" "))
    yield _fact("memory bytes", result.memory.hex(" ") if result.memory is not None else "not in the snapshot")
    last = result.sites[-1]
    expected = last.expected.hex(" ") if last.expected is not None else f"not known: {last.decided_by}"
    agrees = (
        ""
        if result.memory is None or last.expected is None
        else (
            " (as in memory)"
            if result.memory[last.address - start :][: last.size] == last.expected
            else " (NOT as in memory)"
        )
    )
    yield _fact("replayed", expected + agrees)


def _step_lines(result: FrameDetail) -> Iterator[Line]:
    frame = result.frame
    if frame.is_corrected and frame.patch is not None:
        yield _fact("stated rule", frame.patch.stated_rule or "none")
        yield _fact("true rule", f"{frame.rule}  ({frame.patch.adjust:+d}: {' '.join(frame.patch.instructions)})")
    elif frame.rule is not None:
        yield _fact("rule", frame.rule)
    base = frame.registers.get(result.base_register or "")
    if base is not None and frame.rule is not None:
        yield _fact("base", f"{result.base_register} = {base.value:016x}, from {base.source}")
    if frame.cfa is not None:
        yield _fact("CFA", f"{frame.cfa:016x}")
    if result.bp_rule is not None and frame.rule is not None:
        yield _fact("caller's rbp", result.bp_rule)
    if frame.return_slot is not None:
        yield _fact("caller's ip", f"read from {frame.return_slot:016x}")


def register_lines(registers: Registers, unknown: Mapping[str, str]) -> Iterator[Line]:
    """Registers, each with where its value was found or why it is not known."""
    names = set(registers) | set(unknown)
    for name in [name for name in _ORDER if name in names] + sorted(names - set(_ORDER)):
        if name in unknown:
            yield line((f"{name:>9}  ", "label"), f"{'-':<16}  ", (f"not known: {unknown[name]}", "note"))
            continue
        yield line((f"{name:>9}  ", "label"), f"{registers[name].value:016x}  ", (registers[name].source, "note"))

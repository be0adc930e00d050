"""How does everything behind one frame look?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from orcdbg.commands.frame import FrameDetail
from orcdbg.commands.local_variables import FrameVariables
from orcdbg.unwind.frame import Frame, FrameKind
from orcdbg.views.instructions import instruction_json, instruction_lines
from orcdbg.views.lines import words
from orcdbg.views.local_variables import variables_lines
from orcdbg.views.page import Line, fold, line
from orcdbg.views.patch_sites import site_json
from orcdbg.views.rows import LABEL, entry_lines, fact, site_lines
from orcdbg.views.stacks import frame_json, name_of, reasons
from orcdbg.views.view import Json, hexadecimal, view


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
    yield fact("ip", f"{_kind_words(frame)}; from {frame.registers['rip'].source}")
    if frame.kind is FrameKind.USER:
        yield fact("ORC row", "none: ORC describes the kernel only")
        return
    if result.position is not None:
        for index, text in enumerate(words(result.position)):
            yield fact("" if index else "source", text)
    if result.variables is not None:
        yield from _argument_lines(result.variables)
    if frame.entry is None:
        yield fact("ORC row", "none covers this address")
    else:
        yield from entry_lines(frame.entry)
    yield from _patch_lines(result)
    yield from _step_lines(result)
    for reason in reasons(frame):
        yield fact("why", reason)


def _argument_lines(found: FrameVariables) -> Iterator[Line]:
    """The arguments of the frame's own function; `info args` has those of inlined ones too."""
    own = replace(found, variables=[each for each in found.variables if each.is_argument and not each.is_inlined])
    if own.variables:
        yield fact("arguments", "")
        yield from variables_lines(own, LABEL)


def _patch_lines(result: FrameDetail) -> Iterator[Line]:
    if not result.sites:
        return
    start = min(site.address for site in result.sites)
    image = next(site.image for site in result.sites if site.address == start)
    for site in result.sites:
        yield from site_lines(site)
    yield fact("image bytes", image.hex(" "))
    yield fact("memory bytes", result.memory.hex(" ") if result.memory is not None else "not in the snapshot")
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
    yield fact("replayed", expected + agrees)


def _step_lines(result: FrameDetail) -> Iterator[Line]:
    frame = result.frame
    if frame.is_corrected and frame.patch is not None:
        yield fact("stated rule", frame.patch.stated_rule or "none")
        yield fact("true rule", f"{frame.rule}  ({frame.patch.adjust:+d}: {' '.join(frame.patch.instructions)})")
    elif frame.rule is not None:
        yield fact("rule", frame.rule)
    base = frame.registers.get(result.base_register or "")
    if base is not None and frame.rule is not None:
        yield fact("base", f"{result.base_register} = {base.value:016x}, from {base.source}")
    if frame.cfa is not None:
        yield fact("CFA", f"{frame.cfa:016x}")
    if result.bp_rule is not None and frame.rule is not None:
        yield fact("caller's rbp", result.bp_rule)
    if frame.return_slot is not None:
        yield fact("caller's ip", f"read from {frame.return_slot:016x}")


def detail_json(result: FrameDetail) -> Json:
    """DETAIL of the contract."""
    base = result.frame.registers.get(result.base_register or "")
    return {
        "frame": frame_json(result.frame, result.position, variables=result.variables),
        "base_register": {"name": result.base_register, "value": hexadecimal(base.value), "source": base.source}
        if base
        else None,
        "bp_rule": result.bp_rule,
        "sites": [site_json(site, None) for site in result.sites],
        "memory": result.memory.hex() if result.memory is not None else None,
        "instructions": [instruction_json(line) for line in result.instructions],
    }


view(FrameDetail, text=detail_lines, json=detail_json)

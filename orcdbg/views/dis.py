"""How does a disassembly look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.dis import Disassembly
from orcdbg.patches.text import TextSource
from orcdbg.views.instructions import WIDE, instruction_json, instruction_lines, is_narrow
from orcdbg.views.page import Line, fold, line, problem_lines
from orcdbg.views.view import Json, Width, view


def _lines(result: Disassembly, width: Width) -> Iterator[Line]:
    yield from instruction_lines(
        result.instructions, result.show_image, result.current, width, result.positions, result.in_decimal
    )
    if is_narrow(width) and result.instructions:
        text = f"Bytes are shown from {WIDE} columns on; `rd -8` shows those of memory."
        yield from fold(line((text, "note")), width, 4)
    yield from problem_lines(result.problems)
    if result.source is not TextSource.MEMORY:
        yield line(
            (
                "the text is not in the snapshot: these are the image's bytes with the recorded patches replayed",
                "reason",
            )
        )


def _json(result: Disassembly) -> Json:
    instructions = [instruction_json(line, result.positions.get(line.address)) for line in result.instructions]
    return {"instructions": instructions, "source": result.source.value, "problems": list(result.problems)}


view(Disassembly, text=_lines, json=_json)

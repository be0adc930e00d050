"""How do displays look?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orcdbg.commands.display import Display, Displayed, DisplayedValues, Displays
from orcdbg.views.page import Line, fold, line
from orcdbg.views.printing import printed_value_json, value_lines
from orcdbg.views.reasons import message_of
from orcdbg.views.view import Json, Width, view


def displayed_lines(displays: Sequence[DisplayedValues], width: Width) -> Iterator[Line]:
    """`1: /x EXPRESSION = VALUE`, of several CPUs each in a line."""
    for shown in displays:
        label = f"{_label(shown.display)} = "
        if shown.error is not None:
            yield from fold(line((label, "label"), (f"? ({message_of(shown.error)})", "doubt")), width, 4)
        for value in shown.values:
            for number, text in enumerate(value_lines(value)):
                cpu = f"[{value.cpu}] " if value.cpu is not None and not number else ""
                indent = len(text) - len(text.lstrip()) + 4
                yield from fold(line(("" if number else label + cpu, "label"), text), width, indent)


def _label(display: Display) -> str:
    return f"{display.number}: {f'/{display.format} ' if display.format else ''}{display.expression}"


def displayed_json(displays: Sequence[DisplayedValues]) -> list[Json]:
    """The list of DISPLAYED of the contract."""
    return [
        {
            **_display_json(shown.display),
            "values": [printed_value_json(value) for value in shown.values],
            "error": None if shown.error is None else message_of(shown.error),
        }
        for shown in displays
    ]


def _display_json(display: Display) -> Json:
    return {"number": display.number, "format": display.format or None, "expression": display.expression}


def _list_lines(result: Displays, width: Width) -> Iterator[Line]:
    for display in result.displays:
        yield line(_label(display))
    if not result.displays:
        yield line(("nothing is displayed", "note"))


view(
    Displayed,
    text=lambda result, width: displayed_lines(result.displays, width),
    json=lambda result: {"displays": displayed_json(result.displays)},
)
view(
    Displays,
    text=_list_lines,
    json=lambda result: {"displays": [_display_json(display) for display in result.displays]},
)

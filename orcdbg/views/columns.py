"""How does a list of things look: one line each, in columns as wide as what is in them?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from orcdbg.views.page import Line, Piece, line

_GAP = "  "


def columns(headings: Sequence[str], rows: Iterable[Sequence[object]], symbol: int = -1) -> Iterator[Line]:
    """A heading and a line for each row.

    Args:
        headings: of the columns; one that begins with `>` stands, as its column does, to the right.
        rows: what stands in the columns, by its str(); None as `-`.
        symbol: number of the column that names the thing; the last one where nothing else is said.
    """
    named = symbol % len(headings)
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    titles = [heading.removeprefix(">") for heading in headings]
    widths = [max([len(title), *(len(row[at]) for row in cells)]) for at, title in enumerate(titles)]
    # What is behind the last column needs no blanks.
    widths[-1] = widths[-1] if headings[-1].startswith(">") else 0

    def placed(cell: str, at: int) -> str:
        return cell.rjust(widths[at]) if headings[at].startswith(">") else cell.ljust(widths[at])

    yield line((_GAP.join(placed(title, at) for at, title in enumerate(titles)), "label"))
    for row in cells:
        shown: Line = []
        for at, cell in enumerate(row):
            if at:
                shown.append(Piece(_GAP))
            shown.append(Piece(placed(cell, at), "symbol" if at == named else ""))
        yield shown


def address(value: int | None) -> str:
    """An address as crash prints it: 16 digits without `0x`; `-` for none."""
    return "-" if not value else f"{value:016x}"


def duration(nanoseconds: int) -> str:
    """A length of time: days if there are any, then hours, minutes and seconds."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    days, seconds = divmod(seconds, 86_400)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    fraction = "" if days else f".{rest // 1_000_000:03}"
    return f"{sign}{f'{days} days, ' if days else ''}{text}{fraction}"

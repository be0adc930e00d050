"""How do instructions, with what was patched among them, look?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orcdbg.commands.instructions import Account, ListedInstruction
from orcdbg.views.lines import position_json, position_lines
from orcdbg.views.page import Line, Piece, fold
from orcdbg.views.view import Json, hexadecimal

if TYPE_CHECKING:
    from orcdbg.image.source_position import Position

NOTE_INDENT = 6
WIDE = 100  # columns from which there is room for the instructions' bytes
# What is wrong with bytes, in words.
_WRONG = {
    Account.UNEXPLAINED: "not as built, by no known patch",
    Account.MISMATCHED: "not what the patches here would have left",
}


def _column(texts: Sequence[str], least: int, most: int) -> int:
    return min(max([len(text) for text in texts] + [least]), most)


def _note(found: ListedInstruction, previous: ListedInstruction | None, show_image: bool) -> str:
    """What the last column says: the patch on the first line of a site, then only what differs."""
    parts = []
    wrong = what_is_wrong(found)
    site = found.site if found.image is not None or found.adjust else None
    if site is not None:
        first = previous is None or previous.site != site
        parts.append(f"{site.mechanism} {site.name}" if first else "same site")
        if show_image and first:
            text = f"  {found.site_image}" if found.site_image else ""
            parts.append(f"image {site.image.hex(' ')}{text}")
    elif found.image is not None and show_image:
        parts.append(f"image {found.image.hex(' ')}")
    elif found.image is not None and not wrong:
        parts.append("not as built")
    if wrong:
        parts.append(wrong)
    if found.adjust:
        parts.append(f"here ORC says {found.stated_rule}, true {found.rule}")
    return "; ".join(parts)


def what_is_wrong(found: ListedInstruction) -> str:
    """A phrase on bytes that should not be there; empty for all others."""
    return _WRONG.get(found.account, "") if found.account is not None else ""


def _text(found: ListedInstruction) -> str:
    """Mnemonic, operands, and what these are called, as objdump writes it."""
    text = f"{found.mnemonic} {found.operands}".strip()
    names = [f"{'per-CPU ' if one.is_per_cpu else ''}{one.address:x} <{one.name}>" for one in found.named]
    return f"{text}  # {', '.join(names)}" if names else text


def is_narrow(width: int | None) -> bool:
    """Whether there is no room for the instructions' bytes."""
    return width is not None and width < WIDE


def instruction_lines(
    lines: Sequence[ListedInstruction],
    show_image: bool,
    current: int | None,
    width: int | None,
    positions: Mapping[int, Position] | None = None,
    in_decimal: bool = False,
) -> Iterator[Line]:
    """Instructions: mark, address, offset, bytes, text, rule, and what was patched.

    Args:
        lines: the instructions.
        show_image: also what the build had there.
        current: the address that gets an arrow.
        width: of the terminal, None for no limit.
        positions: places in the source by address; each is shown where it is another than the one before.
        in_decimal: whether offsets are; all other numbers are hexadecimal.
    """
    places = positions or {}
    radix = "d" if in_decimal else "#x"
    offsets = [f"<+{found.offset:{radix}}>" if found.offset is not None else "" for found in lines]
    raw = [found.raw.hex(" ") for found in lines]
    texts = [_text(found) for found in lines]
    wide_offset, wide_raw, wide_text = _column(offsets, 4, 10), _column(raw, 8, 23), _column(texts, 8, 44)
    narrow = is_narrow(width)
    for index, found in enumerate(lines):
        is_patched = found.site is not None and (found.image is not None or found.adjust)
        is_wrong = bool(what_is_wrong(found))
        mark = "!" if is_wrong else "~" if is_patched else " "
        arrow = ">" if found.address == current else " "
        note = _note(found, lines[index - 1] if index else None, show_image)
        pieces = [
            Piece(mark, "doubt" if is_wrong else "mark"),
            Piece(arrow),
            Piece(f"{found.address:016x} {offsets[index]:<{wide_offset}}  ", "address"),
        ]
        if not narrow:
            pieces.append(Piece(f"{raw[index]:<{wide_raw}}  ", "changed" if found.image is not None else "note"))
        pieces.append(Piece(f"{texts[index]:<{wide_text}}  ", "symbol"))
        pieces.append(Piece(f"{found.rule or '-':<10}", "rule"))
        before = places.get(lines[index - 1].address) if index else None
        if places.get(found.address) != before:
            yield from position_lines(places.get(found.address), NOTE_INDENT)
        together = sum(len(piece.text) for piece in pieces) + 2 + len(note)
        if note and width is not None and together > width:
            yield pieces
            yield from fold([Piece(" " * NOTE_INDENT), Piece(note, "reason")], width, NOTE_INDENT)
        else:
            yield [*pieces, Piece(f"  {note}" if note else "", "reason")]


def instruction_json(line: ListedInstruction, position: Position | None = None) -> Json:
    """INSTRUCTION of the contract."""
    patch = None
    if line.site is not None and line.image is not None:
        patch = {
            "mechanism": line.site.mechanism,
            "site": hexadecimal(line.site.address),
            "name": line.site.name,
            "adjust": line.adjust,
            "stated_rule": line.stated_rule,
        }
    return {
        "address": hexadecimal(line.address),
        "bytes": line.raw.hex(),
        "mnemonic": line.mnemonic,
        "operands": line.operands,
        "named": [
            {"address": hexadecimal(one.address), "name": one.name, "per_cpu": one.is_per_cpu} for one in line.named
        ],
        "symbol": line.symbol,
        "offset": line.offset,
        "image_bytes": line.image.hex() if line.image is not None else None,
        "account": line.account.value if line.account is not None else None,
        "patch": patch,
        "rule": line.rule,
        **position_json(position),
    }

"""How does a value of a C type look?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from orcdbg.typed.values import Compound, Elements, Scalar, ScalarKind, Value

REPEATS = 8  # equal neighbours from which on they are counted instead of shown
MAX_ELEMENTS = 200  # of an array, as many as gdb shows
STEP = 2

_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ValueStyle:
    """What is known of a value besides itself.

    Attributes:
        symbols: names of the pointers in it.
        in_hexadecimal: whether numbers are hexadecimal.
        words: what its parts say besides their numbers, by the way to them.
        texts: parts that are written otherwise than always.
        most: elements of an array that are shown; None for all.
    """

    symbols: Mapping[int, str] = field(default_factory=dict)
    in_hexadecimal: bool = False
    words: Mapping[_Path, str] = field(default_factory=dict)
    texts: Mapping[_Path, str] = field(default_factory=dict)
    most: int | None = None


def value_texts(value: Value, style: ValueStyle, indent: int = 0, path: _Path = ()) -> Iterator[str]:
    """A value's lines, as a C initializer; all but the first are indented."""
    if isinstance(value, Scalar):
        yield _scalar(value, style, path)
        return
    deeper = indent + STEP
    behind = _behind(style, path)
    if isinstance(value, Elements):
        shown = value.elements[: style.most]
        left = len(value.elements) - len(shown)
        if all(isinstance(element, Scalar) for element in shown):
            words = [_scalar(each, style, (*path, n)) for n, each in enumerate(shown) if isinstance(each, Scalar)]
            collapsed = list(_collapsed(words))
            more = [f"... {left} more"] if left else []
            yield "{" + ", ".join([*collapsed, *more]) + "}" + behind
            return
        parts: list[tuple[str, _Path, Value]] = [("", (*path, n), element) for n, element in enumerate(shown)]
    else:
        left = 0
        parts = [(name, (*path, name), member) for name, member in value.members]
    yield "{"
    for name, part_path, part in parts:
        first, *following = value_texts(part, style, deeper, part_path)
        yield " " * deeper + (f"{name} = {first}" if name else first)
        yield from following
    if left:
        yield " " * deeper + f"... {left} more"
    yield " " * indent + "}" + behind


def _behind(style: ValueStyle, path: _Path) -> str:
    said = style.words.get(path)
    return f"  ({said})" if said else ""


def _scalar(found: Scalar, style: ValueStyle, path: _Path) -> str:
    """A value without parts, and what it says."""
    said = style.words.get(path)
    # Of a string its text says more than what it lies in; that it is where a symbol begins is worth both.
    named = style
    if said is not None and said[0] == '"':
        named = replace(style, symbols={at: name for at, name in style.symbols.items() if "+" not in name})
    text = style.texts.get(path) or _plain_scalar(found, named)
    if said is None or (said[0] == "'" and path in style.texts):
        return text
    # Text and characters stand as in C beside what they are the contents of.
    return f"{text} {said}" if said[0] in "\"'" else f"{text} ({said})"


def _plain_scalar(found: Scalar, style: ValueStyle) -> str:
    value = found.value
    if found.kind is ScalarKind.TEXT:
        return f'"{value}"'
    if value is None:
        return "?"
    if isinstance(value, str):
        return value
    if found.kind is ScalarKind.POINTER and isinstance(value, int):
        name = style.symbols.get(value)
        return f"{value:#x}" + (f" <{name}>" if name else "")
    if found.kind is ScalarKind.BOOL:
        return "true" if value else "false"
    return f"{value:#x}" if style.in_hexadecimal and isinstance(value, int) else str(value)


def _collapsed(words: list[str]) -> Iterator[str]:
    for word, equal in groupby(words):
        count = len(list(equal))
        if count >= REPEATS:
            yield f"{word} <repeats {count} times>"
        else:
            yield from [word] * count


def path_text(path: _Path) -> str:
    """A way to a part as C writes it, `a.b[3]`; empty for the value itself."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def value_json(value: Value) -> Any:
    """VALUE of the contract."""
    if isinstance(value, Compound):
        return {name: value_json(inner) for name, inner in value.members}
    if isinstance(value, Elements):
        return [value_json(inner) for inner in value.elements]
    if value.kind is ScalarKind.POINTER and isinstance(value.value, int):
        return f"{value.value:#x}"
    return bool(value.value) if value.kind is ScalarKind.BOOL else value.value

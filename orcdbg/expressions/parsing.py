"""Which tree does C's grammar make of an expression?

pycparser needs to be told which identifiers are types: they are declared in front. It is imported when the first expression
is asked for, since most questions have none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orcdbg.base.errors import UsageError, WordPlace
from orcdbg.expressions.source import REPLACED, Reference, place_of, tokens_of

if TYPE_CHECKING:
    from pycparser.c_ast import Node

# An expression or a type name, whichever it is: sizeof takes both.
_BEFORE = "int asked = sizeof ("
_AFTER = ");"
_UNFINISHED = tuple("+-*/%&|^~!<>=?,.")
_PLACE = re.compile(r":(\d+):(\d+):")

C_WORDS = frozenset(
    (
        *(
            "auto",
            "break",
            "case",
            "char",
            "const",
            "continue",
            "default",
            "do",
            "double",
            "else",
            "enum",
            "extern",
            "float",
        ),
        *("for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed", "sizeof"),
        *(
            "static",
            "struct",
            "switch",
            "typedef",
            "union",
            "unsigned",
            "void",
            "volatile",
            "while",
            "_Bool",
            "_Alignas",
        ),
        *("_Alignof", "_Atomic", "_Noreturn", "_Pragma", "_Static_assert", "_Thread_local", "__int128", "offsetof"),
    )
)
"""Identifiers that C keeps for itself."""


def parse(text: str, type_names: Sequence[str], written: str, references: Mapping[str, Reference]) -> Node:
    """The tree of an expression, or of a type name (`Typename`).

    Args:
        text: the expression as C.
        type_names: identifiers in it that are types.
        written: the expression as the user wrote it, for messages.
        references: what its replaced names stand for, likewise.

    Raises:
        UsageError: it is neither.
    """
    tree = _parsed(text, tuple(type_names))
    if not isinstance(tree, str):
        return tree
    column = _column(tree)
    if column is None and text[-1:] in _UNFINISHED:
        column = len(text)  # of what follows an operator the parser names no place
    place = None if column is None else _place(column, text, written, references)
    raise UsageError(f"not a C expression: {written}", _hint(column, text, references), place=place)


@functools.lru_cache(maxsize=256)
def _parsed(text: str, type_names: tuple[str, ...]) -> Node | str:
    """The tree, or the parser's complaint; what is asked for again, such as a display, is not parsed again."""
    from pycparser.c_ast import Decl, FileAST, UnaryOp
    from pycparser.c_parser import CParser, ParseError

    declared = "".join(f"typedef int {name};\n" for name in type_names)
    try:
        file = CParser().parse(declared + _BEFORE + text + _AFTER, "")
    except ParseError as error:
        return str(error)
    except AssertionError:
        # pycparser asserts what a declaration must have, which a strange type name breaks.
        return "the parser does not know this form"
    except RecursionError as error:
        raise UsageError("an expression that is nested too deeply") from error

    # What is wrapped around the expression must still be around it: one declaration, of one sizeof.
    assert isinstance(file, FileAST)
    declaration = file.ext[-1]
    is_whole = len(file.ext) == len(type_names) + 1 and isinstance(declaration, Decl)
    if not is_whole or not isinstance(declaration.init, UnaryOp) or declaration.init.op != "sizeof":
        return "more than one expression"
    return declaration.init.expr


def _column(complaint: str) -> int | None:
    """Where in the C text the parser stopped, which may be outside; None where it does not say."""
    place = _PLACE.search(complaint)
    return None if place is None else int(place[2]) - 1 - len(_BEFORE)


def _place(column: int, text: str, written: str, references: Mapping[str, Reference]) -> WordPlace | None:
    """The word that a column of the C text is at, as the user wrote it; None where it is none of the user's."""
    if not 0 <= column < len(text):
        return WordPlace(written, len(written))
    word = text[column:].split(" ", 1)[0]
    # As many words that are the same stand before it here as there.
    count = text[:column].split(" ").count(word)
    wanted = references[word].name if word in references else word
    same = [token for token in tokens_of(written) if token.text.strip("'") == wanted]
    return place_of(same[count], written) if count < len(same) else None


def _hint(column: int | None, text: str, references: Mapping[str, Reference]) -> str | None:
    """Where the parser stopped, in the user's words."""
    if column is None:
        return None
    rest = re.sub(rf"{REPLACED}\d+", lambda match: references[match[0]].name, text[max(column, 0) :])
    return f"C ends before: {rest[:40]}" if 0 <= column < len(text) else "something is missing at the end"


def identifiers(names: Sequence[str]) -> Iterator[str]:
    """Those that C does not keep for itself."""
    return (name for name in names if name not in C_WORDS)

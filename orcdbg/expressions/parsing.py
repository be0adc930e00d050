"""Which tree does C's grammar make of an expression?

pycparser needs to be told which identifiers are types: they are declared in front. It is imported when the first expression
is asked for, since most questions have none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orcdbg.base.errors import UsageError
from orcdbg.expressions.source import REPLACED, Reference

if TYPE_CHECKING:
    from pycparser.c_ast import Node

# An expression or a type name, whichever it is: sizeof takes both.
_BEFORE = "int asked = sizeof ("
_AFTER = ");"
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
    raise UsageError(f"not a C expression: {written}", _hint(tree, text, references))


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


def _hint(complaint: str, text: str, references: Mapping[str, Reference]) -> str | None:
    """Where the parser stopped, in the user's words."""
    place = _PLACE.search(complaint)
    if place is None:
        return None
    column = int(place[2]) - 1 - len(_BEFORE)
    rest = re.sub(rf"{REPLACED}\d+", lambda match: references[match[0]].name, text[max(column, 0) :])
    return f"C ends before: {rest[:40]}" if 0 <= column < len(text) else "something is missing at the end"


def identifiers(names: Sequence[str]) -> Iterator[str]:
    """Those that C does not keep for itself."""
    return (name for name in names if name not in C_WORDS)

"""What is the C of an expression that is written with debuggers' own words?

pycparser knows C. What gdb and crash add to it is taken out first: `$rip` and `$1`, `module!symbol`, `'quoted.symbol'`,
`pointer@count`, the CPUs behind `:`, and `container_of()`, which takes a type where C takes none.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.errors import UsageError, WordPlace

# A person's line; what is longer, or nested deeper, was made to keep a parser busy.
MAX_LENGTH = 4096
MAX_TOKENS = 600
MAX_NESTING = 50

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<special>\$\$\d*|\$\w*)
    |(?P<number>\d[\w.]*)
    |(?P<quoted>'(?:\\.[0-9a-fA-F]*|[^'\\])+')
    |(?P<operator>->|<<=|>>=|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%&|^~!<>=?:.,()\[\]@])""",
    re.VERBOSE | re.ASCII,
)
_ASSIGNING = ("=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=", "++", "--")
_CLOSING = {"(": ")", "[": "]"}
_CHARACTER = re.compile(r"'(\\x[0-9a-fA-F]+|\\[0-7]{1,3}|\\.|[^'\\])'")
_CPUS = re.compile(r"a|all|[0-9,-]*")
_ADDRESS = re.compile(r"ffff[0-9a-f]{12}", re.IGNORECASE)

CONTAINER_OF = ("container_of", "list_entry", "hlist_entry", "rb_entry")
"""The kernel's names for it."""

REPLACED = "orcdbg_name_"
"""How names begin that stand for what C cannot say."""


class ReferenceKind(enum.Enum):
    """What a name that C cannot say is."""

    REGISTER_OR_RECALLED = enum.auto()
    SYMBOL = enum.auto()


class Reference(NamedTuple):
    """What a replaced name stands for; `module` where the symbol must be of that module."""

    kind: ReferenceKind
    name: str
    module: str | None = None


class Token(NamedTuple):
    """A piece of an expression; `group` is its name in the pattern above, `place` where it begins, None where it is made."""

    group: str
    text: str
    place: int | None = None


def place_of(token: Token, written: str) -> WordPlace | None:
    """Where a token stands in the expression."""
    return None if token.place is None else WordPlace(written, token.place, len(token.text))


@dataclass(frozen=True, slots=True)
class ExpressionText:
    """An expression, ready for a parser of C.

    Attributes:
        written: as the user wrote it.
        text: as C.
        references: what its replaced names stand for.
        names: identifiers in it that may be types or objects, each once: members and tags are left out.
        count: of `pointer@count`, the text behind it as C; None without.
        cpus: what stands behind the last `:`, that belongs to no `?`; None without.
    """

    written: str
    text: str
    references: Mapping[str, Reference]
    names: Sequence[str]
    count: str | None
    cpus: str | None


def read_source(written: str) -> ExpressionText:
    """Takes an expression apart.

    Raises:
        UsageError: it cannot be one, or is more than anybody would write.
    """
    tokens = list(tokens_of(written))
    if not tokens:
        raise UsageError("no expression", "for example: p init_task.comm")
    _check_brackets(tokens, written)

    tokens, cpus = _without_cpus(tokens)
    if not tokens:
        raise UsageError(f"nothing before the CPUs: {written}")
    rewriting = _Rewriting()
    tokens, count = _split_count(tokens)
    text = rewriting.text(tokens)
    counted = None if count is None else rewriting.text(count)
    return ExpressionText(written, text, rewriting.references, list(rewriting.names), counted, cpus)


def tokens_of(written: str) -> Iterator[Token]:
    """The pieces of an expression, without blanks; errors as of `read_source`."""
    if len(written) > MAX_LENGTH:
        raise UsageError(f"an expression of {len(written)} characters, more than {MAX_LENGTH}")
    at = count = 0
    while at < len(written):
        match = _TOKEN.match(written, at)
        if match is None:
            hint = _hint_for(written[at])
            raise UsageError(f"no part of a C expression: {written[at : at + 16]}", hint, place=WordPlace(written, at))
        start, at = at, match.end()
        if match.lastgroup == "space":
            continue
        count += 1
        if count > MAX_TOKENS:
            raise UsageError(f"an expression of more than {MAX_TOKENS} words and operators")
        text = match.group()
        if text in _ASSIGNING:
            place = WordPlace(written, start, len(text))
            raise UsageError(f"nothing can be assigned here ({text}): memory is only read", "== compares", place=place)
        yield Token(match.lastgroup or "", text, start)


def _hint_for(character: str) -> str | None:
    return "strings have no place in memory here" if character == '"' else None


def _check_brackets(tokens: Sequence[Token], written: str) -> None:
    """Every bracket has its partner, so that what is wrapped around an expression stays around all of it."""
    opened: list[str] = []
    for token in tokens:
        if token.text in _CLOSING:
            opened.append(_CLOSING[token.text])
            if len(opened) > MAX_NESTING:
                raise UsageError(f"brackets nested deeper than {MAX_NESTING}")
        elif token.text in _CLOSING.values() and (not opened or opened.pop() != token.text):
            raise UsageError(f"{token.text} without its partner: {written}", place=place_of(token, written))
    if opened:
        raise UsageError(f"no {opened[-1]} at the end: {written}", place=WordPlace(written, len(written)))


def _outermost(tokens: Sequence[Token]) -> Iterator[tuple[int, str]]:
    """Places and texts of the tokens outside of all brackets."""
    depth = 0
    for place, token in enumerate(tokens):
        depth -= token.text in _CLOSING.values()
        if not depth:
            yield place, token.text
        depth += token.text in _CLOSING


def _without_cpus(tokens: list[Token]) -> tuple[list[Token], str | None]:
    """The tokens before a `:` that belongs to no `?`, and the text behind it."""
    waiting = 0
    for place, text in _outermost(tokens):
        if text == "?":
            waiting += 1
        elif text == ":" and waiting:
            waiting -= 1
        elif text == ":":
            cpus = "".join(token.text for token in tokens[place + 1 :])
            if not _CPUS.fullmatch(cpus):
                raise UsageError(f"not CPUs behind the colon: {cpus}", "for example: p runqueues:0-3, or :a for all")
            return tokens[:place], cpus
    return tokens, None


def _split_count(tokens: list[Token]) -> tuple[list[Token], list[Token] | None]:
    """What stands before and behind an `@`."""
    places = [place for place, text in _outermost(tokens) if text == "@"]
    if len(places) != sum(token.text == "@" for token in tokens) or len(places) > 1:
        raise UsageError("@ stands once, outside of brackets", "for example: p *pointer@4")
    if not places:
        return tokens, None
    first, count = tokens[: places[0]], tokens[places[0] + 1 :]
    if not first or not count:
        raise UsageError("@ stands between an object and how many", "for example: p *pointer@4")
    return first, count


class _Rewriting:
    """C being made of an expression's tokens."""

    def __init__(self) -> None:
        self.references: dict[str, Reference] = {}
        self.names: dict[str, None] = {}

    def text(self, tokens: Sequence[Token]) -> str:
        """The tokens as C, with blanks between them."""
        return " ".join(self._words(_with_offsetof(tokens)))

    def _words(self, tokens: Sequence[Token]) -> Iterator[str]:
        place = 0
        while place < len(tokens):
            token = tokens[place]
            if token.group == "name" and _is_qualified(tokens, place):
                name = tokens[place + 2].text
                yield self._replaced(Reference(ReferenceKind.SYMBOL, name, token.text))
                place += 3
                continue
            yield self._word(token, tokens[place - 1].text if place else "")
            place += 1

    def _word(self, token: Token, before: str) -> str:
        if token.group == "special":
            return self._replaced(Reference(ReferenceKind.REGISTER_OR_RECALLED, token.text))
        if token.group == "quoted" and not _CHARACTER.fullmatch(token.text):
            return self._replaced(Reference(ReferenceKind.SYMBOL, token.text[1:-1]))
        if token.group == "name":
            if _ADDRESS.fullmatch(token.text):
                return f"0x{token.text}"
            if before not in (".", "->", "struct", "union", "enum"):
                self.names[token.text] = None
        return token.text

    def _replaced(self, reference: Reference) -> str:
        name = f"{REPLACED}{len(self.references)}"
        self.references[name] = reference
        return name


def _is_qualified(tokens: Sequence[Token], place: int) -> bool:
    """Whether `module!symbol` begins there; C has no `!` between two names."""
    following = tokens[place + 1 : place + 3]
    return [token.text == "!" or token.group for token in following] == [True, "name"]


def _with_offsetof(tokens: Sequence[Token]) -> list[Token]:
    """`container_of(p, T, m)` as `container_of(p, offsetof(T, m))`, which is a call with C's arguments."""
    rewritten: list[Token] = []
    # For each bracket that is open: where the argument of container_of() is, None for other brackets.
    arguments: list[int | None] = []
    for token in tokens:
        is_call = token.text == "(" and bool(rewritten) and rewritten[-1].text in CONTAINER_OF
        if token.text in _CLOSING:
            arguments.append(0 if is_call else None)
        elif token.text in _CLOSING.values():
            argument = arguments.pop()
            if argument is not None:
                if argument != 2:
                    raise UsageError("container_of() takes a pointer, a type and a member")
                rewritten.append(token)
        rewritten.append(token)
        if token.text == "," and arguments and arguments[-1] is not None:
            arguments[-1] += 1
            if arguments[-1] == 1:
                rewritten += [Token("name", "offsetof"), Token("operator", "(")]
    return rewritten

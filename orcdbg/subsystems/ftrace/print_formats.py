"""How does a record's `print fmt` read: C's printf with an expression for each argument?

The text is the kernel's own, as in the `format` files of tracefs: `"comm=%s pid=%d", REC->comm, REC->pid`. It has C's
operators, casts, and functions such as `__print_flags()`. What is not understood here is no guess: the caller shows the fields.
"""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from orcdbg.base.reading import signed

Value = int | str | bytes


class TokenKind(enum.Enum):
    """What a token is; the values are the names of its pattern's groups."""

    NUMBER = "number"
    STRING = "string"
    CHARACTER = "char"
    NAME = "name"
    OPERATOR = "operator"


class NodeKind(enum.Enum):
    """What a part of an expression is."""

    NUMBER = enum.auto()
    STRING = enum.auto()
    RECORD = enum.auto()
    FIELD = enum.auto()
    NAME = enum.auto()
    CAST = enum.auto()
    ADDRESS = enum.auto()
    INDEX = enum.auto()
    UNARY = enum.auto()
    BINARY = enum.auto()
    CONDITIONAL = enum.auto()
    CALL = enum.auto()
    BRACES = enum.auto()


Node = tuple[object, ...]  # a NodeKind, and what that has
_U64 = (1 << 64) - 1
_MAX_TOKENS = 1 << 14
_MAX_DEPTH = 64
_MAX_WIDTH = 512
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)[uUlL]*
    |(?P<string>"(?:[^"\\]|\\.)*")|(?P<char>'(?:[^'\\]|\\.)+')
    |(?P<name>[A-Za-z_]\w*)
    |(?P<operator>->|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>?:(){}\[\],.]))""",
    re.VERBOSE,
)
_BINARY = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", ">", "<=", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)
_TYPE_WORDS = frozenset(
    re.findall(
        r"\w+",
        "unsigned signed long int short char void const struct enum union bool size_t ssize_t loff_t dma_addr_t gfp_t pid_t "
        "u8 u16 u32 u64 s8 s16 s32 s64 __u8 __u16 __u32 __u64 __s8 __s16 __s32 __s64 __le16 __le32 __le64 __be16 __be32 __be64 "
        "uintptr_t sector_t phys_addr_t resource_size_t uint32_t uint64_t uint16_t uint8_t int32_t int64_t kuid_t kgid_t dev_t "
        "umode_t ino_t blkcnt_t time64_t ktime_t uid_t gid_t",
    )
)
_SPECIFIER = re.compile(r"%([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+))?(hh|h|ll|l|L|z|t|j|q)?([a-zA-Z%])")
_POINTER = re.compile(r"[A-Za-z0-9]*")


class NotUnderstood(Exception):
    """The text has something that is not read here."""


class PrintFormat(NamedTuple):
    """A format's text, and the expressions of its arguments."""

    text: str
    arguments: Sequence[Node]


class Environment(NamedTuple):
    """What expressions ask of a record and of the kernel.

    Attributes:
        field: a field's number, or the bytes of an array.
        address_of: a field's place in the record.
        symbol: what an address is called, with the offset or without.
        array: the bytes that a field with a place and a length leads to; true where that counts from behind the field.
        constant: the number of an enumerator, or of one of the few variables that formats name.
        size_of: bytes of a type.

    Each raises NotUnderstood for what it does not know.
    """

    field: Callable[[str], Value]
    address_of: Callable[[str], int]
    symbol: Callable[[int, bool], str]
    array: Callable[[str, bool], bytes]
    constant: Callable[[str], int]
    size_of: Callable[[str], int]


# Reading


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[TokenKind, str]] = []
        place = 0
        while place < len(text) and text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None or len(self.tokens) > _MAX_TOKENS:
                raise NotUnderstood(text[place : place + 20])
            self.tokens.append((TokenKind(found.lastgroup), found[str(found.lastgroup)]))
            place = found.end()
        self.at = 0
        self.depth = 0

    @property
    def word(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    @property
    def kind(self) -> TokenKind | None:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else None

    def take(self, wanted: str | None = None) -> str:
        word = self.word
        if self.at >= len(self.tokens) or (wanted is not None and word != wanted):
            raise NotUnderstood(word)
        self.at += 1
        return word

    def strings(self) -> str:
        """Strings side by side, which C joins."""
        parts = []
        while self.kind is TokenKind.STRING:
            parts.append(_unquoted(self.take()))
        return "".join(parts)

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise NotUnderstood("deep")
        condition = self.binary(0)
        if self.word == "?":
            self.take()
            then = self.expression()
            self.take(":")
            condition = (NodeKind.CONDITIONAL, condition, then, self.expression())
        self.depth -= 1
        return condition

    def binary(self, level: int) -> Node:
        if level == len(_BINARY):
            return self.unary()
        left = self.binary(level + 1)
        while self.kind is TokenKind.OPERATOR and self.word in _BINARY[level]:
            operator = self.take()
            left = (NodeKind.BINARY, operator, left, self.binary(level + 1))
        return left

    def unary(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise NotUnderstood("deep")
        try:
            if self.word in ("-", "+", "~", "!"):
                return (NodeKind.UNARY, self.take(), self.unary())
            if self.word == "&":
                self.take()
                operand = self.unary()
                if operand[0] not in (NodeKind.INDEX, NodeKind.FIELD):
                    raise NotUnderstood("&")
                return (NodeKind.ADDRESS, operand)
            if self.word == "(" and self._is_cast():
                return self._cast()
            return self.postfix()
        finally:
            self.depth -= 1

    def _is_cast(self) -> bool:
        return self.at + 1 < len(self.tokens) and self.tokens[self.at + 1][1] in _TYPE_WORDS

    def _cast(self) -> Node:
        self.take("(")
        words = []
        while self.word != ")":
            words.append(self.take())
        self.take(")")
        return (NodeKind.CAST, tuple(words), self.unary())

    def postfix(self) -> Node:
        node = self.primary()
        while self.word in ("[", "->", "."):
            if self.take() == "[":
                node = (NodeKind.INDEX, node, self.expression())
                self.take("]")
            else:
                if node[0] not in (NodeKind.FIELD, NodeKind.RECORD):
                    raise NotUnderstood("->")
                name = self.take()
                node = (NodeKind.FIELD, name if node[0] is NodeKind.RECORD else f"{node[1]}.{name}")
        return node

    def primary(self) -> Node:
        kind, word = self.kind, self.word
        if kind is TokenKind.NUMBER:
            self.take()
            return (
                NodeKind.NUMBER,
                int(word, 0) if word[:2] in ("0x", "0X") or word == "0" else _octal_or_decimal(word),
            )
        if kind is TokenKind.STRING:
            return (NodeKind.STRING, self.strings())
        if kind is TokenKind.CHARACTER:
            self.take()
            return (NodeKind.NUMBER, ord(_unquoted(f'"{word[1:-1]}"') or "\0"))
        if word == "(":
            self.take()
            node = self.expression()
            self.take(")")
            return node
        if kind is TokenKind.NAME:
            self.take()
            if word == "REC":
                return (NodeKind.RECORD,)
            if self.word == "(":
                return (NodeKind.CALL, word, tuple(self.arguments()))
            return (NodeKind.NAME, word)
        raise NotUnderstood(word)

    def arguments(self) -> list[Node]:
        self.take("(")
        found: list[Node] = []
        while self.word != ")":
            found.append(self.braces() if self.word == "{" else self.expression())
            if self.word == ",":
                self.take()
            elif self.word != ")":
                raise NotUnderstood(self.word)
        self.take(")")
        return found

    def braces(self) -> Node:
        self.take("{")
        inner: list[Node] = []
        while self.word != "}":
            inner.append(self.braces() if self.word == "{" else self.expression())
            if self.word == ",":
                self.take()
            elif self.word != "}":
                raise NotUnderstood(self.word)
        self.take("}")
        return (NodeKind.BRACES, tuple(inner))


def _octal_or_decimal(word: str) -> int:
    try:
        return int(word, 8) if word.startswith("0") else int(word)
    except ValueError as error:
        raise NotUnderstood(word) from error


def _unquoted(word: str) -> str:
    try:
        found = ast.literal_eval(word.replace("\n", "\\n"))
    except (SyntaxError, ValueError) as error:
        raise NotUnderstood(word) from error
    return str(found)


def parse(text: str) -> PrintFormat:
    """A format taken apart.

    Raises:
        NotUnderstood: it is not of the form that is known here.
    """
    parser = _Parser(text)
    format_ = parser.strings()
    arguments: list[Node] = []
    while parser.word == ",":
        parser.take()
        arguments.append(parser.expression())
    if parser.at < len(parser.tokens):
        raise NotUnderstood(parser.word)
    return PrintFormat(format_, arguments)


# Computing


def evaluate(node: Node, environment: Environment) -> Value:
    """An expression's value.

    Raises:
        NotUnderstood: it asks for something that a record does not tell.
    """
    compute = _EVALUATE.get(node[0])
    if compute is None:
        raise NotUnderstood(str(node[0]))
    return compute(node, environment)


def _conditional(node: Node, environment: Environment) -> Value:
    chosen = node[2] if _number(_inner(node[1]), environment) else node[3]
    return evaluate(_inner(chosen), environment)


def _inner(node: object) -> Node:
    if not isinstance(node, tuple):
        raise NotUnderstood(str(node))
    return node


_EVALUATE: Mapping[object, Callable[[Node, Environment], Value]] = {
    NodeKind.NUMBER: lambda node, environment: int(str(node[1])),
    NodeKind.STRING: lambda node, environment: str(node[1]),
    NodeKind.FIELD: lambda node, environment: environment.field(str(node[1])),
    NodeKind.CAST: lambda node, environment: _cast(_inner(node[1]), evaluate(_inner(node[2]), environment)),
    NodeKind.ADDRESS: lambda node, environment: _address(_inner(node[1]), environment),
    NodeKind.INDEX: lambda node, environment: _element(
        evaluate(_inner(node[1]), environment), _number(_inner(node[2]), environment)
    ),
    NodeKind.UNARY: lambda node, environment: _unary(str(node[1]), _number(_inner(node[2]), environment)),
    NodeKind.CONDITIONAL: _conditional,
    NodeKind.BINARY: lambda node, environment: _computed(str(node[1]), _inner(node[2]), _inner(node[3]), environment),
    NodeKind.NAME: lambda node, environment: environment.constant(str(node[1])),
    NodeKind.CALL: lambda node, environment: _call(str(node[1]), _inner(node[2]), environment),
}


def _computed(operator: str, first: Node, second: Node, environment: Environment) -> int:
    """Two numbers with an operator; the second is not asked for where the first decides, and counts elements of a pointer."""
    left = _number(first, environment)
    if operator in ("&&", "||"):
        is_decided = (left != 0) == (operator == "||")
        return int(operator == "||") if is_decided else int(_number(second, environment) != 0)
    right = _number(second, environment)
    if operator == "+" and first[0] is NodeKind.CAST and "*" in _inner(first[1]):
        right *= environment.size_of(" ".join(str(word) for word in _inner(first[1]) if word != "*"))
    return _binary(operator, left, right)


def _number(node: Node, environment: Environment) -> int:
    value = evaluate(node, environment)
    if isinstance(value, int):
        return value
    raise NotUnderstood("a number is wanted")


def _address(node: Node, environment: Environment) -> int:
    if node[0] is NodeKind.INDEX:
        return _address(_inner(node[1]), environment) + _number(_inner(node[2]), environment)
    if node[0] is not NodeKind.FIELD:
        raise NotUnderstood("&")
    return environment.address_of(str(node[1]))


def _element(value: Value, index: int) -> int:
    if isinstance(value, bytes) and 0 <= index < len(value):
        return value[index]
    raise NotUnderstood("[]")


def _cast(given: Sequence[object], value: Value) -> Value:
    words = [str(word) for word in given]
    if not isinstance(value, int) or "*" in words:
        return value
    bits = {"char": 8, "u8": 8, "s8": 8, "__u8": 8, "short": 16, "u16": 16, "s16": 16, "__u16": 16}.get(words[-1])
    if bits is None:
        is_int = words[-1] in ("int", "u32", "s32", "__u32", "__s32", "unsigned", "pid_t")
        bits = 32 if is_int and "long" not in words else 64
    is_signed = not (words[0] == "unsigned" or words[-1].lstrip("_").startswith("u") or words[-1].endswith("_t"))
    masked = value & (1 << bits) - 1
    return signed(masked, bits) if is_signed else masked


def _unary(operator: str, value: int) -> int:
    return {"-": -value, "+": value, "~": ~value, "!": int(not value)}[operator]


_COMPUTE: Mapping[str, Callable[[int, int], int]] = {
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    # As numbers of 64 bits: `REC->pfn != -1UL` asks for all bits.
    "==": lambda a, b: int(not (a ^ b) & _U64),
    "!=": lambda a, b: int(bool((a ^ b) & _U64)),
    "<": lambda a, b: int(a < b),
    ">": lambda a, b: int(a > b),
    "<=": lambda a, b: int(a <= b),
    ">=": lambda a, b: int(a >= b),
    "<<": lambda a, b: a << (b & 63) & _U64,
    ">>": lambda a, b: a >> (b & 63),
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def _binary(operator: str, left: int, right: int) -> int:
    if operator in ("/", "%"):
        if not right:
            raise NotUnderstood("division by zero")
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return quotient if operator == "/" else left - right * quotient
    return signed_wide(_COMPUTE[operator](left, right))


def signed_wide(value: int) -> int:
    """A number as 64 bits hold it: negative ones stay negative, large ones unsigned."""
    return value if -(1 << 63) <= value <= _U64 else value & _U64


def _call(name: str, given: Sequence[object], environment: Environment) -> Value:
    arguments = [_inner(one) for one in given]
    if name == "__builtin_expect" and arguments:
        return evaluate(arguments[0], environment)
    field_name = str(arguments[0][1]) if arguments and arguments[0][0] is NodeKind.NAME else None
    if field_name is not None and name in ("__get_str", "__get_rel_str"):
        data = environment.array(field_name, name == "__get_rel_str")
        return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    if field_name is not None and name in ("__get_dynamic_array", "__get_rel_dynamic_array"):
        return environment.array(field_name, "rel" in name)
    if field_name is not None and name in ("__get_dynamic_array_len", "__get_rel_dynamic_array_len"):
        return len(environment.array(field_name, "rel" in name))
    if name in ("__print_flags", "__print_flags_u64"):
        return _flags(_number(arguments[0], environment) & _U64, arguments[1:], environment)
    if name in ("__print_symbolic", "__print_symbolic_u64"):
        value = _number(arguments[0], environment)
        names = dict(_pairs(arguments[1:], environment))
        return names.get(value, names.get(value & _U64, f"{value & _U64:#x}"))
    if name == "__print_hex" or name == "__print_hex_str":
        data_ = evaluate(arguments[0], environment)
        count = _number(arguments[1], environment)
        if isinstance(data_, bytes):
            return data_[: max(count, 0)].hex(" " if name == "__print_hex" else "")
    if name == "__print_array":
        data_ = evaluate(arguments[0], environment)
        count, size = _number(arguments[1], environment), _number(arguments[2], environment)
        if isinstance(data_, bytes) and size in (1, 2, 4, 8):
            words = [data_[i : i + size] for i in range(0, min(len(data_), max(count, 0) * size), size)]
            return "{" + ",".join(f"{int.from_bytes(word, 'little'):#x}" for word in words) + "}"
    raise NotUnderstood(name)


def _pairs(nodes: Sequence[Node], environment: Environment) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for node in nodes:
        inner = node[1] if node[0] is NodeKind.BRACES else ()
        if not isinstance(inner, tuple) or len(inner) != 2:
            raise NotUnderstood("{}")
        text = evaluate(inner[1], environment)
        found.append((_number(inner[0], environment), str(text)))
    return found


def _flags(value: int, arguments: Sequence[Node], environment: Environment) -> str:
    """As trace_print_flags_seq(): the names of all masks that are in, then what is left."""
    between = str(evaluate(arguments[0], environment))
    parts = []
    for mask, name in _pairs(arguments[1:], environment):
        if not value:
            break
        if value & mask == mask:
            parts.append(name)
            value &= ~mask
    if value:
        parts.append(f"{value:#x}")
    return between.join(parts)


# Writing


def write(format_: PrintFormat, environment: Environment) -> str:
    """A record's text.

    Raises:
        NotUnderstood: the format or an argument is not understood.
    """
    values = [evaluate(argument, environment) for argument in format_.arguments]
    return printf(format_.text, values, environment.symbol)


def printf(text: str, values: Sequence[Value], symbol: Callable[[int, bool], str]) -> str:
    """As the kernel's printf, for the types that traces have; `symbol` names an address, with its offset or without.

    Raises:
        NotUnderstood: a conversion is not known here, or there are too few values.
    """
    given = iter(values)
    out: list[str] = []
    place = 0
    while (percent := text.find("%", place)) >= 0:
        out.append(text[place:percent])
        found = _SPECIFIER.match(text, percent)
        if found is None:
            raise NotUnderstood(text[percent : percent + 8])
        place = found.end()
        flags, width, precision, length, conversion = found.groups()
        if conversion == "%":
            out.append("%")
            continue
        width = str(next(given, 0)) if width == "*" else width
        precision = str(next(given, 0)) if precision == "*" else precision
        value = next(given, None)
        if value is None:
            raise NotUnderstood("too few arguments")
        if conversion == "p":
            kind = _POINTER.match(text, place)
            suffix = kind[0] if kind is not None else ""
            place += len(suffix)
            shown = _pointer(suffix, value, symbol)
        else:
            shown = _converted(conversion, length or "", flags, precision, value)
        out.append(_padded(shown, flags, width))
    return "".join(out) + text[place:]


def _padded(text: str, flags: str, width: str | None) -> str:
    if not width:
        return text
    columns = min(abs(int(width)), _MAX_WIDTH)
    if "-" in flags or width.startswith("-"):
        return text.ljust(columns)
    if "0" in flags and text[:1] in "-0123456789abcdefABCDEF":
        return text.zfill(columns)
    return text.rjust(columns)


def _pointer(suffix: str, value: Value, symbol: Callable[[int, bool], str]) -> str:
    if not isinstance(value, int):
        raise NotUnderstood("%p")
    if suffix[:1] in ("S", "B"):
        return symbol(value & _U64, True)
    if suffix[:1] in ("s", "f", "F"):
        return symbol(value & _U64, False)
    if suffix in ("", "K", "x"):
        return f"{value & _U64:016x}"
    raise NotUnderstood(f"%p{suffix}")


def _converted(conversion: str, length: str, flags: str, precision: str | None, value: Value) -> str:
    if conversion == "s":
        if isinstance(value, bytes):
            value = value.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
        if not isinstance(value, str):
            raise NotUnderstood("%s of a pointer")
        return value if precision is None else value[: max(int(precision), 0)]
    if not isinstance(value, int):
        raise NotUnderstood(f"%{conversion}")
    bits = {"hh": 8, "h": 16, "": 32}.get(length, 64)
    masked = value & (1 << bits) - 1
    if conversion in ("d", "i"):
        return f"{signed(masked, bits)}"
    if conversion == "c":
        return chr(masked & 0x7F)
    text = {"u": f"{masked}", "x": f"{masked:x}", "X": f"{masked:X}", "o": f"{masked:o}"}.get(conversion)
    if text is None:
        raise NotUnderstood(f"%{conversion}")
    if precision:
        text = text.zfill(min(int(precision), _MAX_WIDTH))
    return f"0x{text}" if "#" in flags and conversion in "xX" and masked else text

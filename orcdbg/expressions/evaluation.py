"""What does a C expression mean of the stopped kernel?

Objects come out: types, and places whose bytes are read when a number is needed. A question for a type alone, as sizeof
asks, reads nothing, as in C.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.base.near_names import did_you_mean
from orcdbg.base.reasons import WhyNoValue
from orcdbg.base.sizes import U64
from orcdbg.expressions import arithmetic
from orcdbg.expressions.arithmetic import INT, LONG, UNSIGNED_LONG
from orcdbg.expressions.parsing import identifiers, parse
from orcdbg.expressions.scope import NoScope, Scope
from orcdbg.expressions.source import CONTAINER_OF, ExpressionText, Reference, ReferenceKind, read_source
from orcdbg.expressions.symbols import FoundSymbol, Untyped, find_symbol
from orcdbg.expressions.type_names import TypeNames
from orcdbg.typed.declarations import type_name
from orcdbg.typed.objects import Absent, Object
from orcdbg.typed.program import Program
from orcdbg.typed.types import (
    VOID,
    ArrayType,
    CompoundType,
    EnumType,
    FloatType,
    FunctionType,
    IncompleteType,
    IntKind,
    IntType,
    PointerType,
    Type,
    TypedefType,
    VoidType,
    array_of,
    pointer_to,
    resolved,
)

# Of `pointer@count`: as many as a value may have parts.
MAX_COUNT = 1 << 16

_NOT_ASKED = Absent("its type alone is asked for", WhyNoValue.NOT_ASKED)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an expression means.

    Attributes:
        source: the expression.
        values: one, or one for each CPU that was asked for: the CPU's number, None where none was, and the object.
        is_type: whether the expression is the name of a type; its object is of that type and nowhere.
        owner: of a member, the name of the structure that it is of; else empty.
        name: of a member or variable; else empty.
    """

    source: ExpressionText
    values: Sequence[tuple[int | None, Object]]
    is_type: bool = False
    owner: str = ""
    name: str = ""


def evaluate(program: Program, written: str, scope: Scope | None = None, types_only: bool = False) -> Evaluated:
    """Evaluates an expression, or names a type.

    Args:
        program: the kernel that it is asked of.
        written: the expression.
        scope: what else it may speak of.
        types_only: the type is enough, and no memory is read.

    Raises:
        UsageError: it means nothing.
        NotFound: it names what is not there.
        OrcdbgError: memory that it needs cannot be read.
    """
    source = read_source(written)
    names = scope or NoScope()
    try:
        if source.cpus is None:
            evaluation = _Evaluation(program, names, source, None, types_only)
            is_type, found = evaluation.whole()
            return Evaluated(source, [(None, found)], is_type, *evaluation.named)

        values = []
        for cpu in _cpus(program, names, source.cpus):
            evaluation = _Evaluation(program, names, source, cpu, types_only)
            is_type, found = evaluation.whole()
            if is_type or not evaluation.has_per_cpu:
                raise UsageError(f"nothing per CPU is in it, so no :{source.cpus}: {written}")
            values.append((cpu, found))
        return Evaluated(source, values, False, *evaluation.named)
    except RecursionError as error:
        raise UsageError("an expression that is nested too deeply") from error


def _cpus(program: Program, scope: Scope, text: str) -> list[int]:
    """The CPUs that stand behind the colon: none is the selected one, `a` is all."""
    if not text:
        return [scope.this_cpu()]
    limit = program.linux.cpu_limit()
    if text in ("a", "all"):
        return list(range(limit))
    cpus: dict[int, None] = {}
    for piece in text.split(","):
        first, dash, last = piece.partition("-")
        try:
            numbers = range(int(first), int(last if dash else first) + 1)
        except ValueError as error:
            raise UsageError(f"not CPUs: {text}", "for example: p runqueues:0-3, or :a for all") from error
        if not numbers or numbers[-1] >= limit:
            raise NotFound("CPU", piece, f"this machine has CPUs 0 to {limit - 1}")
        cpus.update(dict.fromkeys(numbers))
    return list(cpus)


class _Evaluation:
    """One expression being evaluated, for one CPU.

    Attributes:
        has_per_cpu: whether a per-CPU variable was come upon.
        named: of a member the names of its structure and its own, of a variable its own; else empty.
    """

    def __init__(
        self, program: Program, scope: Scope, source: ExpressionText, cpu: int | None, types_only: bool
    ) -> None:
        self._program = program
        self._scope = scope
        self._source = source
        self._cpu = cpu
        self._types_only = types_only
        self._type_names = TypeNames(program, self._length)
        self.has_per_cpu = False
        self.named = ("", "")

    def whole(self) -> tuple[bool, Object]:
        """Whether it names a type, and its value."""
        node = self._tree(self._source.text)
        if _is(node, "Typename"):
            return True, Object(self._program, self._type_names.type(node), _NOT_ASKED)
        found = self.value(node)
        self.named = self._named(node)
        if self._source.count is not None:
            return False, self._slice(found, self._source.count)
        if isinstance(found.type_, Untyped):
            found = self._decayed(found)
        return False, found

    def _named(self, node: Any) -> tuple[str, str]:
        """As the attribute `named`."""
        while _is(node, "ArrayRef"):
            node = node.name
        if _is(node, "ID") and node.name not in self._source.references:
            return "", node.name
        if not _is(node, "StructRef"):
            return "", ""
        type_ = self._typed_only(node.name).type_
        plain = self._program.completed(resolved(type_))
        if isinstance(plain, PointerType):
            type_ = plain.target
            plain = self._program.completed(resolved(type_))
        tag = plain.name or (type_.name if isinstance(type_, TypedefType) else "")
        return tag, node.field.name

    def _tree(self, text: str) -> Any:
        source = self._source
        types = [name for name in identifiers(source.names) if self._is_type(name)]
        return parse(text, types, source.written, source.references)

    def _is_type(self, name: str) -> bool:
        """Whether an identifier is a type, not an object; what the kernel has as both is an object, but for a typedef."""
        if self._scope.find_local(name) is not None or name in CONTAINER_OF or name in _CALLS:
            return False
        catalog = self._program.catalog
        if self._program.kernel_types.find("", name) is not None:
            return True
        if self._program.linux.symbols.find(name) is not None:
            return False
        if all(catalog.find(keyword, name) is None for keyword in ("", "struct", "union")):
            return False
        # Modules' symbols are asked last: their tables are read for it.
        return find_symbol(self._program, name, None) is None

    def _slice(self, first: Object, count: str) -> Object:
        """`first@count`: an array of so many that begins with an object in memory."""
        number = self._number(self.value(self._tree(count)))
        if not 0 < number <= MAX_COUNT:
            raise UsageError(f"{number} elements behind @", f"1 to {MAX_COUNT} are shown")
        if first.address_ is None:
            raise UsageError("only what is in memory has others behind it", "for example: p *pointer@4")
        if isinstance(first.type_, Untyped):
            raise first.type_.error()
        return Object(self._program, array_of(first.type_, number), first.place_)

    # Numbers

    def _length(self, node: Any) -> int:
        return self._number(self.value(node))

    def _number(self, found: Object) -> int:
        """An object's number; where types alone are asked for it is 1, which nothing goes wrong with."""
        plain = self._plain(found)
        if isinstance(plain, FloatType):
            raise UsageError("floating point is not computed with")
        if not isinstance(plain, IntType | EnumType | PointerType | ArrayType | FunctionType):
            raise UsageError(f"{type_name(found.type_)} is not a number", _member_hint(plain))
        return 1 if self._types_only else int(found)

    def _plain(self, found: Object) -> Type:
        if isinstance(found.type_, Untyped):
            raise found.type_.error()
        return found.plain_type_

    def _made(self, type_: Type, number: int) -> Object:
        return self._program.value(type_, number)

    def _integer(self, found: Object) -> tuple[int, IntType]:
        """An integer operand's number, and the type that it is computed in."""
        plain = self._plain(found)
        if not isinstance(plain, IntType | EnumType):
            hint = "cast it: (unsigned long)" if isinstance(plain, PointerType) else _member_hint(plain)
            raise UsageError(f"{type_name(found.type_)} is no integer", hint)
        type_ = arithmetic.promoted(plain, found.bit_size_)
        return arithmetic.wrapped(self._number(found), type_), type_

    def _decayed(self, found: Object) -> Object:
        """An array as the pointer to its first element, a function as its address."""
        if isinstance(found.type_, Untyped):
            if not found.type_.is_text or found.address_ is None:
                raise found.type_.error()
            return self._made(pointer_to(VOID), found.address_)
        plain = found.plain_type_
        if isinstance(plain, ArrayType):
            return self._pointer(plain.target, found)
        return self._pointer(found.type_, found) if isinstance(plain, FunctionType) else found

    def _pointer(self, target: Type, found: Object) -> Object:
        """A pointer to where an object is."""
        if found.bit_size_:
            raise UsageError("a bit-field has no address")
        if self._types_only:
            return self._made(pointer_to(target), 1)
        if found.address_ is None:
            why = (
                found.place_.why if isinstance(found.place_, Absent) else "a value that is not in memory has no address"
            )
            raise UsageError(why)
        return self._made(pointer_to(target), found.address_)

    # Trees

    def value(self, node: Any) -> Object:
        """The value of a tree."""
        evaluate_node = _NODES.get(type(node).__name__)
        if evaluate_node is None:
            raise UsageError(f"not to be asked of a stopped kernel: {type(node).__name__}")
        return evaluate_node(self, node)

    def _typed_only(self, node: Any) -> Object:
        """A tree's type, without a look at memory."""
        before, self._types_only = self._types_only, True
        try:
            return self.value(node)
        finally:
            self._types_only = before

    def _constant(self, node: Any) -> Object:
        if node.value.endswith("'"):
            return self._made(arithmetic.CHAR, arithmetic.character(node.value))
        number, type_ = arithmetic.constant(node.value)
        return self._made(type_, number)

    def _typename(self, node: Any) -> Object:
        raise UsageError(f"a type where a value is needed: {type_name(self._type_names.type(node))}")

    def _comma(self, node: Any) -> Object:
        return [self.value(each) for each in node.exprs][-1]

    # Names

    def _identifier(self, node: Any) -> Object:
        reference = self._source.references.get(node.name)
        if reference is not None:
            return self._referred(reference)
        local = self._scope.find_local(node.name)
        if local is not None:
            return local
        symbol = find_symbol(self._program, node.name, None)
        if symbol is not None:
            return self._at_symbol(symbol)
        enumerator = self._program.catalog.enumerator(node.name)
        if enumerator is not None:
            return self._enumerator(*enumerator)
        raise NotFound("symbol, variable or enumerator", node.name, lambda: self._similar(node.name))

    def _similar(self, name: str) -> str | None:
        if self._program.catalog.find("struct", name) is not None:
            return f"struct {name} is a type"
        if set(name.lower()) <= set("0123456789abcdef"):
            return f"a hexadecimal number begins with 0x: 0x{name}"
        near = self._program.names.near(name) or [f"struct {each}" for each in self._program.catalog.near(name)]
        return did_you_mean(near) or "`sym -q` searches for names"

    def _referred(self, reference: Reference) -> Object:
        if reference.kind is ReferenceKind.SYMBOL:
            symbol = find_symbol(self._program, reference.name, reference.module)
            if symbol is None:
                where = f"{reference.module}!" if reference.module else ""
                raise NotFound("symbol", f"{where}{reference.name}", lambda: self._similar_in(reference))
            return self._at_symbol(symbol)
        word = reference.name
        if word == "$_" or not word.strip("$") or word.strip("$").isdigit():
            return self._scope.recalled(word)
        return self._scope.register(word[1:])

    def _similar_in(self, reference: Reference) -> str | None:
        names = self._program.names
        if reference.module is None:
            return did_you_mean(names.near(reference.name))
        near = names.near(f"{reference.module}:{reference.name}")
        return did_you_mean([name.replace(":", "!", 1) for name in near])

    def _at_symbol(self, symbol: FoundSymbol) -> Object:
        if not symbol.is_per_cpu:
            return self._program.object(symbol.type, symbol.address)
        self.has_per_cpu = True
        if self._types_only:
            return Object(self._program, symbol.type, _NOT_ASKED)
        if self._cpu is None:
            hint = (
                f"name the CPU: {symbol.name}:0, {symbol.name}:0-3, {symbol.name}:a for all, per_cpu({symbol.name}, 0)"
            )
            raise UsageError(f"{symbol.name} is there once for each CPU", hint)
        return self._program.object(symbol.type, symbol.address + self._program.linux.per_cpu_offset(self._cpu))

    def _enumerator(self, type_: EnumType, number: int) -> Object:
        """An enumerator: an int, whatever its enumeration is, unless that cannot hold it."""
        if arithmetic.wrapped(number, INT) == number and type_.size == INT.size:
            type_ = EnumType(type_.name, type_.size, True, type_.enumerators)
        return self._made(type_, number)

    # Members, elements, addresses

    def _member(self, node: Any) -> Object:
        outer = self.value(node.name)
        return self._member_of(outer, node.field.name)

    def _member_of(self, outer: Object, name: str) -> Object:
        """A member; debuggers take `.` and `->` for each other, but never one for two steps."""
        plain = self._plain(outer)
        if isinstance(plain, ArrayType):
            raise UsageError(f"{type_name(outer.type_)} is an array", f"name an element: [0].{name}")
        if isinstance(plain, PointerType):
            outer = self._dereferenced(outer)
            plain = self._plain(outer)
        if not isinstance(plain, CompoundType):
            raise UsageError(f"{type_name(outer.type_)} has no members, so no {name}", _incomplete_hint(plain))
        if plain.find(name) is None:
            raise plain.unknown(name)
        return outer.member_(name)

    def _dereferenced(self, pointer: Object, index: int = 0) -> Object:
        """What a pointer points to, or the element so many behind that."""
        pointer = self._decayed(pointer)
        plain = self._plain(pointer)
        if not isinstance(plain, PointerType):
            hint = f"cast it: *(TYPE *){'' if pointer.address_ is None else 'EXPRESSION'}".rstrip()
            raise UsageError(f"{type_name(pointer.type_)} is no pointer", hint)
        if self._types_only:
            return Object(self._program, plain.target, _NOT_ASKED)
        return pointer.deref_(index)

    def _element(self, node: Any) -> Object:
        outer = self.value(node.name)
        index = self.value(node.subscript)
        plain = self._plain(outer)
        if isinstance(plain, IntType | EnumType) and isinstance(self._plain(index), PointerType | ArrayType):
            outer, index, plain = index, outer, self._plain(index)
        number = self._integer(index)[0]
        if self._types_only or not isinstance(plain, ArrayType):
            return self._dereferenced(outer, number)
        if plain.length is not None and not 0 <= number < plain.length:
            hint = "to look behind its end all the same, take its address: (&ARRAY[0])[N]"
            raise UsageError(f"no element {number}: {type_name(outer.type_)}", hint)
        if outer.address_ is None:
            return outer[number]
        return self._dereferenced(outer, number)

    def _address_of(self, node: Any) -> Object:
        found = self._plain_place(node)
        if found is None:
            found = self.value(node)
        if isinstance(found.type_, Untyped):
            assert found.address_ is not None
            return self._made(pointer_to(VOID), found.address_)
        return self._pointer(found.type_, found)

    def _plain_place(self, node: Any) -> Object | None:
        """A per-CPU variable of no CPU, or a member of one, whose address alone is taken, as `this_cpu_ptr(&variable)` does."""
        root = node
        while _is(root, "StructRef") and root.type == ".":
            root = root.name
        if self._cpu is not None or not _is(root, "ID") or root.name in self._source.references:
            return None
        if self._scope.find_local(root.name) is not None:
            return None
        symbol = find_symbol(self._program, root.name, None)
        if symbol is None or not symbol.is_per_cpu:
            return None
        self.has_per_cpu = True

        def place(each: Any) -> Object:
            if each is root:
                return self._program.object(symbol.type, symbol.address)
            outer = place(each.name)
            if isinstance(self._plain(outer), PointerType):
                raise UsageError(f"{symbol.name} is there once for each CPU", f"name the CPU: {symbol.name}:0")
            return self._member_of(outer, each.field.name)

        return place(node)

    # Operators

    def _unary(self, node: Any) -> Object:
        if node.op == "sizeof":
            return self._made(UNSIGNED_LONG, self._size(node.expr))
        if node.op == "&":
            return self._address_of(node.expr)
        operand = self.value(node.expr)
        if node.op == "*":
            return self._dereferenced(operand)
        if node.op == "!":
            return self._made(INT, not self._truth(operand))
        number, type_ = self._integer(operand)
        if node.op == "-":
            number = -number
        elif node.op == "~":
            number = ~number
        elif node.op != "+":
            raise UsageError(f"not to be asked of a stopped kernel: {node.op}")
        return self._made(type_, arithmetic.wrapped(number, type_))

    def _size(self, node: Any) -> int:
        if _is(node, "Typename"):
            type_ = self._type_names.type(node)
        else:
            found = self._typed_only(node)
            if found.bit_size_:
                raise UsageError("a bit-field has no size in bytes")
            self._plain(found)
            type_ = found.type_
        return self._size_of(type_)

    def _size_of(self, type_: Type) -> int:
        plain = self._program.completed(resolved(type_))
        if isinstance(plain, VoidType | FunctionType):
            return 1  # as GNU C counts
        if isinstance(plain, IncompleteType):
            raise UsageError(f"the size of {type_name(type_)} is not known")
        return plain.size

    def _truth(self, found: Object) -> bool:
        return self._number(self._decayed(found)) != 0

    def _binary(self, node: Any) -> Object:
        symbol = node.op
        if symbol in ("&&", "||"):
            decides = self._truth(self.value(node.left))
            if decides is (symbol == "||"):
                self._typed_only(node.right)
                return self._made(INT, decides)
            return self._made(INT, self._truth(self.value(node.right)))

        left, right = self._decayed(self.value(node.left)), self._decayed(self.value(node.right))
        if isinstance(self._plain(left), PointerType) or isinstance(self._plain(right), PointerType):
            return self._with_pointer(symbol, left, right)
        left_number, left_type = self._integer(left)
        right_number, right_type = self._integer(right)
        if symbol in ("<<", ">>"):
            return self._made(left_type, arithmetic.shifted(symbol, left_number, right_number, left_type))
        type_ = arithmetic.common(left_type, right_type)
        left_number, right_number = (arithmetic.wrapped(number, type_) for number in (left_number, right_number))
        if symbol in arithmetic.COMPARISONS:
            return self._made(INT, arithmetic.COMPARISONS[symbol](left_number, right_number))
        return self._made(type_, arithmetic.computed(symbol, left_number, right_number, type_))

    def _with_pointer(self, symbol: str, left: Object, right: Object) -> Object:
        """An operation of which one operand at least is a pointer."""
        if symbol in arithmetic.COMPARISONS:
            # An address is compared with a number as gdb does; C would warn.
            numbers = [self._number(operand) & U64 for operand in (left, right)]
            return self._made(INT, arithmetic.COMPARISONS[symbol](*numbers))

        left_plain, right_plain = self._plain(left), self._plain(right)
        if symbol == "+" and isinstance(right_plain, PointerType):
            left, left_plain, right, right_plain = right, right_plain, left, left_plain
        if symbol not in ("+", "-") or not isinstance(left_plain, PointerType):
            raise UsageError(f"C has no {symbol} of pointers", "cast it: (unsigned long)POINTER")

        size = self._size_of(left_plain.target)
        if isinstance(right_plain, PointerType):
            return self._difference(symbol, left, right, size)
        count = self._integer(right)[0]
        return self._made(left.type_, self._number(left) + (count if symbol == "+" else -count) * size & U64)

    def _difference(self, symbol: str, left: Object, right: Object, size: int) -> Object:
        right_plain = self._plain(right)
        assert isinstance(right_plain, PointerType)
        if symbol != "-" or self._size_of(right_plain.target) != size or not size:
            raise UsageError(f"C has no {symbol} of these pointers", "cast them: (unsigned long)POINTER")
        bytes_between = arithmetic.wrapped(self._number(left) - self._number(right), LONG)
        if bytes_between % size and not self._types_only:
            raise UsageError(f"{bytes_between} bytes are between the pointers, no whole elements of {size}")
        return self._made(LONG, bytes_between // size)

    def _conditional(self, node: Any) -> Object:
        is_true = self._truth(self.value(node.cond))
        chosen = self._decayed(self.value(node.iftrue if is_true else node.iffalse))
        other = self._decayed(self._typed_only(node.iffalse if is_true else node.iftrue))
        plain, other_plain = self._plain(chosen), self._plain(other)
        if not isinstance(plain, IntType | EnumType):
            return chosen
        if isinstance(other_plain, PointerType):
            return self._made(other.type_, self._number(chosen))
        number, type_ = self._integer(chosen)
        if not isinstance(other_plain, IntType | EnumType):
            raise UsageError(f"{type_name(plain)} on one side of the colon, {type_name(other_plain)} on the other")
        type_ = arithmetic.common(type_, arithmetic.promoted(other_plain, other.bit_size_))
        return self._made(type_, arithmetic.wrapped(number, type_))

    def _cast(self, node: Any) -> Object:
        type_ = self._type_names.type(node.to_type)
        return self._as_type(self.value(node.expr), type_)

    def _as_type(self, found: Object, type_: Type) -> Object:
        plain = self._program.completed(resolved(type_))
        if isinstance(plain, VoidType):
            return Object(self._program, type_, Absent("a void has no value", WhyNoValue.NOT_ASKED))
        if not isinstance(plain, IntType | EnumType | PointerType):
            hint = f"its address can be cast: *({type_name(pointer_to(type_))})ADDRESS"
            raise UsageError(f"nothing can be cast to {type_name(type_)}", hint)
        number = self._number(self._decayed(found))
        if isinstance(plain, IntType) and plain.kind is IntKind.BOOL:
            number = number != 0
        return self._made(type_, number)

    # What is written as a call

    def _call(self, node: Any) -> Object:
        name = node.name.name if _is(node.name, "ID") else ""
        arguments = [] if node.args is None else list(node.args.exprs)
        known = _CALLS.get(name)
        if known is None:
            raise UsageError(
                f"functions of a stopped kernel cannot be called{f': {name}()' if name else ''}",
                "these can be asked for: " + ", ".join(f"{each}()" for each in ("sizeof", *sorted(_CALLS))),
            )
        call, count = known
        if len(arguments) != count:
            raise UsageError(f"{name}() takes {count} argument{'s' * (count > 1)}, not {len(arguments)}")
        return call(self, *arguments)

    def _offsetof(self, outer: Any, designator: Any) -> Object:
        type_ = self._type_names.type(outer)
        member = self._designated(self._program.object(type_, 0), designator)
        if member.bit_size_:
            raise UsageError("a bit-field has no offset in bytes")
        assert member.address_ is not None
        return self._made(UNSIGNED_LONG, member.address_)

    def _designated(self, outer: Object, node: Any) -> Object:
        """The member of `outer` that stands behind the comma of offsetof()."""
        if _is(node, "ID"):
            return self._within(outer, node.name)
        if _is(node, "StructRef"):
            return self._within(self._designated(outer, node.name), node.field.name)
        if _is(node, "ArrayRef"):
            array = self._designated(outer, node.name)
            plain = self._plain(array)
            if not isinstance(plain, ArrayType):
                raise UsageError(f"{type_name(array.type_)} is no array")
            index = self._integer(self.value(node.subscript))[0]
            return self._program.object(plain.target, (array.address_ or 0) + index * self._size_of(plain.target))
        raise UsageError("offsetof() takes a type and a member")

    def _within(self, outer: Object, name: str) -> Object:
        if not isinstance(self._plain(outer), CompoundType):
            raise UsageError(f"{type_name(outer.type_)} has no member inside, so no {name}")
        return self._member_of(outer, name)

    def _container_of(self, pointer: Any, offset: Any) -> Object:
        if not _is(offset, "FuncCall"):
            raise UsageError("container_of() takes a pointer, a type and a member")
        found = self._decayed(self.value(pointer))
        type_ = self._type_names.type(offset.args.exprs[0])
        distance = int(self._call(offset))
        return self._made(pointer_to(type_), self._number(found) - distance & U64)

    def _per_cpu(self, variable: Any, cpu: Any) -> Object:
        return self._on_cpu(variable, self._length(cpu))

    def _this_cpu(self, variable: Any) -> Object:
        return self._on_cpu(variable, self._scope.this_cpu())

    def _on_cpu(self, variable: Any, cpu: int) -> Object:
        before, self._cpu = self._cpu, cpu
        had, self.has_per_cpu = self.has_per_cpu, False
        try:
            found = self.value(variable)
            if not self.has_per_cpu:
                raise UsageError("not a per-CPU variable", "of a pointer to one: per_cpu_ptr(POINTER, CPU)")
            return found
        finally:
            self._cpu, self.has_per_cpu = before, had

    def _per_cpu_pointer(self, pointer: Any, cpu: Any) -> Object:
        return self._pointer_on(pointer, self._length(cpu))

    def _this_cpu_pointer(self, pointer: Any) -> Object:
        return self._pointer_on(pointer, self._scope.this_cpu())

    def _pointer_on(self, pointer: Any, cpu: int) -> Object:
        before, self._cpu = self._cpu, None
        try:
            found = self._decayed(self.value(pointer))
        finally:
            self._cpu = before
        if not isinstance(self._plain(found), PointerType):
            raise UsageError(f"{type_name(found.type_)} is no pointer", "of a variable: per_cpu(VARIABLE, CPU)")
        if self._types_only:
            return found
        return self._made(found.type_, self._number(found) + self._program.linux.per_cpu_offset(cpu) & U64)

    def _array_size(self, array: Any) -> Object:
        found = self._typed_only(array)
        plain = self._plain(found)
        if not isinstance(plain, ArrayType) or plain.length is None:
            raise UsageError(f"{type_name(found.type_)} is no array of a known length")
        return self._made(UNSIGNED_LONG, plain.length)


_NODES: Mapping[str, Callable[[_Evaluation, Any], Object]] = {
    "Constant": _Evaluation._constant,
    "ID": _Evaluation._identifier,
    "UnaryOp": _Evaluation._unary,
    "BinaryOp": _Evaluation._binary,
    "TernaryOp": _Evaluation._conditional,
    "Cast": _Evaluation._cast,
    "ArrayRef": _Evaluation._element,
    "StructRef": _Evaluation._member,
    "FuncCall": _Evaluation._call,
    "ExprList": _Evaluation._comma,
    "Typename": _Evaluation._typename,
}

# What is written as a call, and how many arguments it takes.
_CALLS: Mapping[str, tuple[Callable[..., Object], int]] = {
    "offsetof": (_Evaluation._offsetof, 2),
    "per_cpu": (_Evaluation._per_cpu, 2),
    "per_cpu_ptr": (_Evaluation._per_cpu_pointer, 2),
    "this_cpu": (_Evaluation._this_cpu, 1),
    "this_cpu_ptr": (_Evaluation._this_cpu_pointer, 1),
    "ARRAY_SIZE": (_Evaluation._array_size, 1),
    **dict.fromkeys(CONTAINER_OF, (_Evaluation._container_of, 2)),
}


def _is(node: Any, name: str) -> bool:
    """Whether a node is of that class of pycparser, which is imported when something is parsed."""
    return type(node).__name__ == name


def _member_hint(plain: Type) -> str | None:
    return "name one of its members" if isinstance(plain, CompoundType) else None


def _incomplete_hint(plain: Type) -> str | None:
    return "its definition is not known" if isinstance(plain, IncompleteType) else None

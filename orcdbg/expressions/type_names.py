"""Which type does a type name of C mean, such as the one in a cast?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.typed.program import Program
from orcdbg.typed.types import FunctionType, QualifiedType, Type, array_of, pointer_to

if TYPE_CHECKING:
    from pycparser.c_ast import Node

MAX_ELEMENTS = 1 << 28


class TypeNames:
    """Types of a program, named by trees of pycparser.

    Args:
        program: whose types they are.
        number: evaluates an array's length.
    """

    def __init__(self, program: Program, number: Callable[[Node], int]) -> None:
        self._program = program
        self._number = number

    def type(self, node: Any) -> Type:
        """The type of a `Typename`, or of a declarator in it.

        Raises:
            NotFound: the kernel has no such type.
            UsageError: it is none that can be asked for.
        """
        made = getattr(self, f"_of_{type(node).__name__}", None)
        if made is None:
            raise UsageError(f"not a type that can be named here: {type(node).__name__}")
        found: Type = made(node)
        return found

    def _of_Typename(self, node: Any) -> Type:
        return self.type(node.type)

    _of_Decl = _of_Typename

    def _of_TypeDecl(self, node: Any) -> Type:
        return _qualified(node.quals, self.type(node.type))

    def _of_PtrDecl(self, node: Any) -> Type:
        return _qualified(node.quals, pointer_to(self.type(node.type)))

    def _of_ArrayDecl(self, node: Any) -> Type:
        length = None if node.dim is None else self._number(node.dim)
        if length is not None and not 0 <= length <= MAX_ELEMENTS:
            raise UsageError(f"an array of {length} elements")
        return array_of(self.type(node.type), length)

    def _of_FuncDecl(self, node: Any) -> Type:
        result = self.type(node.type)
        parameters = [] if node.args is None else list(node.args.params)
        is_variadic = bool(parameters) and type(parameters[-1]).__name__ == "EllipsisParam"
        if is_variadic:
            parameters.pop()
        types = [("", self.type(parameter)) for parameter in parameters]
        if len(types) == 1 and types[0][1].name == "void":
            types = []
        return FunctionType(lambda: result, lambda: types, is_variadic)

    def _of_IdentifierType(self, node: Any) -> Type:
        return self._program.type(" ".join(node.names))

    def _of_Struct(self, node: Any) -> Type:
        return self._tagged("struct", node, node.decls)

    def _of_Union(self, node: Any) -> Type:
        return self._tagged("union", node, node.decls)

    def _of_Enum(self, node: Any) -> Type:
        return self._tagged("enum", node, node.values)

    def _tagged(self, keyword: str, node: Any, body: object) -> Type:
        if body is not None or not node.name:
            raise UsageError("types cannot be defined here")
        found = self._program.catalog.find(keyword, node.name)
        if found is None:
            catalog = self._program.catalog
            raise NotFound("type", f"{keyword} {node.name}", lambda: catalog.hint_for(node.name))
        return found


def _qualified(words: Sequence[str], type_: Type) -> Type:
    for word in words or ():
        inner = type_
        type_ = QualifiedType(word, lambda inner=inner: inner)  # type: ignore[misc]
    return type_

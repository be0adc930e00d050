"""Which object is a symbol of the kernel or of a module: where, of which type, once or once for each CPU?"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.typed.program import Program
from orcdbg.typed.types import FunctionType, IncompleteType, Type


class Untyped(IncompleteType):
    """The type of a symbol that nobody describes: its address can be taken, its value cannot.

    Attributes:
        is_text: whether it is code, whose name is its address.
    """

    def __init__(self, name: str, is_text: bool) -> None:
        super().__init__("symbol", name)
        self.is_text = is_text

    def error(self) -> UsageError:
        """The refusal to read it."""
        return UsageError(
            f"the type of {self.name} is not known: neither BTF nor debugging information describes it",
            f"name the type: *(TYPE *)&{self.name}; its address alone is &{self.name}",
        )


@dataclass(frozen=True, slots=True)
class FoundSymbol:
    """A symbol as an object; `address` of a per-CPU one is what each CPU's offset is added to."""

    name: str
    address: int
    type: Type
    is_per_cpu: bool


def find_symbol(program: Program, name: str, module: str | None) -> FoundSymbol | None:
    """A symbol of the image, else of a module; of that module alone where one is named. None where there is none."""
    linux = program.linux
    if module is None:
        symbol = linux.symbols.find(name)
        if symbol is not None:
            address = linux.run_time(symbol)
            is_per_cpu = symbol.per_cpu or program.is_per_cpu(symbol.address)
            type_ = _type_of(program, name, symbol.address, not is_per_cpu and _is_image_text(program, address))
            return FoundSymbol(name, address, type_, is_per_cpu)
    for each in program.names.modules:
        if module not in (None, each.name):
            continue
        try:
            symbol = program.names.module_symbols[each.address].table.find(name)
        except OrcdbgError:
            continue  # its symbols cannot be read, and another module may have the name
        if symbol is not None:
            is_text = each.text[0] <= symbol.address < sum(each.text)
            type_ = _type_of(program, name, symbol.address, is_text)
            return FoundSymbol(name, symbol.address, type_, each.has_per_cpu(symbol.address))
    return None


# Bounds of the image's code. A section's flags do not tell: .data of 7.2 is executable in the file.
_TEXT_BOUNDS = (("_stext", "_etext"), ("_sinittext", "_einittext"))


def _is_image_text(program: Program, address: int) -> bool:
    bounds = [tuple(program.linux.find_address(name) for name in names) for names in _TEXT_BOUNDS]
    return any(start is not None and end is not None and start <= address < end for start, end in bounds)


def _type_of(program: Program, name: str, link_address: int, is_text: bool) -> Type:
    if is_text:
        function: FunctionType | None = program.catalog.function(name)
        return function or Untyped(name, True)
    try:
        return program.variable_type(name, link_address)
    except UsageError:
        return Untyped(name, False)

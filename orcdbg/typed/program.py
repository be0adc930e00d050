"""Which typed object is this name or address of a stopped kernel?"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import U64
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names
from orcdbg.typed.btf_types import BtfTypes
from orcdbg.typed.catalog import Catalog, TypeSource
from orcdbg.typed.known_variables import KNOWN_VARIABLES
from orcdbg.typed.module_btf import ModuleTypes
from orcdbg.typed.objects import Immediate, InMemory, Object
from orcdbg.typed.types import EnumType, FloatType, IntType, PointerType, Type, array_of, pointer_to, resolved

FindVariable = Callable[[str, int], Type | None]


class Program:
    """A stopped kernel's typed data.

    Args:
        linux: its memory, symbols and types.
        names: of addresses, and of the modules.
        find_variable: gives the type of the image's variable of a name at a link address where BTF does not, as BTF of most
            kernels knows per-CPU variables alone.
        memory: what objects read; the kernel's own where nothing is given.
        more_types: gives sources of types that are asked after BTF, such as the debugging information of modules.
    """

    def __init__(
        self,
        linux: Linux,
        names: Names,
        find_variable: FindVariable | None = None,
        memory: AddressSpace | None = None,
        more_types: Callable[[], Iterator[TypeSource]] | None = None,
    ) -> None:
        self.linux = linux
        self.names = names
        self.memory = linux.memory if memory is None else memory
        self._find_variable = find_variable
        self._more_types = more_types

    @functools.cached_property
    def kernel_types(self) -> BtfTypes:
        """The types of the image's BTF."""
        return BtfTypes(self.linux.types.btf)

    @functools.cached_property
    def module_types(self) -> ModuleTypes:
        """The split BTF of modules, from memory."""
        return ModuleTypes(self.linux, self.kernel_types)

    @functools.cached_property
    def catalog(self) -> Catalog:
        """Types by name."""
        more = () if self._more_types is None else (self._more_types,)
        return Catalog(
            lambda: [self.kernel_types],
            self._module_sources,
            *more,
            problems=lambda: self.module_types.problems,
            structures=lambda: self.kernel_types.btf.structure_names,
        )

    def _module_sources(self) -> Iterator[TypeSource]:
        yield from self.module_types.all()

    def over(self, memory: AddressSpace) -> Program:
        """The same kernel's types over another memory, such as a process's."""
        other = Program(self.linux, self.names, self._find_variable, memory)
        other.__dict__["kernel_types"] = self.kernel_types
        other.__dict__["module_types"] = self.module_types
        other.__dict__["catalog"] = self.catalog
        return other

    # Types

    def type(self, name: str) -> Type:
        """A type by name, `*` behind it for pointers: `task_struct`, `struct list_head *`, `unsigned long`.

        Raises:
            NotFound: there is none.
        """
        base = name.rstrip("* ")
        found = self.catalog.get(base)
        for _ in range(name.count("*", len(base))):
            found = pointer_to(found)
        return found

    def completed(self, type_: Type) -> Type:
        """The definition of a type that is only declared where it is from; else the type itself."""
        return self.catalog.completed(type_)

    # Objects

    def object(self, type_: Type | str, address: int) -> Object:
        """What is at an address, as a type."""
        return Object(self, self.type(type_) if isinstance(type_, str) else type_, InMemory(address & U64))

    def value(self, type_: Type | str, number: int | float) -> Object:
        """A number as a type that is one: an integer, enumeration, pointer or floating point type; it wraps as C's do."""
        target = self.type(type_) if isinstance(type_, str) else type_
        plain = resolved(target)
        if isinstance(plain, FloatType) and plain.size in (4, 8):
            return Object(self, target, Immediate(struct.pack("<f" if plain.size == 4 else "<d", number)))
        if not isinstance(plain, IntType | EnumType | PointerType) or not plain.size:
            raise UsageError(f"{type(plain).__name__} is no number's type")
        bits = 8 * plain.size
        return Object(self, target, Immediate((int(number) & (1 << bits) - 1).to_bytes(plain.size, "little")))

    def variable(self, name: str, cpu: int | None = None, module: str | None = None) -> Object:
        """A variable of the kernel or of a module.

        Args:
            name: its symbol.
            cpu: whose instance of a per-CPU variable.
            module: the module it is of; the image and all modules are searched where none is given.

        Raises:
            NotFound: there is no such variable, CPU or module.
            UsageError: nobody knows its type; the message says how it is looked at all the same. Or it is per CPU and none is
                named.
        """
        address, link_address, is_per_cpu = self._place_of(name, module)
        if is_per_cpu and cpu is None:
            raise UsageError(f"{name} is a per-CPU variable", "name the CPU")
        if cpu is not None and is_per_cpu:
            address = address + self.linux.per_cpu_offset(cpu) & U64
        return self.object(self.variable_type(name, link_address), address)

    def _place_of(self, name: str, module: str | None) -> tuple[int, int, bool]:
        """Run-time and link address of a variable's symbol, and whether it is per CPU; of a module's both are the first."""
        if module is None:
            symbol = self.linux.symbols.find(name)
            if symbol is not None:
                return self.linux.run_time(symbol), symbol.address, self.is_per_cpu(symbol.address)
        for each in self.names.modules:
            if module not in (None, each.name):
                continue
            try:
                found = self.names.module_symbols[each.address].table.find(name)
            except OrcdbgError:
                continue
            if found is not None:
                return found.address, found.address, each.has_per_cpu(found.address)
        raise NotFound("symbol", name)

    def is_per_cpu(self, link_address: int) -> bool:
        """Whether a symbol is of the image's per-CPU area: zero-based before 6.15 (commit 9d7de2aa8b41), `__per_cpu_start` on.

        Mirrors include/asm-generic/vmlinux.lds.h, PERCPU_SECTION.
        """
        bounds = [self.linux.symbols.find(name) for name in ("__per_cpu_start", "__per_cpu_end")]
        if bounds[0] is None or bounds[1] is None:
            return False
        return bounds[0].address <= link_address < bounds[1].address

    def known_type(self, name: str) -> Type | None:
        """A well-known variable's type, by the kernel's headers; None of others, and where the kernel lacks the type."""
        declared = KNOWN_VARIABLES.get(name)
        if declared is None:
            return None
        element, _, length = declared.partition("[")
        try:
            found = self.type(element)
        except NotFound:
            return None
        return array_of(found, int(length.rstrip("]"))) if length else found

    def _is_shared(self, name: str, link_address: int) -> bool:
        """Whether a name means anything else of the image than what is at an address: 6.1 has two variables `cleanup_list`."""
        return any(symbol.address != link_address for symbol in self.linux.symbols.find_all(name))

    def variable_type(self, name: str, link_address: int) -> Type:
        """A variable's type: BTF's, else debugging information's, else what the kernel's headers say of a well-known one.

        BTF is asked by name. Where several symbols have that, debugging information tells by the address, and BTF does not.

        Raises:
            UsageError: nobody knows it.
        """
        found = None if self._is_shared(name, link_address) else self.catalog.variable(name)
        if found is None and self._find_variable is not None:
            found = self._find_variable(name, link_address)
        if found is None:
            found = self.known_type(name)
        if found is None:
            raise UsageError(
                f"the type of {name} is not known: neither BTF nor debugging information describes it",
                self.catalog.unread or f"name the type: *(TYPE *)&{name}",
            )
        return found

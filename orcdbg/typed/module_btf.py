"""Which types do the modules bring, by the split BTF that the kernel keeps of each?

Mirrors kernel/bpf/btf.c, `btf_modules`, since Linux 5.11 (commit 36e68442d1af, "bpf: Load and verify kernel module BTFs"). A
module's BTF continues the image's; where it was built against another base (`.BTF.base`, 6.12), the kernel has rewritten its
numbers by the time it is on the list (kernel/bpf/btf_relocate.c).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import read_cstring
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.symbols.btf import Btf
from orcdbg.typed.btf_types import BtfTypes
from orcdbg.typed.catalog import TypeSource
from orcdbg.typed.types import EnumType, FunctionType, Type

_T = TypeVar("_T")

# Modules are some hundreds, and their BTF is some megabytes.
MAX_MODULES = 4096
MAX_BYTES = 64 << 20
_MAX_NAME = 64


class ModuleTypes:
    """The modules' BTF, each section read when it is asked for.

    Args:
        linux: the kernel.
        base: the types that they continue.
    """

    def __init__(self, linux: Linux, base: BtfTypes) -> None:
        self._linux = linux
        self._base = base
        self._budget = Budget(MAX_MODULES, MAX_BYTES)
        self._made: dict[str, BtfTypes | None] = {}
        self._damaged: set[str] = set()

    @property
    def problems(self) -> list[str]:
        """What could not be read."""
        return self._budget.lines()

    @functools.cached_property
    def _sections(self) -> dict[str, int]:
        """Address of the `struct btf` of each module that has one, by name."""
        head = self._linux.find_address("btf_modules")
        if head is None or not self._linux.types.has("btf_module", "btf"):
            return {}
        found: dict[str, int] = {}
        for node in self._linux.walk_list(head, "btf_module", "list", self._budget):
            try:
                btf = self._linux.member("btf_module", "btf", node)
                at = btf + self._linux.types.offset("btf", "name")
                found[read_cstring(self._linux.memory, at, _MAX_NAME).decode("utf-8", "replace")] = btf
            except OrcdbgError as error:
                self._budget.note_error("the BTF of a module", node, error)
        return found

    def address_of(self, module: str) -> int | None:
        """Where the `struct btf` of a module is, None where it has none."""
        return self._sections.get(module)

    def of(self, module: str) -> BtfTypes | None:
        """The types of one module; None where it has no BTF, or a damaged one, which `problems` tells."""
        if module not in self._made:
            self._made[module] = self._read(module)
        return self._made[module]

    def _read(self, module: str) -> BtfTypes | None:
        address = self._sections.get(module)
        if address is None:
            return None
        try:
            if not self._base.btf.is_built:
                # The same types from the same DWARF may have other numbers: pahole with several threads gives them as it likes.
                raise UnsupportedFormat(f"BTF of {module}", f"it continues the kernel's own, not {self._base.btf.name}")
            data = self._linux.member("btf", "data", address)
            size = self._linux.member("btf", "data_size", address)
            raw = self._budget.read(self._linux.memory, data, size, f"the BTF of {module}")
            btf = Btf(raw, f"BTF of {module}", self._base.btf)
            if self._linux.member("btf", "start_id", address) != btf.first_id:
                raise UnsupportedFormat(btf.name, "it does not continue the image's")
            return BtfTypes(btf, self._base)
        except OrcdbgError as error:
            self._budget.note_error(f"the BTF of {module}", address, error)
            return None

    def all(self) -> Iterator[TypeSource]:
        """The types of every module that has some; of a damaged section what can be read, and a problem."""
        for module in self._sections:
            types = self.of(module)
            if types is not None:
                yield _Guarded(types, functools.partial(self._note_damage, module))

    def _note_damage(self, module: str, error: OrcdbgError) -> None:
        if module not in self._damaged:
            self._damaged.add(module)
            self._budget.note_error(f"the BTF of {module}", self._sections[module], error)


class _Guarded:
    """A module's types, asked for a name among others': what is damaged of them costs that module's answer alone.

    A module that is half unloaded has its BTF's pages overwritten while others' are whole.
    """

    def __init__(self, types: BtfTypes, note: Callable[[OrcdbgError], None]) -> None:
        self._types = types
        self._note = note

    def find(self, keyword: str, name: str) -> Type | None:
        """As of `TypeSource`."""
        return self._tried(lambda: self._types.find(keyword, name))

    def variable(self, name: str) -> Type | None:
        """As of `TypeSource`."""
        return self._tried(lambda: self._types.variable(name))

    def function(self, name: str) -> FunctionType | None:
        """As of `TypeSource`."""
        return self._tried(lambda: self._types.function(name))

    def enumerator(self, name: str) -> tuple[EnumType, int] | None:
        """As of `TypeSource`."""
        return self._tried(lambda: self._types.enumerator(name))

    def _tried(self, ask: Callable[[], _T]) -> _T | None:
        try:
            return ask()
        except OrcdbgError as error:
            self._note(error)
            return None

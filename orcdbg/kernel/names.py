"""What does the kernel call this address?"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.intervals import Pieces
from orcdbg.base.sizes import PAGE, U64
from orcdbg.kernel.generated_code import CodeKind, GeneratedCodes
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.modules import Module, ModuleSymbols, list_modules, symbols_budget

if TYPE_CHECKING:
    from orcdbg.kernel.per_cpu_names import PerCpuNames


class Location(NamedTuple):
    """An address in terms of a symbol: `size` is the distance to the next symbol, as the kernel prints it."""

    symbol: str
    start: int
    size: int
    module: str | None
    is_text: bool


class Names:
    """Names of addresses in the image and in modules; modules are read on first need."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux
        self._cache: dict[int, Location | None] = {}
        self.made = GeneratedCodes(linux)

    @functools.cached_property
    def _module_list(self) -> tuple[list[Module], list[str]]:
        return list_modules(self._linux)

    @property
    def modules(self) -> list[Module]:
        """The loaded modules."""
        return self._module_list[0]

    @property
    def problems(self) -> list[str]:
        """What could not be read of the module list, and of the lists of generated code."""
        return [*self._module_list[1], *self.made.problems]

    @functools.cached_property
    def module_symbols(self) -> dict[int, ModuleSymbols]:
        """Symbols of each module, by the address of its `struct module`."""
        budget = symbols_budget()
        return {module.address: ModuleSymbols(self._linux, module, budget) for module in self.modules}

    @functools.cached_property
    def per_cpu(self) -> PerCpuNames:
        """Names of the image's per-CPU variables, by what instructions have of them."""
        from orcdbg.kernel.per_cpu_names import PerCpuNames  # few questions need it

        return PerCpuNames(self._linux)

    def per_cpu_at(self, pointer: int) -> Location | None:
        """The per-CPU variable, the image's or a module's, that an instruction with a %gs prefix means by a pointer."""
        found = self.per_cpu.at(pointer)
        if found is not None:
            return found
        module = self.module_of_per_cpu(pointer)
        return None if module is None else self.per_cpu_of(module, pointer)

    def module_of_per_cpu(self, pointer: int) -> Module | None:
        """The module among whose per-CPU variables a pointer is, None where that is none's."""
        return next((module for module in self.modules if module.has_per_cpu(pointer)), None)

    def per_cpu_of(self, module: Module, pointer: int) -> Location | None:
        """The per-CPU variable of a module at a pointer; None where its symbols have none there, or cannot be read."""
        try:
            found = self.module_symbols[module.address].table.at(pointer)
        except OrcdbgError:
            return None
        if found is None or pointer - found.symbol.address >= found.symbol.size:
            return None
        return Location(found.symbol.name, found.symbol.address, found.symbol.size, module.name, False)

    @functools.cached_property
    def image_range(self) -> tuple[int, int]:
        """Run-time addresses from `_text` to `_end`."""
        return self._linux.address("_text"), self._linux.address("_end")

    def _is_image_data(self, address: int) -> bool:
        """Whether an address is in the image's `.data`, and no code is there.

        The letters of symbols do not tell it: since 6.14 (cb33ff9e063c) relocate_kernel() lies in `.data`, which is
        executable by its header therefore, and nm calls all that is in it text.
        """
        in_code, in_data = self._code_in_data, self._data
        return in_data[0] <= address < in_data[1] and not in_code[0] <= address < in_code[1]

    @functools.cached_property
    def _data(self) -> tuple[int, int]:
        return self._between("_sdata", "_edata")

    @functools.cached_property
    def _code_in_data(self) -> tuple[int, int]:
        return self._between("__relocate_kernel_start", "__relocate_kernel_end")

    def _between(self, start: str, end: str) -> tuple[int, int]:
        """The addresses of two symbols; an empty range where the image lacks one."""
        first, last = self._linux.find_address(start), self._linux.find_address(end)
        return (first, last) if first is not None and last is not None else (0, 0)

    @functools.cached_property
    def _module_areas(self) -> tuple[Pieces, list[Module]]:
        """The modules' areas, and the module of each; of overlapping ones the first in the kernel's order counts."""
        areas = [(start, size, module) for module in reversed(self.modules) for start, size in module.ranges]
        # Every word of every stack is looked up: one by one, thousands of false modules would cost minutes.
        return Pieces([(start, min(start + size, U64)) for start, size, _ in areas]), [area[2] for area in areas]

    @functools.cached_property
    def lowest(self) -> int:
        """The lowest address that may have a name: of the image, the modules, and code that the kernel made."""
        areas = [start for module in self.modules for start, _ in module.ranges]
        return min([self.image_range[0], *areas, *(made.start for made in self.made.all)])

    def module_at(self, address: int) -> Module | None:
        """The module whose memory holds the address."""
        pieces, modules = self._module_areas
        found = pieces.find(address)
        return None if found is None else modules[found.piece]

    def at(self, address: int) -> Location | None:
        """The symbol that holds a run-time address, or None."""
        if address not in self._cache:
            self._cache[address] = self._resolve(address)
        return self._cache[address]

    def holds(self, address: int) -> bool:
        """Whether the symbol of `at` has an address in its own size; between symbols `at` gives the one before.

        Without the files' symbol table sizes are not known, and reach to the next symbol.
        """
        start, end = self.image_range
        if start <= address < end:
            return self._linux.symbols.holds(address - self._linux.slide)
        module = self.module_at(address)
        if module is None:
            return self._in_generated_code(address) is not None
        try:
            return self.module_symbols[module.address].table.holds(address)
        except OrcdbgError:
            return False

    def _resolve(self, address: int) -> Location | None:
        start, end = self.image_range
        if start <= address < end:
            found = self._linux.symbols.at(address - self._linux.slide)
            if found is None:
                return None
            symbol, size = found
            is_text = symbol.letter in "tTwW" and not self._is_image_data(address)
            return Location(symbol.name, symbol.address + self._linux.slide, size, None, is_text)
        module = self.module_at(address)
        if module is None:
            return self._in_generated_code(address)
        try:
            in_module = self.module_symbols[module.address].at(address)
        except OrcdbgError:
            return None
        if in_module is None:
            return None
        inside = module.text[0] <= address < sum(module.text)
        return Location(in_module[0].name, in_module[0].address, in_module[1], module.name, inside)

    def starts_of(self, name: str) -> list[int]:
        """Run-time addresses of all symbols of that name, those of modules last."""
        found = [self._linux.run_time(symbol) for symbol in self._linux.symbols.find_all(name)]
        for module in self.modules:
            try:
                symbol = self.module_symbols[module.address].table.find(name)
            except OrcdbgError:
                continue
            found += [symbol.address] if symbol is not None else []
        return found

    def near(self, word: str) -> list[str]:
        """The symbols of the image and of modules that somebody may have meant who typed `symbol` or `module:symbol`."""
        from orcdbg.base.near_names import nearest  # only where something went wrong

        module_name, colon, rest = word.partition(":")
        if colon and all(module.name != module_name for module in self.modules):
            return [f"{name}:{rest}" for name in self.near_modules(module_name)]

        found = [] if colon else self._linux.symbols.near(word)
        for module in self.modules:
            if colon and module.name != module_name:
                continue
            try:
                table = self.module_symbols[module.address].table
            except OrcdbgError:
                continue
            found += table.near(rest if colon else word)
        names = nearest(found)
        return [f"{module_name}:{name}" for name in names] if colon else names

    def near_modules(self, word: str) -> list[str]:
        """The modules that somebody may have meant."""
        from orcdbg.base.near_names import near_names  # only where something went wrong

        return near_names(word, [module.name for module in self.modules])

    def _in_generated_code(self, address: int) -> Location | None:
        """As in /proc/kallsyms, where the slots of kprobes have one name a page."""
        made = self.made.at(address)
        if made is None:
            return None
        in_pages = made.kind in (CodeKind.KPROBE, CodeKind.OPTPROBE)
        start, size = (address & -PAGE, PAGE) if in_pages else (made.start, made.end - made.start)
        return Location(made.name, start, size, made.owner, True)

    def describe(self, address: int, exact: bool = True) -> str | None:
        """`symbol+0xoffset/0xsize [module]` as the kernel prints it; with `exact` false for a return address."""
        location = self.at(address if exact else address - 1)
        if location is None:
            return None
        module = f" [{location.module}]" if location.module else ""
        return f"{location.symbol}+{address - location.start:#x}/{location.size:#x}{module}"

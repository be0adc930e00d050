"""Which modules are loaded, where, and what symbols and ORC tables do they keep in memory?"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass

import numpy as np

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import read_u32
from orcdbg.base.sizes import PAGE, U64
from orcdbg.base.walks import Budget
from orcdbg.formats.elf import SHF_ALLOC, SHF_EXECINSTR, Section
from orcdbg.kernel.linux import Linux
from orcdbg.symbols.table import ENTRY, STB_WEAK, Symbol, SymbolTable

# A distribution's kernel loads some hundred of the 5,000 modules it has. Each false one costs 300 us.
MAX_MODULES = 1 << 13
# Of all modules of a kernel together. amdgpu, the largest, keeps some 20,000 symbols and 300,000 ORC rows; a false module
# may claim a million of either, and a name is looked for in the tables of all.
MAX_SYMBOLS = 1 << 20
MAX_STRINGS = 8 << 20
MAX_STRINGS_IN_ALL = 64 << 20
MAX_ORC_ROWS = 1 << 22
# Order of `enum mod_mem_type`; only these two hold code.
_STT_OBJECT, _STT_FUNC = 1, 2
_WEAK_LETTERS = list(b"vVwW")
_TEXT, _INIT_TEXT = 0, 4


class ModuleState(enum.Enum):
    """How far a module is (enum module_state, include/linux/module.h); the values are the contract's words."""

    LIVE = "live"
    COMING = "coming"
    GOING = "going"
    UNFORMED = "unformed"


_STATES = dict(enumerate(ModuleState))


@dataclass(frozen=True, slots=True)
class Module:
    """A loaded module.

    Attributes:
        address: of its `struct module`.
        ranges: (address, size) of its memory areas, text first.
        text: the core text.
        state: None where the number is none that a kernel uses, or cannot be read.
        per_cpu: per-CPU pointer and size of its per-CPU variables; its symbols of them are such pointers
            (kernel/module/main.c, `simplify_symbols`).
    """

    address: int
    name: str
    ranges: tuple[tuple[int, int], ...]
    text: tuple[int, int]
    state: ModuleState | None
    per_cpu: tuple[int, int] = (0, 0)

    def holds(self, address: int) -> bool:
        """True when the address is in one of the module's areas."""
        return any(start <= address < start + size for start, size in self.ranges)

    def has_per_cpu(self, pointer: int) -> bool:
        """Whether a per-CPU pointer, as a symbol's address is one, is of the module's variables.

        What is in the module's own memory is none, however much a damaged `percpu_size` claims.
        """
        start, size = self.per_cpu
        return start <= pointer < start + size and not self.holds(pointer)

    @property
    def size(self) -> int:
        """Bytes in all areas."""
        return sum(size for _, size in self.ranges)


def _ranges(linux: Linux, module: int) -> tuple[tuple[tuple[int, int], ...], tuple[int, int]]:
    """All areas of a module, and its core text."""
    types = linux.types
    if types.has("module", "mem"):
        # Since 6.4 (ac3b43283923) a module's memory is one area a type.
        start = module + types.offset("module", "mem")
        step = types.size("module_memory")
        areas = [
            (
                linux.member("module_memory", "base", start + i * step),
                linux.member("module_memory", "size", start + i * step),
            )
            for i in range(min(types.array_length("module", "mem"), 16))
        ]
        return tuple(area for area in areas if area[1]), areas[_TEXT]
    core, init = (
        (linux.member("module", f"{which}.base", module), linux.member("module", f"{which}.size", module))
        for which in ("core_layout", "init_layout")
    )
    text = (core[0], linux.member("module", "core_layout.text_size", module))
    return tuple(area for area in (core, init) if area[1]), text


def read_module(linux: Linux, address: int) -> Module:
    """The module whose `struct module` is at `address`."""
    ranges, text = _ranges(linux, address)
    name = linux.text_member("module", "name", address)
    number = linux.first_member("module", ("state",), address)
    state = None if number is None else _STATES.get(number & 0xFFFF_FFFF)
    per_cpu = [linux.first_member("module", (which,), address) or 0 for which in ("percpu", "percpu_size")]
    return Module(address, name, ranges, text, state, (per_cpu[0], per_cpu[1]))


def list_modules(linux: Linux) -> tuple[list[Module], list[str]]:
    """All modules that can be read, in the kernel's order, and a line for each that cannot."""
    found: list[Module] = []
    problems: list[str] = []
    head = linux.find_address("modules")
    if head is None:
        return found, problems
    budget = Budget(MAX_MODULES)
    try:
        for address in linux.walk_list(head, "module", "list", budget):
            try:
                found.append(read_module(linux, address))
            except MemoryFault as error:
                problems.append(f"module at {address:#x}: {error}")
    except OrcdbgError as error:
        problems.append(f"the module list breaks off: {error}")
    return found, [*problems, *(f"the module list breaks off: {line}" for line in budget.lines())]


def symbols_budget() -> Budget:
    """What the symbol tables of all modules of a kernel may hold together."""
    return Budget(MAX_SYMBOLS, MAX_STRINGS_IN_ALL)


class ModuleSymbols:
    """A module's symbols, from the table the kernel keeps in memory (`struct mod_kallsyms`); read on first use.

    Args:
        linux: the kernel.
        module: the module.
        budget: what the tables of all modules draw on together.
    """

    def __init__(self, linux: Linux, module: Module, budget: Budget) -> None:
        self._linux = linux
        self.module = module
        self._budget = budget
        self._kept_letters = b""

    @property
    def table(self) -> SymbolTable:
        """The symbols, at run-time addresses.

        Raises:
            OrcdbgError: the table is not there, cannot be read, or is more than the budget has left.
        """
        if isinstance(self._outcome, OrcdbgError):
            raise self._outcome
        return self._outcome

    @functools.cached_property
    def _outcome(self) -> SymbolTable | OrcdbgError:
        """The table, or why there is none: asked again, that must not draw on the budget again."""
        try:
            return self._read()
        except OrcdbgError as error:
            return error

    def _read(self) -> SymbolTable:
        linux, types = self._linux, self._linux.types
        what = f"symbols of module {self.module.name} and others"
        kallsyms = linux.member("module", "kallsyms", self.module.address)
        count = read_u32(linux.memory, kallsyms + types.offset("mod_kallsyms", "num_symtab"))
        symtab = linux.member("mod_kallsyms", "symtab", kallsyms)
        strtab = linux.member("mod_kallsyms", "strtab", kallsyms)
        entries = linux.memory.read(symtab, len(self._budget.entries(count, symtab, what)) * ENTRY.itemsize)
        if not types.has("mod_kallsyms", "typetab"):
            entries, self._kept_letters = _without_letters(entries)
        strings = self._strings(entries, strtab)
        # The sections' headers are gone; the symbols' own section numbers tell text from nothing.
        sections = [Section("", 1, SHF_ALLOC | SHF_EXECINSTR, 0, 0, 0, 0, 0, 0)] * 256
        return SymbolTable(f"module {self.module.name}", entries, strings, sections, 1)

    def letter(self, symbol: Symbol) -> str | None:
        """A symbol's letter as /proc/kallsyms prints it, upper case where the module exports it; None where it is not kept."""
        found = self._letters.get((symbol.name, symbol.address))
        if found is None:
            return None
        return found.upper() if symbol.address in self._exported else found

    @functools.cached_property
    def _letters(self) -> dict[tuple[str, int], str]:
        """By name and address: the kernel keeps the letters beside the table since 5.2 (1c7651f43777), before that in it."""
        linux, table, letters = self._linux, self.table, self._kept_letters
        if linux.types.has("mod_kallsyms", "typetab"):
            try:
                place = linux.member("mod_kallsyms", "typetab", linux.member("module", "kallsyms", self.module.address))
                letters = linux.memory.read(place, len(table.entries))
            except MemoryFault:
                return {}
        values = table.entries["value"].tolist()
        return {
            (table.name_of(index), values[index]): chr(letter)
            for index, letter in enumerate(letters)
            if chr(letter).isalpha() and letter < 0x80
        }

    @functools.cached_property
    def _exported(self) -> set[int]:
        """Addresses of what the module exports: include/linux/export.h, where places are told by their distances."""
        linux = self._linux
        if not linux.types.has("kernel_symbol", "value_offset"):
            return set()
        size, offset = linux.types.size("kernel_symbol"), linux.types.offset("kernel_symbol", "value_offset")
        found: set[int] = set()
        for count_name, table_name in (("num_syms", "syms"), ("num_gpl_syms", "gpl_syms")):
            if not linux.types.has("module", table_name):
                continue  # since 7.0 there is one table of both
            try:
                count = linux.member("module", count_name, self.module.address)
                begin = linux.member("module", table_name, self.module.address)
                # As many as the module has symbols, at most: none is exported twice.
                data = linux.memory.read(begin, size * min(count, len(self.table.entries)))
            except MemoryFault:
                continue
            for at in range(0, len(data), size):
                distance = int.from_bytes(data[at + offset : at + offset + 4], "little", signed=True)
                found.add(begin + at + offset + distance & U64)
        return found

    def _strings(self, entries: bytes, strtab: int) -> bytes:
        """The string table, as far as the last name; its length is kept nowhere."""
        offsets = np.frombuffer(entries, dtype=ENTRY)["name"]
        last = min(int(offsets.max(initial=0)), MAX_STRINGS)
        head = self._budget.read(self._linux.memory, strtab, last, f"names of symbols of module {self.module.name}")
        try:
            return head + self._linux.memory.read(strtab + last, 256)
        except MemoryFault:
            return head + self._linux.memory.read(strtab + last, -(strtab + last) % PAGE)

    def at(self, address: int) -> tuple[Symbol, int] | None:
        """The symbol that holds `address` and its size, as the kernel's find_kallsyms_symbol counts it."""
        found = self.table.at(address)
        if found is None or not self.module.holds(found.symbol.address):
            return None
        area = next((s, n) for s, n in self.module.ranges if s <= found.symbol.address < s + n)
        text_end = sum(self.module.text)
        # Up to 6.3 text and data are one area, text first.
        is_text = area[0] <= self.module.text[0] < sum(area) and found.symbol.address < text_end
        end = text_end if is_text else sum(area)
        # Behind the last symbol the kernel counts to the area's end too: since 6.4 data may be below the text.
        distance = self.table.size_at(found.symbol.address)
        following = end if distance is None else found.symbol.address + distance
        return found.symbol, min(following, end) - found.symbol.address


def _without_letters(entries: bytes) -> tuple[bytes, bytes]:
    """A symbol table with bindings and types in `st_info`, and the letters that the kernel had put there instead (to 4.20).

    No binding and type give a number as large as a letter's. Of a type only that it is no section's and no file's counts here.
    """
    table = np.frombuffer(entries, dtype=ENTRY).copy()
    info = table["info"].copy()
    is_letter = info >= ord("?")
    binding = np.where(np.isin(info, _WEAK_LETTERS), STB_WEAK, 0) << 4
    kind = np.where(info == ord("t"), _STT_FUNC, _STT_OBJECT)
    table["info"] = np.where(is_letter, binding | kind, info)
    return table.tobytes(), np.where(is_letter, info, 0).astype(np.uint8).tobytes()


def orc_budget() -> Budget:
    """How many ORC rows the modules of a kernel may have together."""
    return Budget(MAX_ORC_ROWS)


def module_orc(linux: Linux, module: Module, budget: Budget) -> tuple[bytes, int, bytes, int]:
    """A module's ORC arrays and their addresses: ips, address of ips, rows, address of rows.

    Args:
        linux: the kernel.
        module: the module.
        budget: what the rows of all modules draw on together.

    Raises:
        OrcdbgError: the kernel keeps none, they cannot be read, or are more than the budget has left.
    """
    arch = module.address + linux.types.offset("module", "arch")
    claimed = linux.member("mod_arch_specific", "num_orcs", arch)
    ips = linux.member("mod_arch_specific", "orc_unwind_ip", arch)
    rows = linux.member("mod_arch_specific", "orc_unwind", arch)
    count = len(budget.entries(claimed, ips, f"ORC rows of module {module.name} and others"))
    return linux.memory.read(ips, 4 * count), ips, linux.memory.read(rows, 6 * count), rows

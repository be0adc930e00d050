"""Names of addresses in modules, as the kernel prints them."""

from __future__ import annotations

import struct
from typing import Any, cast

import pytest

from orcdbg.formats.elf import SHF_ALLOC, SHF_EXECINSTR, Section
from orcdbg.kernel.modules import Module, ModuleState, ModuleSymbols, symbols_budget
from orcdbg.kernel.names import Location, Names
from orcdbg.symbols.table import SymbolTable
from orcdbg.target.session import Session
from tests.build.kernel import U32, U64, Structure, made_linux
from tests.build.memory import SparseMemory

TEXT, DATA_BELOW, DATA_ABOVE = 0xFFFF_FFFF_C010_0000, 0xFFFF_FFFF_C000_0000, 0xFFFF_FFFF_C020_0000
TEXT_SIZE = 0x400
MODULE, KALLSYMS, TABLE = (DATA_BELOW + 0x1000 * number for number in range(1, 4))


def symbols_of(data: int) -> ModuleSymbols:
    """Symbols of a module with two functions in its text, and a variable where its data are."""
    entries = b"".join(
        struct.pack("<IBBHQQ", name, kind, 0, 1, address, 16)
        for name, kind, address in ((1, 2, TEXT), (7, 2, TEXT + 0x100), (12, 1, data))
    )
    sections = [Section("", 1, SHF_ALLOC | SHF_EXECINSTR, 0, 0, 0, 0, 0, 0)] * 2
    table = SymbolTable("module m", entries, b"\0first\0last\0data\0", sections, 1)
    module = Module(1, "m", ((TEXT, TEXT_SIZE), (data, 0x100)), (TEXT, TEXT_SIZE), ModuleState.LIVE)
    symbols = ModuleSymbols(cast("Any", None), module, symbols_budget())
    symbols.__dict__["_outcome"] = table
    return symbols


@pytest.mark.parametrize("data", [DATA_BELOW, DATA_ABOVE])
def test_the_last_function_reaches_to_the_end_of_the_text(data: int) -> None:
    """Whether or not any symbol comes behind it, as find_kallsyms_symbol() counts; its own size is not asked."""
    found = symbols_of(data).at(TEXT + 0x108)
    assert found is not None
    assert (found[0].name, found[1]) == ("last", TEXT_SIZE - 0x100)
    found = symbols_of(data).at(TEXT + 8)
    assert found is not None
    assert (found[0].name, found[1]) == ("first", 0x100)


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        (DATA_ABOVE, Location("data", DATA_ABOVE, 16, "m", False)),
        (DATA_ABOVE + 15, Location("data", DATA_ABOVE, 16, "m", False)),
        (DATA_ABOVE + 16, None),  # behind the variable
        (DATA_ABOVE + 0x40, None),  # behind what the module has
        (DATA_ABOVE - 1, None),
    ],
)
def test_a_modules_per_cpu_variable_is_named_by_its_pointer(
    sample: Session, pointer: int, expected: Location | None
) -> None:
    """As instructions with a %gs prefix have it; the symbol is such a pointer too."""
    module = Module(1, "m", ((TEXT, TEXT_SIZE),), (TEXT, TEXT_SIZE), ModuleState.LIVE, per_cpu=(DATA_ABOVE, 0x40))
    names = Names(sample.linux)
    names.__dict__["_module_list"] = [module], []
    names.__dict__["module_symbols"] = {1: symbols_of(DATA_ABOVE)}
    assert names.per_cpu_at(pointer) == expected


@pytest.mark.parametrize("is_in_table", [True, False])
def test_letters_that_the_kernel_wrote_over_types_are_no_types(is_in_table: bool) -> None:
    """To 4.20 a symbol's letter stands where its binding and type were; `t` and `d` look like the type of a file's name."""
    letters = b"\0tdw"
    infos = letters if is_in_table else b"\0\x02\x01\x22"
    places = 0, TEXT, TEXT + 0x80, TEXT + 0x100
    entries = b"".join(
        struct.pack("<IBBHQQ", 2 * number, info, 0, 1 if number else 0, place, 16)
        for number, (info, place) in enumerate(zip(infos, places, strict=True))
    )
    memory = SparseMemory()
    memory.put_words(MODULE, KALLSYMS)
    memory.put_words(KALLSYMS, TABLE, len(places), TABLE + 0x100)
    memory.put(TABLE, entries)
    memory.put(TABLE + 0x100, b"\0\0a\0b\0c\0" + bytes(256))
    kallsyms = {"symtab": (0, U64), "num_symtab": (8, U32), "strtab": (16, U64)}
    structures: dict[str, Structure] = {"module": (8, {"kallsyms": (0, U64)}), "mod_kallsyms": (24, kallsyms)}
    module = Module(MODULE, "m", ((TEXT, TEXT_SIZE),), (TEXT, TEXT_SIZE), ModuleState.LIVE)

    symbols = ModuleSymbols(made_linux(memory, structures), module, symbols_budget())

    found = [symbols.at(place) for place in places[1:]]
    assert [each and each[0].name for each in found] == ["a", "b", "c"]
    known = [None if each is None else symbols.letter(each[0]) for each in found]
    assert known == (["t", "d", "w"] if is_in_table else [None] * 3)

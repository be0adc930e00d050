"""Names of addresses: what is code is told by where it lies, too."""

from __future__ import annotations

from typing import cast

import pytest

from orcdbg.base.reading import AddressSpace
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names
from orcdbg.symbols.btf import StructIndex
from orcdbg.symbols.table import Span, Symbol, SymbolTable

TEXT, DATA, END = 0xFFFFFFFF81000000, 0xFFFFFFFF82000000, 0xFFFFFFFF83000000
# As in 7.2, whose `.data` is executable by its header, so that nm calls all that is in it text.
SYMBOLS = {
    "_text": TEXT,
    "schedule": TEXT + 0x1000,
    "_sdata": DATA,
    "init_task": DATA + 0x1000,
    "__relocate_kernel_start": DATA + 0x8000,
    "relocate_kernel": DATA + 0x8000,
    "__relocate_kernel_end": DATA + 0x9000,
    "init_uts_ns": DATA + 0x9000,
    "_edata": DATA + 0x10000,
    "__bss_start": DATA + 0x10000,
    "_end": END,
}


class Table:
    """Symbols that are all called text."""

    def find(self, name: str) -> Symbol | None:
        """The one of that name."""
        return Symbol(name, SYMBOLS[name], 0, "T", False) if name in SYMBOLS else None

    def get(self, name: str) -> Symbol:
        """The same, which must be there."""
        return Symbol(name, SYMBOLS[name], 0, "T", False)

    def at(self, address: int) -> Span:
        """The last one up to an address."""
        name = max((at, name) for name, at in SYMBOLS.items() if at <= address)[1]
        return Span(self.get(name), 0x1000)


@pytest.mark.parametrize(
    ("name", "is_text"),
    [("schedule", True), ("init_task", False), ("relocate_kernel", True), ("init_uts_ns", False), ("_sdata", False)],
)
@pytest.mark.parametrize("slide", [0, 0x1400000])
def test_what_lies_in_data_is_no_code(name: str, is_text: bool, slide: int) -> None:
    """But for the code that the kernel keeps there."""
    linux = Linux(cast(AddressSpace, None), cast(SymbolTable, Table()), cast(StructIndex, None), slide)
    location = Names(linux).at(SYMBOLS[name] + slide + 4)
    assert location is not None
    assert location.is_text is is_text

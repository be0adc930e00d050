"""Which memory a trimmed snapshot keeps for the tools that read it: numbers in a damaged BTF break nothing."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import Corrupt
from orcdbg.base.sizes import PAGE
from orcdbg.trim.essential_memory import section_ranges
from tests.build.kernel import made_linux
from tests.build.memory import SparseMemory

TABLE, ROOT, SECTIONS = 0x1000, 0x10_0000, 0x5000


def test_a_section_is_a_part_of_a_page() -> None:
    """The root has a pointer for each page of sections."""
    memory = SparseMemory()
    memory.put(TABLE, ROOT.to_bytes(8, "little"))
    memory.put(ROOT, SECTIONS.to_bytes(8, "little") + bytes(PAGE - 8))
    linux = made_linux(memory, {"mem_section": (32, {})}, {"mem_section": (TABLE, 8)})
    ranges = section_ranges(linux)
    assert next(ranges) == (ROOT, (1 << 46 - 27) // (PAGE // 32) * 8)
    assert next(ranges) == (SECTIONS, PAGE)


@pytest.mark.parametrize("size", [0, PAGE + 8, 1 << 20])
def test_a_size_that_no_section_has_is_refused(size: int) -> None:
    """It comes from BTF, which may be damaged."""
    memory = SparseMemory()
    memory.put(TABLE, ROOT.to_bytes(8, "little"))
    linux = made_linux(memory, {"mem_section": (size, {})}, {"mem_section": (TABLE, 8)})
    with pytest.raises(Corrupt):
        list(section_ranges(linux))

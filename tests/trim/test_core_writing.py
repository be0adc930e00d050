"""ELF cores that are written are read."""

from __future__ import annotations

import io

import pytest

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.reading import BytesSource
from orcdbg.base.sizes import PAGE
from orcdbg.snapshot.readers.elf_core import open_elf_core
from orcdbg.trim.core_writing import Run, write_core


@pytest.mark.parametrize("count", [3, 0xFFFE, 0xFFFF, 70_000])
def test_any_number_of_stretches_is_counted(count: int) -> None:
    """Beyond 65,534 program headers the count is in section 0."""
    out = io.BytesIO()
    runs = [Run(2 * number, 1, number != 1) for number in range(count)]
    size = write_core(out, [], runs, lambda first, pages: b"x" * PAGE * pages)
    assert size == len(out.getvalue())
    snapshot = open_elf_core(BytesSource("core", out.getvalue()))
    assert snapshot.physical.read(2 * PAGE, PAGE) == b"x" * PAGE
    with pytest.raises(NotInSnapshot):
        snapshot.physical.read(2 * (count - 1) * PAGE, 1)

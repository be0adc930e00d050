"""Where an emulated CPU finds the kernel's data of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from orcdbg.emulation.start import gs_base
from orcdbg.snapshot.machine import CpuState

OWN, OTHER, USER = 0xFFFF_8880_0420_0000, 0xFFFF_8880_0430_0000, 0x7F00_0000_1000


def base(cs: int, in_use: int | None, other: int | None, has_table: bool = True) -> int:
    """The base for CPU 1, whose note has these two."""
    linux = SimpleNamespace(
        find_address=lambda name: {"fixed_percpu_data": 0x1000, "__per_cpu_offset": 8 if has_table else None}[name],
        per_cpu_offset=lambda cpu: {1: OWN}[cpu],
    )
    return gs_base(cast("Any", linux), 1, CpuState(1, "made", {"cs": cs}, 2, gs_base=in_use, kernel_gs_base=other))


@pytest.mark.parametrize(
    ("cs", "in_use", "other"),
    [
        (0x10, OWN, USER),
        (0x10, OTHER, OWN),
        (0x10, USER, OWN),
        (0x33, OTHER, OWN),
        (0x33, OTHER, None),
        (0x10, 0, None),
    ],
)
def test_no_program_chooses_the_kernels_data(cs: int, in_use: int, other: int | None) -> None:
    """Its own base may be another CPU's data; the kernel's table says where this CPU's is."""
    assert base(cs, in_use, other) == OWN


def test_a_kernel_for_one_cpu_has_no_table() -> None:
    """The recorded base counts then, else the data in place."""
    assert base(0x10, OTHER, USER, has_table=False) == OTHER
    assert base(0x33, OTHER, None, has_table=False) == 0x1000

"""Which values did the boot write into instructions as constants?

Mirrors runtime_const_init() in arch/x86/include/asm/runtime-const.h (since 6.11). Sections `runtime_ptr_NAME` name eight-byte
operands that get the value of the variable NAME, `runtime_shift_NAME` one-byte shift counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from orcdbg.base.errors import OrcdbgError
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.patches.site import Applied, Undecidable, WorkingText, make_spans
from orcdbg.patches.sweep import IntArray, Sweep, Written
from orcdbg.patches.tables import repeated, section_sites

_KINDS = {"runtime_ptr_": 8, "runtime_shift_": 1}


class RuntimeConstPass(Sweep):
    """One constant as a replay pass."""

    mechanism = "runtime-const"

    def __init__(self, image: Image, linux: Linux, section: str, name: str, width: int) -> None:
        sites = section_sites(image, section, linux.slide)
        self.table = section
        self.places = make_spans(sites, np.full(len(sites), width))
        self._linux = linux
        self._name = name
        self._width = width

    def _value(self) -> bytes:
        try:
            return self._linux.memory.read(self._linux.address(self._name), self._width)
        except OrcdbgError as error:
            raise Undecidable(f"{self._name}: {error}") from error

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """The operand becomes the variable's value."""
        yield Written(rows, repeated(self._value(), len(rows)))

    def describe(self, row: int) -> Applied:
        """The variable."""
        return Applied(self._name, f"{self._name} = {int.from_bytes(self._value(), 'little'):#x}")


def constant_passes(image: Image, linux: Linux) -> Sequence[RuntimeConstPass]:
    """A pass for each constant that the image has sites of."""
    return [
        RuntimeConstPass(image, linux, section.name, section.name.removeprefix(prefix), width)
        for section in image.elf.sections
        for prefix, width in _KINDS.items()
        if section.name.startswith(prefix)
    ]

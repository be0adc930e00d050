"""Which values did the boot write into instructions as constants?

Mirrors runtime_const_init() in arch/x86/include/asm/runtime-const.h (since 6.11). Sections `runtime_ptr_NAME` name eight-byte
operands that get the value of the variable NAME, `runtime_shift_NAME` one-byte shift counts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from orcdbg.base.errors import Corrupt, NotFound, OrcdbgError
from orcdbg.base.reading import read_cstring
from orcdbg.base.walks import Budget
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, Undecidable, WorkingText, make_spans
from orcdbg.patches.sweep import IntArray, Sweep, Written
from orcdbg.patches.tables import repeated, section_sites

_KINDS = {"runtime_ptr_": 8, "runtime_shift_": 1}
MAX_CACHES = 1 << 14  # a kernel has some 300; the list is gone through for each constant that is named after one


class RuntimeConstPass(Sweep):
    """One constant as a replay pass.

    Args:
        image: where the section is.
        linux: the kernel.
        section: name of the section that lists the operands.
        name: the variable's, or that of a slab cache.
        width: bytes of an operand: 8, or 1 for a shift count.
    """

    mechanism = "runtime-const"

    def __init__(self, image: Image, linux: Linux, section: str, name: str, width: int) -> None:
        sites = section_sites(image, section, linux.slide)
        self.table = section
        self.places = make_spans(sites, np.full(len(sites), width))
        self._linux = linux
        self._name = name
        self._width = width

    @functools.cached_property
    def _value(self) -> bytes:
        try:
            address = self._linux.find_address(self._name)
            if address is None:
                return _cache_named(self._linux, self._name).to_bytes(8, "little")[: self._width]
            return self._linux.memory.read(address, self._width)
        except OrcdbgError as error:
            raise Undecidable(f"{self._name}: {error}") from error

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """The operand becomes the variable's value."""
        yield Written(rows, repeated(self._value, len(rows)))

    def describe(self, row: int) -> Applied:
        """The variable."""
        return Applied(self._name, f"{self._name} = {int.from_bytes(self._value, 'little'):#x}")


def _cache_named(linux: Linux, name: str) -> int:
    """The slab cache that a constant `__NAME_cache` points at.

    The variables of 6.19's cache constants are written once and read once, so compilers leave them out of the image.

    Raises:
        NotFound: the kernel has no such cache.
        Corrupt: the list of caches breaks off before one is found.
    """
    budget = Budget(MAX_CACHES)
    wanted = name.strip("_")
    for cache in linux.walk_list(linux.address("slab_caches"), "kmem_cache", "list", budget):
        found = read_cstring(linux.memory, linux.member("kmem_cache", "name", cache), 64).decode("ascii", "replace")
        if found in (wanted, wanted.removesuffix("_cache")):
            return cache
    if not budget.is_whole:
        raise Corrupt("; ".join(budget.lines()))
    raise NotFound("variable or slab cache", name)


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[RuntimeConstPass]:
    """A pass for each constant that the image has sites of."""
    return [
        RuntimeConstPass(build.image, build.linux, section.name, section.name.removeprefix(prefix), width)
        for section in build.image.sections
        for prefix, width in _KINDS.items()
        if section.name.startswith(prefix)
    ]


# Each constant has a section of its own, so that no list of names is whole.
RUNTIME_CONST = Mechanism(RuntimeConstPass.mechanism, _passes)

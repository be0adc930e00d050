"""Which ENDBR instructions were taken away, because nothing jumps to those functions indirectly?

Mirrors apply_seal_endbr() in arch/x86/kernel/alternative.c. `.ibt_endbr_seal` names them; the table is applied on every
CPU. What is written instead changed in 6.15 and is looked up in the code of that function itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from orcdbg.base.errors import MemoryFault
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, U64Array, Undecidable, WorkingText, make_spans
from orcdbg.patches.sweep import IntArray, Sweep, Written
from orcdbg.patches.tables import repeated, section_sites
from orcdbg.x86.branches import ENDBR64

_ENDBR = np.frombuffer(ENDBR64, dtype=np.uint8)
# NOPs that no compiler makes, so that a sealed ENDBR is still told from any other NOP.
_POISONS = (b"\x0f\x1f\x40\xd6", b"\x66\x0f\x1f\x00")
_CODE_SIZE = 512


class IbtSealPass(Sweep):
    """`apply_seal_endbr()` as a replay pass.

    Args:
        sites: run-time addresses of the ENDBR instructions.
        image: the kernel's own, whose code tells what is written instead.
        linux: the kernel.
    """

    mechanism = "ibt-seal"
    table = ".ibt_endbr_seal"

    def __init__(self, sites: U64Array, image: Image, linux: Linux) -> None:
        self.places = make_spans(sites, np.full(len(sites), len(_ENDBR)))
        self._poison = _find_poison(image, linux)

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """ENDBR64 becomes the poison."""
        if self._poison is None:
            raise Undecidable("apply_seal_endbr() holds none of the known replacements for ENDBR")
        sealed = rows[(text.gather(self.places.starts[rows], len(_ENDBR)) == _ENDBR).all(axis=1)]
        yield Written(sealed, repeated(self._poison, len(sealed)))

    def describe(self, row: int) -> Applied:
        """Why."""
        return Applied("endbr64", "no indirect branch goes there")


def _find_poison(image: Image, linux: Linux) -> bytes | None:
    """The poison that this kernel's own code writes."""
    for name in ("apply_seal_endbr", "apply_ibt_endbr"):
        symbol = linux.symbols.find(name)
        if symbol is None:
            continue
        try:
            code = image.read(symbol.address, min(symbol.size or _CODE_SIZE, _CODE_SIZE))
        except MemoryFault:
            continue
        for poison in _POISONS:
            if poison in code:
                return poison
    return None


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[IbtSealPass]:
    sites = section_sites(build.image, IbtSealPass.table, build.linux.slide)
    return [IbtSealPass(sites, build.kernel_image, build.linux)] if len(sites) else []


IBT_SEAL = Mechanism(IbtSealPass.mechanism, _passes, (IbtSealPass.table,))

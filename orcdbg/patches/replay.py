"""Which passes did this kernel run over its own text, and in which order?"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.reading import AddressSpace
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.patches.alternatives import AlternativesPass, AlternativeTable, entry_size
from orcdbg.patches.nops import choose_nops
from orcdbg.patches.paravirt import ParavirtPass
from orcdbg.patches.site import PatchPass


@dataclass(frozen=True, slots=True)
class Build:
    """What the passes draw on: the image and its tables, the kernel's state, text as built at run-time addresses."""

    image: Image
    linux: Linux
    built: AddressSpace
    features: Features


def recorded_passes(build: Build) -> list[PatchPass]:
    """The passes whose sites the image's tables record, in this kernel's order.

    Paravirt came last while it wrote instructions itself (to 5.11); since 5.13 (4e6292114c74) it comes first, and the
    alternatives on the same sites follow. Which it is shows in the instruction at the sites.
    """
    table = build.image.section_data(".altinstructions")
    section = build.image.find_section(".altinstructions")
    passes: list[PatchPass] = []
    nops = choose_nops(build.linux, entry_size(table) == 14)
    if section is not None and table:
        alternatives = AlternativeTable(table, section.address + build.linux.slide)
        passes.append(AlternativesPass(build.linux, build.built, alternatives, build.features, nops))
    sites = build.image.section_data(".parainstructions")
    if sites:
        paravirt = ParavirtPass(build.linux, build.built, sites, build.linux.slide, nops)
        passes.insert(len(passes) if paravirt.inlines else 0, paravirt)
    return passes

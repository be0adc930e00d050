"""Which rows would a build need that described all alternatives of each site at once, and where do two of them clash?

This is the third of the cures discussed since 2017: the union of the rows of all alternatives, at build time. It is computed
from a vmlinux alone; every alternative counts, whatever any machine's features are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from orcdbg.base.errors import OrcdbgError
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.check import CheckedBoundary, Stated, compare
from orcdbg.patches.mechanisms.alternative import AlternativesPass
from orcdbg.patches.mechanisms.paravirt import ParavirtPass
from orcdbg.patches.site import PatchPass, Undecidable, WorkingText


@dataclass(frozen=True, slots=True)
class Variant:
    """One text that a site can have: the mechanism and condition that put it there."""

    mechanism: str
    name: str
    text: bytes


@dataclass(slots=True)
class UnionRow:
    """The rules that variants need at one address, with their names, and what the image's row states there."""

    address: int
    site: int
    stated: CfaRule
    rules: dict[CfaRule, list[str]] = field(default_factory=dict)

    @property
    def conflicts(self) -> bool:
        """True where no one row can serve: two variants have a boundary here and need different rules."""
        return len(self.rules) > 1


@dataclass(frozen=True, slots=True)
class StaticHazard:
    """A boundary of one variant where the image's row does not hold."""

    boundary: CheckedBoundary
    site: int
    variant: Variant


@dataclass(slots=True)
class UnionTable:
    """All rows by address, the hazards, and how much was looked at; `problems` are sites that could not be read."""

    rows: dict[int, UnionRow] = field(default_factory=dict)
    hazards: list[StaticHazard] = field(default_factory=list)
    sites: int = 0
    variants: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def conflicts(self) -> list[UnionRow]:
        """The rows where variants clash, by address."""
        return [row for _, row in sorted(self.rows.items()) if row.conflicts]


def site_variants(
    passes: Sequence[PatchPass], built: WorkingText, rows: Sequence[tuple[int, int]]
) -> Iterator[Variant]:
    """The texts that a site can have; `rows` are the (pass, index) pairs of its entries."""
    seen: set[bytes] = set()
    for owner, index in rows:
        one = passes[owner]
        if isinstance(one, AlternativesPass):
            texts = [("as built", one.untouched(index, built)), (one.variant_name(index), one.variant(index, built))]
        elif isinstance(one, ParavirtPass):
            text = WorkingText(built.address, bytes(built.data))
            applied = one.apply(index, text)
            texts = [("as built", bytes(built.data)), (applied.name if applied else "?", bytes(text.data))]
        else:
            continue
        for name, found in texts:
            if found not in seen:
                seen.add(found)
                yield Variant(one.mechanism, name, found)


def add_site(table: UnionTable, site: int, variants: Sequence[Variant], stated: Stated) -> None:
    """Adds a site's boundaries to the union."""
    table.sites += 1
    for variant in variants:
        table.variants += 1
        for found in compare(variant.text, site, stated):
            row = table.rows.setdefault(found.address, UnionRow(found.address, site, found.stated))
            row.rules.setdefault(found.true, []).append(variant.name)
            if not found.agrees:
                table.hazards.append(StaticHazard(found, site, variant))


def union_of(
    passes: Sequence[PatchPass], read: Callable[[int, int], WorkingText], stated: Stated, start: int, end: int
) -> UnionTable:
    """The union over all sites in [start, end).

    Args:
        passes: alternatives and paravirt.
        read: gives a site's text as built.
        stated: the image's rows.
        start: first address of the text to look at.
        end: first address after it.
    """
    table = UnionTable()
    for (site, size), rows in sorted(_sites(passes).items()):
        if not start <= site < end:
            continue
        try:
            variants = list(site_variants(passes, read(site, size), rows))
        except (OrcdbgError, Undecidable) as error:
            table.problems.append(f"site {site:#x}: {error}")
            continue
        add_site(table, site, variants, stated)
    return table


def _sites(passes: Sequence[PatchPass]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Each site's address and length, and the entries that name it."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for owner, one in enumerate(passes):
        spans = one.spans()
        for index, place in enumerate(zip(spans.starts.tolist(), spans.sizes.tolist(), strict=True)):
            found.setdefault(place, []).append((owner, index))
    return found

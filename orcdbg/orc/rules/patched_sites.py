"""Which rule holds inside a place whose instructions the kernel replaced?

The row at the site's first byte holds there whatever was patched in. From it on the instructions in memory, or those that a
replay puts there, tell how the stack pointer moved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.base.reasons import Reason
from orcdbg.orc.effective import AsBuilt, Effective, PatchEffect, TextFrom, by_patch
from orcdbg.orc.reasons import (
    InsidePatchedInstruction,
    NotBehindPatchedCall,
    PatchedTextMissing,
    StackPointerNotFollowed,
)
from orcdbg.orc.rules.source import Lookup, StatedRows
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.ledger import Cluster
from orcdbg.x86.stack_effects import Boundary, call_before, stack_boundaries


@dataclass(frozen=True, slots=True)
class _Text:
    """A cluster's bytes, as memory or else the replay has them."""

    code: bytes
    source: TextFrom


class PatchedSites:
    """Places that the kernel patched.

    Args:
        memory: text as it was in memory.
        stated: the rows as built.
    """

    def __init__(self, memory: AddressSpace, stated: StatedRows) -> None:
        self._memory = memory
        self._stated = stated

    def at(self, lookup: Lookup) -> Effective | None:
        """The rule inside a site whose text was changed, or may have been."""
        cluster = lookup.cluster
        if lookup.entry is None or lookup.is_derived or cluster is None or not cluster.sites:
            return None

        text = self._text(cluster)
        if text is None:
            return AsBuilt(lookup.entry, lookup.rule, doubt=PatchedTextMissing())

        # At the site's first byte nothing of it has run yet, and the row holds whatever follows.
        if text.code == cluster.image or (lookup.exact and lookup.ip == cluster.address):
            return None

        effective = self._inside(lookup, lookup.entry, cluster, text)
        if not cluster.image_known and isinstance(effective, AsBuilt):
            return replace(effective, patch=None)  # whether the text was changed at all is not known
        return effective

    def _text(self, cluster: Cluster) -> _Text | None:
        """What ran at the site; None where neither memory nor the replay tells."""
        try:
            return _Text(self._memory.read(cluster.address, len(cluster.image)), TextFrom.MEMORY)
        except MemoryFault:
            return None if cluster.expected is None else _Text(cluster.expected, TextFrom.REPLAY)

    def _inside(self, lookup: Lookup, entry: OrcEntry, cluster: Cluster, text: _Text) -> Effective:
        """The rule inside a site that was changed."""
        rule = lookup.rule
        untouched = PatchEffect(
            site=cluster.covering(lookup.address),
            adjust=0,
            instructions=(),
            stated_rule=None if rule is None else str(rule),
            text=text.code,
            text_from=text.source,
        )

        # A rule on another base holds whatever is pushed.
        if rule is None or not rule.counts_from_sp:
            return AsBuilt(entry, rule, untouched)

        boundary = _boundary(lookup, cluster, text.code)
        if boundary is None:
            return AsBuilt(entry, rule, untouched, _not_a_boundary(lookup))

        followed = replace(untouched, instructions=tuple(insn.mnemonic for insn in boundary.path))
        if boundary.pushed is None:
            return AsBuilt(entry, rule, followed, StackPointerNotFollowed())

        # The stack at the site's first byte says nothing of this address where the row here is of another type, as in entry
        # code that saves registers, or where other code was called in between, which may have left anything on the stack.
        first_entry, first_rule = self._stated.at(cluster.address)
        is_comparable = first_entry is not None and first_entry.row.type is entry.row.type and not boundary.after_call
        if first_rule is None or not first_rule.counts_from_sp or not is_comparable:
            return AsBuilt(entry, rule, followed)

        true_rule = first_rule.moved(boundary.pushed)
        return by_patch(entry, true_rule, replace(followed, adjust=true_rule.offset - rule.offset))


def _boundary(lookup: Lookup, cluster: Cluster, code: bytes) -> Boundary | None:
    """The boundary that a frame is at: its ip, or the call that returns there."""
    if lookup.exact:
        return stack_boundaries(code, cluster.address).get(lookup.ip)
    return call_before(code, cluster.address, lookup.ip)


def _not_a_boundary(lookup: Lookup) -> Reason:
    return InsidePatchedInstruction(lookup.ip) if lookup.exact else NotBehindPatchedCall(lookup.ip)

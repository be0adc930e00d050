"""What can be said of the CFA rule at an address: as built, corrected for a patch, derived, or not known?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from orcdbg.base.reasons import Reason
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.rows import OrcRow
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.site import PatchSite


class Source(enum.Enum):
    """What a rule was taken from; the values are the JSON contract's words."""

    NONE = "none"
    ORC = "orc"
    PATCH = "patch"
    # Whatever is known of code that orcdbg knows by name: thunks, entry code, return trampolines, copies and detours that the
    # kernel made. The word is the contract's; only some of these are trampolines.
    TRAMPOLINE = "trampoline"
    FRAME_POINTER = "frame-pointer"
    DWARF = "dwarf"
    INSTRUCTIONS = "instructions"
    SCAN = "scan"
    # A row that no table has, from the instructions of its function.
    DERIVED = "derived"

    @property
    def is_derived(self) -> bool:
        """True where the rule is neither a row as built nor one moved for a patch."""
        return self in _DERIVED


_DERIVED = (Source.TRAMPOLINE, Source.FRAME_POINTER, Source.DWARF, Source.INSTRUCTIONS, Source.DERIVED)


class TextFrom(enum.Enum):
    """Where the bytes come from that were followed; the values are the JSON contract's words."""

    MEMORY = "memory"
    REPLAY = "replay (the text is not in the snapshot)"


@dataclass(frozen=True, slots=True)
class PatchEffect:
    """What a patch does to the rule at one address.

    `adjust` is the bytes by which the true rule differs from the stated one, `instructions` those that moved the stack
    pointer between the site's start and the address, `text` the bytes that were followed and `text_from` where they came from.
    """

    site: PatchSite
    adjust: int
    instructions: tuple[str, ...]
    stated_rule: str | None
    text: bytes
    text_from: TextFrom


@dataclass(frozen=True, slots=True)
class AsBuilt:
    """The row as the build wrote it, or where no table has one, as it would have been; `rule` is None where that has none.

    `patch` is one that covers the address and leaves the rule as it is.
    """

    entry: OrcEntry
    rule: CfaRule | None
    patch: PatchEffect | None = None
    doubt: Reason | None = None

    @property
    def source(self) -> Source:
        """Where the rule comes from."""
        return Source.ORC if self.entry.derivation is None else Source.DERIVED


@dataclass(frozen=True, slots=True)
class Corrected:
    """Another rule than the stated one: that of the site's first byte, moved by what the patch pushed or popped since."""

    entry: OrcEntry
    rule: CfaRule
    patch: PatchEffect

    @property
    def source(self) -> Source:
        """Where the rule comes from."""
        return Source.PATCH

    @property
    def doubt(self) -> None:
        """A correction that is in doubt is not made."""
        return None


@dataclass(frozen=True, slots=True)
class Derived:
    """A rule that no row states.

    `row` stands for the one as built, whose type and second half do not hold; `instructions` are those that the rule was
    derived from, and `reason` says how. `return_register` is the one that the return address is in, where that is on no
    stack.
    """

    entry: OrcEntry | None
    rule: CfaRule
    row: OrcRow
    reason: Reason
    source: Source
    instructions: tuple[str, ...] = ()
    doubt: Reason | None = None
    return_register: str | None = None

    @property
    def patch(self) -> None:
        """A derived rule counts what was patched in already."""
        return None


@dataclass(frozen=True, slots=True)
class Unknown:
    """No rule is known: no table covers the address, or the row that does is about something else.

    `source` says where one was looked for.
    """

    entry: OrcEntry | None = None
    source: Source = Source.NONE
    doubt: Reason | None = None

    @property
    def rule(self) -> None:
        """None."""
        return None

    @property
    def patch(self) -> None:
        """None."""
        return None


Effective = AsBuilt | Corrected | Derived | Unknown


def by_patch(entry: OrcEntry, rule: CfaRule, patch: PatchEffect) -> AsBuilt | Corrected:
    """The rule where a patch was followed: corrected where it is not the one that the row states."""
    return Corrected(entry, rule, patch) if patch.adjust else AsBuilt(entry, rule, patch)

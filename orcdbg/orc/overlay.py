"""Which CFA rule holds at this address, given what the kernel wrote over its own text?

The row as built is right wherever the patched instructions leave the stack as the row says. Where they do not, the rule
is derived: the row at the site's first byte, moved by what the instructions up to the boundary pushed. Kernels whose
build put the rows of all alternatives into the image state the same rule themselves, and then nothing is corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import U64, AddressSpace
from orcdbg.kernel.generated_code import MadeCode
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule, cfa_rule
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRow
from orcdbg.orc.rules.entry_code import (
    NOT_FOLLOWED,
    REGISTERS_AT_RAX,
    REGISTERS_AT_SP,
    RETURN_ADDRESS,
    UNKNOWN_CALLER,
    WHY,
    WHY_CALLED,
    WHY_MOVED,
    WHY_R12,
    WHY_SAVED,
    SavingFunctions,
)
from orcdbg.orc.rules.generated_code import made_rule
from orcdbg.orc.rules.lost_tables import MECHANISM, Moved, UnlistedPatches
from orcdbg.orc.rules.return_trampolines import WHY as RETURN_WHY
from orcdbg.orc.rules.return_trampolines import ReturnTrampolines
from orcdbg.orc.rules.thunks import THUNK_WHY, is_thunk, thunk_rule
from orcdbg.orc.rules.undefined_rows import UnstatedFunctions
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.site import PatchSite
from orcdbg.x86 import stack_effects as effects

FindEntry = Callable[[int], OrcEntry | None]


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
    text_from: str


@dataclass(frozen=True, slots=True)
class Effective:
    """The rule at an address: the ORC entry, the rule that holds, the patch that covers it, and what is in doubt.

    `thunk` holds the instructions that the rule was derived from where no row describes the code (see `thunks` and
    `entry_code`); `row` then stands for the one as built where that is of another type, and `why` says so in words.
    `by` is the contract's word for such a rule where that is not `trampoline`.
    """

    entry: OrcEntry | None
    rule: CfaRule | None
    patch: PatchEffect | None = None
    doubt: str | None = None
    thunk: tuple[str, ...] | None = None
    row: OrcRow | None = None
    why: str | None = None
    by: str = "trampoline"


class OrcOverlay:
    """ORC rows corrected for patched text.

    Args:
        find_entry: the kernel's own look-up, rows as built.
        find_cluster: the patch sites that cover an address, of the image and of modules.
        memory: text as it was in memory.
        sp_indirect_adds_last: see `cfa_rule`.
        locate: the symbol that holds an address.
        saving: where the functions are that save all registers around their own return address.
        returns: the code that replaced return addresses lead to.
        find_made: the code that the kernel made at an address.
        unlisted: finds stack movement that no table tells of, where the kernel's own tables are lost.
        unstated: finds rules in compiled functions whose rows are undefined.
    """

    def __init__(
        self,
        find_entry: FindEntry,
        find_cluster: Callable[[int], Cluster | None],
        memory: AddressSpace,
        sp_indirect_adds_last: bool,
        locate: Callable[[int], Location | None],
        saving: Sequence[int] = (),
        returns: ReturnTrampolines | None = None,
        find_made: Callable[[int], MadeCode | None] | None = None,
        unlisted: UnlistedPatches | None = None,
        unstated: UnstatedFunctions | None = None,
    ) -> None:
        self._unstated = unstated
        self._unlisted = unlisted
        self._find_made = find_made
        self.saving = SavingFunctions(saving, memory)
        self._returns = returns
        self._locate = locate
        self._find_entry = find_entry
        self._find_cluster = find_cluster
        self._memory = memory
        self._adds_last = sp_indirect_adds_last

    def stated(self, address: int) -> tuple[OrcEntry | None, CfaRule | None]:
        """The entry as built for an address, and its rule."""
        entry = self._find_entry(address)
        return entry, None if entry is None else cfa_rule(entry.row, self._adds_last)

    def at(self, ip: int, exact: bool) -> Effective:
        """The rule for a frame.

        Args:
            ip: its instruction pointer.
            exact: True for an interrupted address, False for a return address (looked up at ip - 1).
        """
        address = (ip if exact else ip - 1) & U64
        entry, rule = self.stated(address)
        place = None if self._returns is None else self._returns.place(ip, exact)
        if place is not None and (rule != place.rule or not place.rule.offset):
            why = RETURN_WHY.format(where=place.holder)
            return Effective(entry, place.rule, None, None, place.instructions, FUNCTION_ENTRY, why)
        made = self._find_made(address) if entry is None and self._find_made is not None else None
        if made is not None:
            return self._in_made_code(made, ip, exact)
        location = self._locate(address) if exact else None
        if location is not None and is_thunk(location):
            thunk = thunk_rule(location, ip, self._memory)
            doubt = None if thunk.rule else f"no rule is known inside {location.symbol}"
            return Effective(entry, thunk.rule, None, doubt, thunk.instructions, why=THUNK_WHY)
        partial = entry is not None and entry.row.type == "regs_partial"
        if exact and partial and self.saving.is_taken_from_rax(ip):
            return Effective(entry, CfaRule("ax", 0), None, None, ("call error_entry",), REGISTERS_AT_RAX, WHY)
        if self._unstated is not None and entry is not None and entry.row.type == "undefined":
            own = self._unstated.rule(ip, exact)
            if own is not None:
                return Effective(entry, own.rule, None, None, own.instructions, own.row, own.why, own.source)
        inside = self._in_saving_function(ip, exact, entry, rule)
        if inside is not None:
            return inside
        cluster = self._find_cluster(address)
        if cluster is None and entry is not None and self._unlisted is not None:
            return self._without_tables(ip, entry, rule, self._unlisted.before(ip, entry, rule))
        if entry is None or cluster is None or not cluster.sites:
            return Effective(entry, rule)
        text, text_from = self._text(cluster)
        if text is None:
            return Effective(entry, rule, None, f"{text_from}; whether the row still holds is not known")
        if text == cluster.image or (exact and ip == cluster.address):
            return Effective(entry, rule)
        found = self._patched(ip, exact, entry, rule, cluster, text, text_from)
        if not cluster.image_known and found.patch is not None and not found.patch.adjust:
            return replace(found, patch=None)  # whether the text was changed at all is not known
        return found

    def _in_saving_function(
        self, ip: int, exact: bool, entry: OrcEntry | None, rule: CfaRule | None
    ) -> Effective | None:
        """The rule in error_entry and its like, where the rows have no place for the caller."""
        address = ip if exact else ip - 1
        function = self.saving.near(address)
        if function is None or entry is None:
            return None
        moved = function.moved(ip) if exact else None
        if moved is not None:
            return Effective(entry, CfaRule("sp", moved), None, None, ("mov %rdi,8(%rsp)",), RETURN_ADDRESS, WHY_MOVED)
        is_in_r12 = function.is_in_r12(address, entry.row)
        is_unknown = function.is_unknown(address) and entry.row.type != "call"
        if not (is_unknown or is_in_r12 or function.has_saved(address, entry.row)):
            return None
        place = self._locate(address)
        if place is None or place.start != function.start:
            return None
        if is_unknown:
            return Effective(entry, rule, None, NOT_FOLLOWED)
        if not is_in_r12:
            return Effective(entry, rule, None, None, ("push %rsi",), RETURN_ADDRESS, WHY_CALLED)
        if not exact:
            return Effective(entry, rule, None, UNKNOWN_CALLER)
        return Effective(entry, rule, None, None, ("pop %r12",), RETURN_ADDRESS, WHY_R12)

    @staticmethod
    def after_saving(effective: Effective) -> Effective:
        """The rule of the caller of error_entry and its like, once they have saved all registers."""
        names = ("call",)
        return Effective(effective.entry, CfaRule("sp", 0), None, None, names, REGISTERS_AT_SP, WHY_SAVED)

    def _in_made_code(self, code: MadeCode, ip: int, exact: bool) -> Effective:
        """The rule in code that no table covers: its own, or that of the text that it stands for."""
        found = made_rule(code, ip, exact, self._memory)
        if found is None:
            return Effective(None, None)
        if found.alike is None:
            rule, names = found.rule, found.instructions
            return Effective(None, rule, None, None, names, found.row, found.why, found.by)
        if self._find_entry(found.alike if found.exact else found.alike - 1) is None:
            return Effective(None, None)
        base = self.at(found.alike, found.exact)
        if base.rule is None or base.entry is None or (found.pushed and base.rule.indirect):
            return replace(base, rule=None)
        names = (*(base.thunk or ()), *found.instructions)
        rule, row = base.rule.moved(found.pushed), base.row or base.entry.row
        return replace(base, rule=rule, patch=None, thunk=names, row=row, why=found.why)

    @staticmethod
    def _without_tables(ip: int, entry: OrcEntry, rule: CfaRule | None, moved: Moved | str | None) -> Effective:
        """The rule where the places that the kernel patched are not listed, by what moved the stack since the row began."""
        if isinstance(moved, str) or moved is None or rule is None or moved.pushed is None:
            return Effective(entry, rule, None, moved if isinstance(moved, str) else None)
        first, names = moved.path[0].address, tuple(insn.mnemonic for insn in moved.path)
        why = "the instructions in memory; the tables of the boot are gone"
        site = PatchSite(MECHANISM, first, ip - first, "?", moved.text, None, why, 0)
        effect = PatchEffect(site, moved.pushed, names, str(rule), moved.text, "memory")
        return Effective(entry, rule.moved(moved.pushed), effect)

    def _text(self, cluster: Cluster) -> tuple[bytes | None, str]:
        """The cluster's bytes and where they come from: memory, else the replay."""
        try:
            return self._memory.read(cluster.address, len(cluster.image)), "memory"
        except MemoryFault:
            if cluster.expected is None:
                return None, "patched text is not in the snapshot and cannot be replayed"
            return cluster.expected, "replay (the text is not in the snapshot)"

    def _patched(
        self,
        ip: int,
        exact: bool,
        entry: OrcEntry,
        rule: CfaRule | None,
        cluster: Cluster,
        text: bytes,
        text_from: str,
    ) -> Effective:
        """The rule inside a site that was changed."""
        site = cluster.covering(ip if exact else ip - 1)
        stated = None if rule is None else str(rule)

        def effect(adjust: int, instructions: tuple[str, ...]) -> PatchEffect:
            return PatchEffect(site, adjust, instructions, stated, text, text_from)

        boundary = (
            effects.stack_boundaries(text, cluster.address).get(ip)
            if exact
            else effects.call_before(text, cluster.address, ip)
        )
        if rule is None or rule.base != "sp" or rule.indirect:
            return Effective(entry, rule, effect(0, ()))
        if boundary is None:
            what = (
                "is inside an instruction of the patched text"
                if exact
                else "does not follow a call of the patched text"
            )
            return Effective(entry, rule, effect(0, ()), f"{ip:#x} {what}")
        path = tuple(insn.mnemonic for insn in boundary.path)
        if boundary.pushed is None:
            return Effective(
                entry, rule, effect(0, path), "the patched text sets the stack pointer in a way not followed"
            )
        start_entry, start_rule = self.stated(cluster.address)
        same_kind = start_entry is not None and start_entry.row.type == entry.row.type and not boundary.after_call
        if start_rule is None or start_rule.base != "sp" or start_rule.indirect or not same_kind:
            return Effective(entry, rule, effect(0, path))
        true = start_rule.moved(boundary.pushed)
        return Effective(entry, true, effect(true.offset - rule.offset, path))

"""Which instructions ran here, which of them did the build not put here, and what CFA rule holds at each?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.site import PatchSite
from orcdbg.target.session import Session
from orcdbg.x86.instructions import Instruction as Decoded
from orcdbg.x86.instructions import decode, decode_one, in_hexadecimal, references

MAX_LENGTH = 1 << 20


class Account(enum.Enum):
    """How an instruction's bytes are accounted for; the values are the contract's."""

    AS_BUILT = "as-built"
    PATCHED = "patched"
    UNDECIDED = "undecided"  # a patch is there, and what it left cannot be told
    UNEXPLAINED = "unexplained"  # no patch is known that would have changed these bytes
    MISMATCHED = "mismatched"  # the patches there would have left other bytes


@dataclass(frozen=True, slots=True)
class NamedOperand:
    """An address in an instruction's operands that has a name, `symbol+0xoffset/0xsize`."""

    address: int
    name: str
    is_per_cpu: bool


@dataclass(frozen=True, slots=True)
class ListedInstruction:
    """One line of a disassembly.

    Attributes:
        image: what the build had there; None where it is the same, or not known.
        account: how the bytes are accounted for; None where the build's are not known, in what the boot gives back,
            where there is no text, and where other text than what ran is emulated.
        site: the last patch that wrote its first byte, else the first byte that differs.
    """

    address: int
    raw: bytes
    mnemonic: str
    operands: str
    location: str | None
    symbol: str | None
    offset: int | None
    image: bytes | None
    rule: str | None
    stated_rule: str | None
    site: PatchSite | None
    adjust: int
    site_image: str | None
    account: Account | None
    named: tuple[NamedOperand, ...] = ()


def _image_text(site: PatchSite) -> str:
    """What the build had at a site, as instructions."""
    return "; ".join(insn.text for insn in decode(site.image, site.address))


def _named_target(session: Session, insn: Decoded) -> str:
    """The operands, a direct target followed by its symbol."""
    operands = in_hexadecimal(insn.operands)
    if insn.target is None:
        return operands
    name = session.names.describe(insn.target)
    return f"{operands} <{name}>" if name else operands


def _named(session: Session, insn: Decoded) -> tuple[NamedOperand, ...]:
    """The addresses in the operands that have names: immediates, what %rip leads to, and per-CPU variables."""
    if not insn.operands:
        return ()
    found = []
    for address, is_per_cpu in references(insn.raw, insn.address):
        place = session.names.per_cpu_at(address) if is_per_cpu else None
        if place is not None:
            found.append(NamedOperand(address, f"{place.symbol}+{address - place.start:#x}/{place.size:#x}", True))
        elif not is_per_cpu and address >> 63 and (name := session.names.describe(address)) is not None:
            found.append(NamedOperand(address, name, False))
    return tuple(found)


def _site(cluster: Cluster | None, address: int) -> PatchSite | None:
    """The last pass that wrote the byte at an address."""
    covering = [s for s in cluster.sites if s.address <= address < s.end] if cluster else []
    return covering[-1] if covering else None


def _site_of(session: Session, insn: Decoded, built: bytes | None) -> PatchSite | None:
    """The patch that an instruction is of: also one that wrote its operand alone."""
    first = _site(session.ledger.find(insn.address), insn.address)
    if first is not None or built is None or built == insn.raw:
        return first
    changed = next(at for at, (was, now) in enumerate(zip(built, insn.raw, strict=True)) if was != now)
    return _site(session.ledger.find(insn.address + changed), insn.address + changed)


def _account(session: Session, insn: Decoded, built: bytes | None) -> Account | None:
    """Compares an instruction's bytes with the build's and with what the patches there left."""
    at = insn.address
    is_given_back = session.is_image_text(at) and not session.code.is_lasting(at)
    if built is None or is_given_back or not session.is_text(at):
        return None
    expected: list[int | None] = list(built)
    covered = set[int]()
    for cluster in session.ledger.between(insn.address, insn.address + insn.size):
        if not cluster.image_known:
            return None
        for at in range(max(cluster.address, insn.address), min(cluster.end, insn.address + insn.size)):
            covered.add(at - insn.address)
            after = cluster.expected
            expected[at - insn.address] = after[at - cluster.address] if after is not None else None

    wrong = [at for at, (want, byte) in enumerate(zip(expected, insn.raw, strict=True)) if want not in (None, byte)]
    if wrong:
        return Account.MISMATCHED if covered.issuperset(wrong) else Account.UNEXPLAINED
    if None in expected:
        return Account.UNDECIDED
    return Account.AS_BUILT if insn.raw == built else Account.PATCHED


def _line(session: Session, insn: Decoded, overlay: OrcOverlay, is_what_ran: bool) -> ListedInstruction:
    location = session.names.at(insn.address)
    try:
        built: bytes | None = session.built.read(insn.address, insn.size)
    except MemoryFault:
        built = None
    site = _site_of(session, insn, built)
    changed = built is not None and built != insn.raw
    effective = overlay.at(insn.address, True)
    patch = effective.patch
    return ListedInstruction(
        address=insn.address,
        raw=insn.raw,
        mnemonic=insn.mnemonic,
        operands=_named_target(session, insn),
        location=session.names.describe(insn.address),
        symbol=location.symbol if location else None,
        offset=insn.address - location.start if location else None,
        image=built if changed else None,
        rule=str(effective.rule) if effective.rule else None,
        stated_rule=patch.stated_rule if patch else None,
        site=site,
        adjust=patch.adjust if patch else 0,
        site_image=_image_text(site) if site and site.address == insn.address and changed else None,
        account=_account(session, insn, built) if is_what_ran else None,
        named=_named(session, insn),
    )


def disassemble(session: Session, start: int, end: int, count: int | None) -> list[ListedInstruction]:
    """Instructions from `start` up to `end`, at most `count`.

    Bytes that no decoder knows come as `(bad)` lines of one byte, so that a listing never ends early in silence.
    """
    lines: list[ListedInstruction] = []
    at = start
    while at < min(end, start + MAX_LENGTH) and (count is None or len(lines) < count):
        lines.append(line_at(session, session.text, at, session.overlay))
        at += len(lines[-1].raw)
    return lines


def line_at(session: Session, text: AddressSpace, address: int, overlay: OrcOverlay) -> ListedInstruction:
    """The instruction at an address of `text`, with the rule that `overlay` has for it."""
    raw = _bytes_at(text, address)
    # Nobody expects another version of a site, which is emulated in place of what ran, to be what the patches left.
    is_what_ran = text is session.text or text is session.memory
    return _line(session, decode_one(raw, address) or _bad(raw, address), overlay, is_what_ran)


def _bytes_at(text: AddressSpace, address: int) -> bytes:
    """Up to fifteen bytes of text, fewer before a page that cannot be had."""
    try:
        return text.read(address, 15)
    except MemoryFault:
        return text.read(address, min(15, -address % PAGE or 1))


def _bad(raw: bytes, address: int) -> Decoded:
    return Decoded(address, 1, raw[:1], "(bad)", "", None, None, False, False, False)

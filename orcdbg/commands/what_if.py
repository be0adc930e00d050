"""What if a patch site held another text: what would it do to the stack, and to the registers?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulation import Emulation, with_version
from orcdbg.orc.site_versions import Version, alternatives, choose, version
from orcdbg.x86.instructions import decode

if TYPE_CHECKING:
    from orcdbg.patches.ledger import Cluster


MAX_INSTRUCTIONS = 10_000


@dataclass(frozen=True, slots=True)
class TextBoundary:
    """An instruction boundary in one text of a site: bytes pushed since its start (None if unknown), and the CFA rule."""

    address: int
    offset: int
    pushed: int | None
    rule: str | None


@dataclass(frozen=True, slots=True)
class VersionRun:
    """One text of a site, run from the state before it to its end, `why` it did not get there if it did not."""

    name: str
    text: bytes
    instructions: Sequence[str]
    boundaries: Sequence[TextBoundary]
    executed: int
    registers: Mapping[str, int] | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A site as it ran and as it was asked for; `differing` are the registers that are not the same at its end."""

    site: int
    size: int
    symbol: str | None
    mechanisms: Sequence[str]
    patched: VersionRun
    other: VersionRun
    differing: Sequence[str] | None


def _run_to_end(emulation: Emulation, one: Version, end: int) -> VersionRun:
    """Runs from the state before a site to its end; the emulation is of no use afterwards."""
    emulator = emulation.emulator
    rules = emulation.rules([at for at, _ in one.pushed])
    boundaries = [TextBoundary(at, at - one.address, pushed, rules[at]) for at, pushed in one.pushed]
    texts = [insn.text for insn in decode(one.text, one.address)]
    is_there = emulator.ip == one.address
    if not is_there:
        stop = emulator.run(MAX_INSTRUCTIONS, {one.address})
        is_there = emulator.ip == one.address
    first = emulator.executed
    if is_there:
        stop = emulator.run(MAX_INSTRUCTIONS, {end})
        is_there = emulator.ip == end
    registers, executed = emulator.registers() if is_there else None, emulator.executed - first
    why = None if is_there else stop.why or f"not reached in {emulator.executed} instructions"
    return VersionRun(one.name, one.text, texts, boundaries, executed, registers, why)


def _site(emulation: Emulation, debugger: Debugger, word: str | None) -> Cluster:
    """The site that is meant; the CPU must not stand inside it."""
    ip = emulation.emulator.ip
    found = emulation.site(debugger.address(word) if word else ip)
    if found.address < ip < found.end:
        raise OrcdbgError(f"the CPU stands inside the site at {found.address:#x}", "begin before it, or go back by rsi")
    return found


def compare(emulation: Emulation, debugger: Debugger, text: str, site: str | None) -> tuple[Emulation, Comparison]:
    """The emulation over the text that was asked for, and how that differs from what ran."""
    session, cluster = debugger.session, _site(emulation, debugger, site)
    size = cluster.end - cluster.address
    ran = session.text.read(cluster.address, size)
    known = alternatives(session.patches.passes, session.built, cluster.address, size)
    patched, other = version("patched", cluster.address, ran), choose(text, ran, cluster.address, known)
    runs = [_run_to_end(with_version(emulation, one), one, cluster.end) for one in (patched, other)]
    first, second = (run.registers for run in runs)
    differing = None
    if first is not None and second is not None:
        differing = [name for name in first if first[name] != second[name]]
    mechanisms = sorted({one.mechanism for one in cluster.sites})
    symbol = session.names.describe(cluster.address)
    result = Comparison(cluster.address, size, symbol, mechanisms, runs[0], runs[1], differing)
    return with_version(emulation, other), result

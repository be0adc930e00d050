"""Where did kprobes put a breakpoint, or the jump of an optimised probe?

Mirrors kernel/kprobes.c and arch/x86/kernel/kprobes/opt.c. `kprobe_table` names the probes; their flags, and the lists of
probes on the way to or from being optimised, decide.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import Corrupt, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.kernel.linux import Linux
from orcdbg.patches.site import Applied, PatchPass, Spans, Undecidable, WorkingText, make_spans

_BUCKETS = 64
MAX_PROBES = 1 << 20
_GONE, _DISABLED, _OPTIMISED, _FTRACE = 1, 2, 4, 8


class Probe(NamedTuple):
    """An armed probe: `slot` is where an optimised one jumps to, else 0; `original` the bytes that it overwrote."""

    probe: int
    address: int
    slot: int
    symbol: str
    original: bytes


class Probes:
    """The probes of one machine. Members raise Undecidable where the snapshot lacks them."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    @functools.cached_property
    def armed(self) -> list[Probe]:
        """The probes that changed text."""
        linux = self._linux
        table = linux.find_address("kprobe_table")
        if table is None or not linux.types.has("kprobe", "addr"):
            return []
        try:
            if linux.memory.read(linux.address("kprobes_all_disarmed"), 1) != b"\0":
                return []
            return [probe for head in range(_BUCKETS) for probe in self._bucket(table + 8 * head)]
        except OrcdbgError as error:
            raise Undecidable(f"kprobe_table: {error}") from error

    def _bucket(self, head: int) -> Iterator[Probe]:
        linux = self._linux
        node = read_u64(linux.memory, head)
        for _ in range(MAX_PROBES):
            if not node:
                return
            address = node - linux.types.offset("kprobe", "hlist")
            flags = linux.member("kprobe", "flags", address) & 0xFFFF_FFFF
            if not flags & (_GONE | _DISABLED | _FTRACE):
                at = linux.member("kprobe", "addr", address)
                found = linux.symbols.at(at - linux.slide)
                slot = self._slot(address) if flags & _OPTIMISED else 0
                yield Probe(address, at, slot, found.symbol.name if found else hex(at), self._original(address, slot))
            node = read_u64(linux.memory, node)
        raise Corrupt(f"the list of kprobes at {head:#x} runs in a circle")

    def _original(self, probe: int, slot: int) -> bytes:
        """What the probe keeps of the text it overwrote."""
        linux = self._linux
        first = linux.memory.read(probe + linux.types.offset("kprobe", "opcode"), 1)
        if not slot:
            return first
        return first + linux.memory.read(probe + linux.types.offset("optimized_kprobe", "optinsn.copied_insn"), 4)

    def _slot(self, probe: int) -> int:
        """Where an optimised probe jumps to; 0 while its jump is not written yet."""
        linux = self._linux
        node = probe + linux.types.offset("optimized_kprobe", "list")
        waiting = read_u64(linux.memory, node) != node
        if waiting and node not in self._unoptimising:
            return 0
        return linux.member("optimized_kprobe", "optinsn.insn", probe)

    @functools.cached_property
    def _unoptimising(self) -> set[int]:
        """List nodes of the probes whose jump is about to be taken away."""
        head = self._linux.find_address("unoptimizing_list")
        if head is None:
            return set()
        offset = self._linux.types.offset("optimized_kprobe", "list")
        return {probe + offset for probe in self._linux.walk_list(head, "optimized_kprobe", "list")}


class ProbePass:
    """Probes of one kind as a replay pass."""

    mechanism: str
    is_optimized: bool
    size: int  # of the instruction that is written over the probed ones

    def __init__(self, probes: Probes) -> None:
        self._source = probes

    @functools.cached_property
    def _probes(self) -> list[Probe]:
        return [probe for probe in self._source.armed if bool(probe.slot) == self.is_optimized]

    def originals(self) -> list[tuple[int, bytes]]:
        """Address and overwritten bytes of each probe."""
        return [(probe.address, probe.original) for probe in self._probes]

    def spans(self) -> Spans:
        """The probed addresses."""
        return make_spans([probe.address for probe in self._probes], [self.size] * len(self._probes))


class KprobesPass(ProbePass):
    """Breakpoints."""

    mechanism = "kprobe"
    is_optimized = False
    size = 1

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """An INT3 over the first byte."""
        probe = self._probes[index]
        text.write(probe.address, b"\xcc")
        return Applied(probe.symbol, f"kprobe {probe.probe:#x} is armed")


class OptprobesPass(ProbePass):
    """Jumps to the slots of optimised probes."""

    mechanism = "optprobe"
    is_optimized = True
    size = 5

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """A jump over the first five bytes."""
        probe = self._probes[index]
        distance = probe.slot - probe.address - 5 & 0xFFFF_FFFF
        text.write(probe.address, b"\xe9" + distance.to_bytes(4, "little"))
        return Applied(probe.symbol, f"kprobe {probe.probe:#x} is optimised, slot {probe.slot:#x}")


def probe_passes(linux: Linux) -> list[PatchPass]:
    """The passes for kprobes; an optimised probe overwrites what a plain one left."""
    probes = Probes(linux)
    return [KprobesPass(probes), OptprobesPass(probes)]

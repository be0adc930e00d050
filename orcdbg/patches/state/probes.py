"""Which kprobes are armed, and which of them are optimised?

Mirrors kernel/kprobes.c and arch/x86/kernel/kprobes/opt.c. `kprobe_table` names the probes; their flags, and the lists of
probes on the way to or from being optimised, decide.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import Corrupt, MemoryFault, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.base.walks import Budget
from orcdbg.kernel import generated_code
from orcdbg.kernel.linux import Linux
from orcdbg.patches.site import Undecidable

# All buckets together, and the list of those to be unoptimised. SystemTap and perf set up to some 10^4; a false probe costs
# 60 us in an audit.
MAX_PROBES = 1 << 16
_GONE, _DISABLED, _OPTIMISED, _FTRACE = 1, 2, 4, 8


class Probe(NamedTuple):
    """An armed probe: `slot` is where an optimised one jumps to, else 0; `original` the bytes that it overwrote."""

    probe: int
    address: int
    slot: int
    symbol: str
    original: bytes


class Detour(NamedTuple):
    """The jump that an optimised probe has or may get: `slot` is where it leads to; `original` the five bytes there before."""

    address: int
    slot: int
    original: bytes


class Probes:
    """The probes of one machine. Members raise Undecidable where the snapshot lacks them.

    `problems` are why those that were read may not be all.
    """

    def __init__(self, linux: Linux) -> None:
        self._linux = linux
        self._budget = Budget(MAX_PROBES)
        self._leaving = Budget(MAX_PROBES)

    @property
    def problems(self) -> list[str]:
        """Lines for what is known to be missing, once `armed` was asked for."""
        return [f"kprobe_table: {line}" for line in (*self._budget.lines(), *self._leaving.lines())]

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
            return list(self._armed(table))
        except OrcdbgError as error:
            raise Undecidable(f"kprobe_table: {error}") from error

    def _armed(self, table: int) -> Iterator[Probe]:
        for address in generated_code.probes(self._linux, table, self._budget):
            try:
                probe = self._probe(address)
            except (MemoryFault, Corrupt) as error:
                self._budget.note_error("a kprobe", address, error)
                continue
            if probe is not None:
                yield probe

    def _probe(self, address: int) -> Probe | None:
        """The probe at an address; None for one that changed no text."""
        linux = self._linux
        flags = linux.member("kprobe", "flags", address) & 0xFFFF_FFFF
        if flags & (_GONE | _FTRACE):
            return None
        # One that is switched off keeps its jump until the optimizer comes round (unoptimize_kprobe()).
        if flags & _DISABLED and not (flags & _OPTIMISED and self._node(address) in self._unoptimising):
            return None
        probed = linux.member("kprobe", "addr", address)
        function = linux.symbols.at(probed - linux.slide)
        name = function.symbol.name if function else hex(probed)
        slot = self._slot(address) if flags & _OPTIMISED else 0
        return Probe(address, probed, slot, name, self._original(address, slot))

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
        node = self._node(probe)
        waiting = read_u64(linux.memory, node) != node
        if waiting and node not in self._unoptimising:
            if not self._leaving.is_whole:
                raise Corrupt("whether its jump is written cannot be told, for unoptimizing_list breaks off")
            return 0
        return linux.member("optimized_kprobe", "optinsn.insn", probe)

    def _node(self, probe: int) -> int:
        """The node by which an optimised probe is on a list of the optimizer."""
        return probe + self._linux.types.offset("optimized_kprobe", "list")

    @functools.cached_property
    def detours(self) -> list[Detour]:
        """The probes for which a jump is prepared, whether or not it is written, and whether or not they are switched on."""
        linux = self._linux
        table = linux.find_address("kprobe_table")
        several = linux.find_address("aggr_pre_handler")
        if table is None or several is None or not linux.types.has("optimized_kprobe", "optinsn.insn"):
            return []
        found = []
        budget = Budget(MAX_PROBES)
        for probe in generated_code.probes(linux, table, budget):
            try:
                # Only what gathers several probes at one address is an optimized_kprobe (kprobe_aggrprobe()).
                if linux.member("kprobe", "pre_handler", probe) != several:
                    continue
                slot = linux.member("optimized_kprobe", "optinsn.insn", probe)
                if slot:
                    found.append(Detour(linux.member("kprobe", "addr", probe), slot, self._original(probe, slot)))
            except (MemoryFault, Corrupt):
                continue  # `armed` has this problem
        return found

    @functools.cached_property
    def _unoptimising(self) -> set[int]:
        """List nodes of the probes whose jump is about to be taken away."""
        head = self._linux.find_address("unoptimizing_list")
        if head is None:
            return set()
        offset = self._linux.types.offset("optimized_kprobe", "list")
        return {probe + offset for probe in self._linux.walk_list(head, "optimized_kprobe", "list", self._leaving)}

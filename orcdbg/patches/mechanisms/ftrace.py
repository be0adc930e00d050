"""What stands at each function's entry: a NOP, or a call of ftrace; and what do ftrace's own trampolines call?

Mirrors ftrace_get_addr_curr() in kernel/trace/ftrace.c and arch/x86/kernel/ftrace.c. The records in memory name the sites
and say how each is traced; the list of sites in the image belongs to freed init data.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, Spans, U64Array, Undecidable, WorkingText, make_spans, windows
from orcdbg.patches.state.ftrace_records import DIRECT_EN, ENABLED, REGS_EN, TRAMP_EN, FtraceState
from orcdbg.patches.state.mitigations import Mitigations
from orcdbg.patches.state.nops import NopTable
from orcdbg.patches.sweep import IntArray, Sweep, Written
from orcdbg.patches.tables import branch_targets, branches, built_bytes, repeated

_CALL, _JUMP = 0xE8, 0xE9
_SIZE = 5
MAX_TEXT = 256 << 20


class FtracePass(Sweep):
    """The call sites of ftrace as a replay pass.

    Args:
        image: text as built; asked for calls of `__fentry__` only where the records are not all there.
        linux: the kernel.
        state: ftrace's records and operations in memory.
        nops: the NOPs that this kernel writes; None where the snapshot does not tell.
    """

    mechanism = "ftrace"
    table = "ftrace_pages_start"

    def __init__(self, image: Image, linux: Linux, state: FtraceState, nops: NopTable | None) -> None:
        self._image = image
        self._linux = linux
        self._state = state
        self._nops = nops

    def spans(self) -> Spans:
        """The sites of all records."""
        return self._spans

    @functools.cached_property
    def _spans(self) -> Spans:
        """The records' addresses, and where their list breaks off every other place where the build called __fentry__."""
        try:
            ips, is_whole = self._state.records.ips, self._state.has_all_records
        except Undecidable:
            ips, is_whole = np.empty(0, np.uint64), False
        if not is_whole:
            built = calls_of(self._image, self._linux, "__fentry__")
            ips = np.concatenate([ips, np.setdiff1d(built, ips)])
        return make_spans(ips, np.full(len(ips), _SIZE))

    def unlisted(self) -> list[str]:
        """Why records, or what follows from them, may be missing."""
        return self._state.problems()

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """A NOP where nothing traces, else a call of what does."""
        if self._nops is None:
            raise Undecidable("ideal_nops is not in the snapshot")
        records = self._state.records
        if len(rows) and int(rows.max()) >= len(records.ips):
            raise Undecidable(f"a function's record is not known: {next(iter(self._state.problems()), '')}")
        flags = records.flags[rows]
        enabled = (flags & np.uint64(ENABLED)) != 0
        quiet = rows[~enabled]
        yield Written(quiet, repeated(self._nops.atomic, len(quiet)))
        traced = rows[enabled]
        if len(traced):
            yield from self._traced(traced)

    def _traced(self, rows: IntArray) -> Iterator[Written]:
        targets = self._targets(rows)
        # Since 6.19 a direct call may be a jump; the target's lowest bit says so.
        jumps = (targets & np.uint64(1)) != 0
        for opcode, mine in ((_CALL, ~jumps), (_JUMP, jumps)):
            chosen = rows[mine]
            yield Written(chosen, branches(opcode, self._spans.starts[chosen], targets[mine] & ~np.uint64(1)))

    def _targets(self, rows: IntArray) -> U64Array:
        """What each traced site calls."""
        ips, flags = self._spans.starts[rows], self._state.records.flags[rows]
        targets = np.full(len(rows), self._linux.address("ftrace_caller"), dtype=np.uint64)
        registers = (flags & np.uint64(REGS_EN)) != 0
        if registers.any():
            targets[registers] = self._linux.address("ftrace_regs_caller")
        own = (flags & np.uint64(TRAMP_EN)) != 0
        targets[own] = self._trampolines(ips[own])
        for index in np.flatnonzero(flags & np.uint64(DIRECT_EN)).tolist():
            direct = self._state.direct.get(int(ips[index]))
            if direct is None:
                raise Undecidable(f"direct_functions has no entry for {int(ips[index]):#x}")
            targets[index] = direct
        return targets

    def _trampolines(self, ips: U64Array) -> U64Array:
        """The trampoline of the first operation that traces each site."""
        known = self._state.trampolines if len(ips) else {}
        missing = next((ip for ip in ips.tolist() if ip not in known), None)
        if missing is not None:
            raise Undecidable(f"no operation traces {missing:#x}")
        return np.array([known[ip] for ip in ips.tolist()], dtype=np.uint64)

    def describe(self, row: int) -> Applied:
        """Whether the function is traced."""
        flags = int(self._state.records.flags[row])
        return Applied("on" if flags & ENABLED else "off", f"dyn_ftrace.flags = {flags:#x}")


def calls_of(image: Image, linux: Linux, name: str) -> U64Array:
    """Run-time addresses of all five-byte calls of a function in the kernel's text as built; none of a function it lacks.

    Raises:
        OrcdbgError: the symbols that bound the text are damaged.
    """
    target = linux.find_address(name)
    start, end = linux.address("_text"), linux.address("_etext")
    if target is None or not 0 < end - start <= MAX_TEXT:
        return np.empty(0, np.uint64)
    text = np.frombuffer(image.read(start - linux.slide, end - start), dtype=np.uint8)
    opcodes = np.flatnonzero(text[:-_SIZE] == _CALL)
    sites = opcodes.astype(np.uint64) + np.uint64(start)
    found: U64Array = sites[branch_targets(sites, windows(text, _SIZE)[opcodes]) == np.uint64(target)]
    return found


class FtraceTrampolineCalls(Sweep):
    """The calls inside ftrace's static trampolines, which follow the current tracer, as a replay pass.

    Mirrors ftrace_update_ftrace_func() and ftrace_mod_jmp() in arch/x86/kernel/ftrace.c.

    Args:
        image: text as built.
        linux: the kernel, whose symbols name the calls.
        mitigations: tells whether calls are counted, as these are while nothing traces.
        state: what ftrace keeps in memory.
    """

    mechanism = "ftrace"
    table = "ftrace_call, ftrace_regs_call, ftrace_graph_call"

    def __init__(self, image: Image, linux: Linux, mitigations: Mitigations, state: FtraceState) -> None:
        found = [(linux.find_address(name), name) for name in ("ftrace_call", "ftrace_regs_call", "ftrace_graph_call")]
        self._sites = [(address, name) for address, name in found if address is not None]
        self.places = make_spans([address for address, _ in self._sites], np.full(len(self._sites), _SIZE))
        built = built_bytes(image, self.places.starts - np.uint64(linux.slide), _SIZE)
        self._built = branch_targets(self.places.starts, built).tolist()
        self._linux = linux
        self._mitigations = mitigations
        self._state = state

    def _branch(self, row: int) -> tuple[int, int, str]:
        """Opcode and target at one label, and what decided."""
        if self._sites[row][1] == "ftrace_graph_call":
            active = self._state.graph_active
            target = self._linux.address("ftrace_graph_caller" if active else "ftrace_stub")
            return _JUMP, target, f"ftrace_graph_active = {int(active)}"
        target = self._state.pointer("ftrace_trace_function")
        found = self._linux.symbols.at(target - self._linux.slide)
        return _CALL, target, f"ftrace_trace_function = {found.symbol.name if found else hex(target)}"

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """A call of the current tracer."""
        for row in rows.tolist():
            opcode, target, _ = self._branch(row)
            if target == self._built[row] and self._mitigations.call_depth:
                continue  # nothing traced yet: the call is counted like any other, which a tracer's never is
            one = np.array([row])
            yield Written(one, branches(opcode, self.places.starts[one], target))

    def describe(self, row: int) -> Applied:
        """The label, and the tracer."""
        return Applied(self._sites[row][1], self._branch(row)[2])


def _site_passes(build: Build, earlier: Sequence[PatchPass]) -> list[FtracePass]:
    return [FtracePass(build.image, build.linux, build.tracing, build.nops)]


def _trampoline_passes(build: Build, earlier: Sequence[PatchPass]) -> list[FtraceTrampolineCalls]:
    return [FtraceTrampolineCalls(build.image, build.linux, build.mitigations, build.tracing)]


FTRACE_SITES = Mechanism(FtracePass.mechanism, _site_passes)
FTRACE_TRAMPOLINES = Mechanism(FtraceTrampolineCalls.mechanism, _trampoline_passes)

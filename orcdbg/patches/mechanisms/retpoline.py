"""What stands at each indirect branch: the call of a thunk that the compiler made, or the branch itself again?

Mirrors apply_retpolines(), patch_retpoline() and emit_indirect() in arch/x86/kernel/alternative.c. Sites are in
`.retpoline_sites`; the features RETPOLINE, RETPOLINE_LFENCE, CALL_DEPTH and INDIRECT_THUNK_ITS decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.moved_instructions import optimise_old_nops
from orcdbg.patches.site import Applied, PatchPass, U8Array, U64Array, Undecidable, WorkingText, make_spans
from orcdbg.patches.state.its_thunks import ItsThunks
from orcdbg.patches.state.mitigations import Mitigations
from orcdbg.patches.sweep import IntArray, Sweep, Written
from orcdbg.patches.tables import branch_targets, built_bytes, displacement, repeated, section_sites

_CALL, _JUMP, _CS, _TWO_BYTE = 0xE8, 0xE9, 0x2E, 0x0F
_LFENCE = b"\x0f\xae\xe8"
_THUNK = 32  # bytes of one thunk in an array of sixteen


class Branch(NamedTuple):
    """One kind of site: bytes it has, `condition` of a Jcc (else -1), a call or not, the register, in a lower half line."""

    size: int
    condition: int
    is_call: bool
    register: int
    in_lower_half: bool


Optimise = Callable[[bytes], bytes]


class RetpolineStyle(NamedTuple):
    """How this kernel fills a site that is longer than its branch.

    `optimise` turns single-byte NOPs into long ones. `stop_after_jump` puts an INT3 after a jump (since 5.17), and
    `prefixes` are used instead of NOPs before a call (since 6.18).
    """

    optimise: Optimise
    stop_after_jump: bool
    prefixes: bool


class RetpolinePass(Sweep):
    """`apply_retpolines()` as a replay pass.

    Args:
        sites: run-time addresses of the branches.
        image: text as built, whose first byte at a site tells its size: 5 bytes, or 6 with a prefix or a condition.
        linux: the kernel.
        mitigations: what this machine chose.
        style: how this kernel fills a site.
    """

    mechanism = "retpoline"
    table = ".retpoline_sites"

    def __init__(
        self, sites: U64Array, image: Image, linux: Linux, mitigations: Mitigations, style: RetpolineStyle
    ) -> None:
        first = built_bytes(image, sites - np.uint64(linux.slide), 1)[:, 0]
        sizes = np.where((first == _CS) | (first == _TWO_BYTE), 6, 5)
        self.places = make_spans(sites, sizes)
        self._linux = linux
        self._choices = mitigations
        self._its = ItsThunks(linux.memory)
        self._style = style

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """Thunk calls become what the machine wants."""
        choices = self._choices
        keeps = choices.retpolines and not choices.lfence
        if keeps and not choices.call_depth:
            return
        for size in (5, 6):
            chosen = rows[self.places.sizes[rows] == size]
            yield from self._retargeted(chosen, size, text) if keeps else self._replaced(chosen, size, text)

    def describe(self, row: int) -> Applied:
        """What became of a site."""
        if not self._choices.retpolines:
            return Applied("indirect branch", "X86_FEATURE_RETPOLINE clear")
        if self._choices.lfence:
            return Applied("lfence", "X86_FEATURE_RETPOLINE_LFENCE set")
        return Applied("counting thunk", "X86_FEATURE_RETPOLINE set, x86_return_thunk = call_depth_return_thunk")

    def _thunk_numbers(self, starts: U64Array, now: U8Array) -> npt.NDArray[np.int64]:
        """The register of each site's thunk, -1 where it calls none."""
        offsets = (branch_targets(starts, now) - np.uint64(self._linux.address("__x86_indirect_thunk_array"))).view(
            np.int64
        )
        good = (offsets >= 0) & (offsets < 16 * _THUNK) & (offsets % _THUNK == 0)
        return np.where(good, offsets // _THUNK, -1)

    def _retargeted(self, rows: IntArray, size: int, text: WorkingText) -> Iterator[Written]:
        """With call depth tracking, calls go to thunks that count, jumps to thunks that do not."""
        starts = self.places.starts[rows]
        now = text.gather(starts, size)
        registers = self._thunk_numbers(starts, now)
        is_call = now[:, size - 5] == _CALL
        for array, mine in (("call", is_call), ("jump", ~is_call)):
            mine = mine & (registers >= 0)
            base = np.uint64(self._linux.address(f"__x86_indirect_{array}_thunk_array"))
            targets = base + (registers[mine] * _THUNK).view(np.uint64)
            out = now[mine]
            out[:, -4:] = displacement(starts[mine], size, targets)
            yield Written(rows[mine], out)

    def _replaced(self, rows: IntArray, size: int, text: WorkingText) -> Iterator[Written]:
        """Without retpolines the branch itself comes back. Sites of one kind get equal bytes."""
        starts = self.places.starts[rows]
        now = text.gather(starts, size)
        kinds, which = self._kinds(starts, now)
        for number, kind in enumerate(kinds):
            mine = rows[which == number]
            if kind.in_lower_half and self._choices.its:
                yield from self._through_its(mine, kind)
                continue
            data = self._bytes(kind)
            if len(data) == size:
                yield Written(mine, repeated(data, len(mine)))

    def _kinds(self, starts: U64Array, now: U8Array) -> tuple[list[Branch], npt.NDArray[np.intp]]:
        """The kinds of sites there are, and the number of each site's own; -1 for a site that calls no thunk."""
        size = now.shape[1]
        registers = self._thunk_numbers(starts, now)
        is_call = now[:, size - 5] == _CALL
        conditional = (now[:, 0] == _TWO_BYTE) & (size == 6)
        conditions = np.where(conditional, now[:, 1] & 15, 16).astype(np.int64)
        extra = 2 * conditional + 3 * self._choices.lfence
        ends = starts + (extra + 1 + (registers >= 8)).astype(np.uint64)
        lower = ((ends & np.uint64(0x20)) == 0).astype(np.int64)
        codes = ((conditions * 2 + is_call) * 16 + np.maximum(registers, 0)) * 2 + lower
        unique, which = np.unique(codes, return_inverse=True)
        kinds = [_branch(int(code), size) for code in unique]
        return kinds, np.where(registers >= 0, which.ravel(), -1)

    def _head(self, kind: Branch) -> bytes:
        """What precedes the branch: a jump over it, the reverse of the condition it had, and the LFENCE."""
        over = bytes((0x70 + (kind.condition ^ 1), kind.size - 2)) if kind.condition >= 0 else b""
        return over + (_LFENCE if self._choices.lfence else b"")

    def _bytes(self, kind: Branch) -> bytes:
        """A site's bytes when the branch is inline; of another length than the site's where it does not fit."""
        code = (0xD0 if kind.is_call else 0xE0) + (kind.register & 7)
        branch = (b"\x41" if kind.register >= 8 else b"") + bytes((0xFF, code))
        return self._filled(self._head(kind), branch, kind)

    def _filled(self, head: bytes, branch: bytes, kind: Branch) -> bytes:
        """Pads to the site's size, the way this kernel does."""
        spare = kind.size - len(head) - len(branch)
        if self._style.prefixes:
            return head + (b"\x2e" * min(spare, 3) + branch if kind.is_call else branch + b"\xcc" * spare)
        out = head + branch
        if self._style.stop_after_jump and not kind.is_call and spare > 0:
            out += b"\xcc"
        return self._style.optimise(out.ljust(kind.size, b"\x90"))

    def _through_its(self, rows: IntArray, kind: Branch) -> Iterator[Written]:
        """Sites whose branch would end in a lower half line call or jump to a thunk that lies in an upper one."""
        head = self._head(kind)
        for row in rows.tolist():
            at = int(self.places.starts[row]) + len(head)
            distance = self._its.find(at, kind.register) - at - 5
            branch = bytes((_CALL if kind.is_call else _JUMP,)) + (distance & 0xFFFF_FFFF).to_bytes(4, "little")
            data = self._filled(head, branch, kind)
            if len(data) == kind.size:
                yield Written(np.array([row]), repeated(data, 1))


def _branch(code: int, size: int) -> Branch:
    condition = code // 64
    return Branch(size, condition if condition < 16 else -1, bool(code // 32 & 1), code // 2 & 15, bool(code & 1))


def _style_of(build: Build) -> RetpolineStyle:
    """How retpoline sites are filled up.

    INT3 after a jump came with straight-line-speculation mitigation in 5.17 (together with two-byte jump labels, static
    calls that return 0 and PREEMPT_DYNAMIC's `__SCT__cond_resched`); prefixes in 6.18, where insn_is_nop() became global.
    """
    nops = build.nops
    prefixes = build.linux.symbols.find("insn_is_nop") is not None
    stops = build.linux.symbols.find("ideal_nops") is None

    def optimise(data: bytes) -> bytes:
        if nops is None:
            raise Undecidable("ideal_nops is not in the snapshot")
        return optimise_old_nops(data, nops)

    return RetpolineStyle(optimise, stops, prefixes)


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[RetpolinePass]:
    sites = section_sites(build.image, RetpolinePass.table, build.linux.slide)
    if not len(sites):
        return []
    return [RetpolinePass(sites, build.image, build.linux, build.mitigations, _style_of(build))]


RETPOLINE = Mechanism(RetpolinePass.mechanism, _passes, (RetpolinePass.table,))

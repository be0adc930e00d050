"""Which instructions is the kernel changing at this very moment, and what may stand there meanwhile?

Mirrors text_poke_bp_batch() in arch/x86/kernel/alternative.c. Until a change is over an instruction is the old one, the new
one, or a breakpoint with the rest of either. Nothing but the text itself tells which: this is one of the few passes that
look at it, and they believe it only where it is one of these. `state/text_changes.py` has the list of what is being changed.

Some changes are in no list. A static key or a static call is set before the first of its sites is changed: where one site
is in the list, the others of its key may still be as they were. A probe's breakpoint is written and taken away alone, and a
jump that is no longer wanted piece by piece; while ftrace changes functions, its trampolines call them all through one. These
are looked for only while somebody holds text_mutex.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import U64
from orcdbg.kernel.generated_code import GeneratedCodes
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.modules import list_modules
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.mechanisms import jump_label, static_call
from orcdbg.patches.mechanisms.ftrace import FtraceTrampolineCalls
from orcdbg.patches.mechanisms.jump_label import JumpLabelsPass
from orcdbg.patches.mechanisms.kprobe import ProbePass
from orcdbg.patches.mechanisms.optprobe import detour
from orcdbg.patches.mechanisms.static_call import STANDING_FOR_CALLS
from orcdbg.patches.site import (
    Applied,
    PatchPass,
    Spans,
    Undecidable,
    WorkingText,
    known_spans,
    make_spans,
)
from orcdbg.patches.state.mitigations import PLAIN_RETURN
from orcdbg.patches.state.probes import Detour
from orcdbg.patches.state.text_changes import Change, TextChanges
from orcdbg.patches.sweep import KeyedSweep

_BREAKPOINT = 0xCC
_CALL, _JUMP, _TWO_BYTE = 0xE8, 0xE9, 0x0F
_CONDITIONS = range(0x80, 0x90)

IsTarget = Callable[[int], bool]


class _Probed(NamedTuple):
    """What stood at a probe before, and the jump that it may become, where one is prepared for it."""

    original: bytes
    jump: bytes

    def may_be(self, code: bytes, left: bytes) -> bool:
        """Whether an instruction is on the way to or from a breakpoint or jump.

        Mirrors arch_unoptimize_kprobe(): the breakpoint first, then what the jump had overwritten.
        """
        # The rest of `original` is kept when the jump is about to be written, and is no use before.
        tails = (self.original[1:], self.jump[1:], left[1:])
        return code == self.jump or (code[0] in (_BREAKPOINT, self.original[0]) and code[1:] in tails)


class TextChangePass:
    """What is being changed in one text, as a replay pass.

    Args:
        linux: the kernel.
        changes: what is being changed anywhere.
        area: [start, end) of the text.
        earlier: the passes over this text so far.
        others: passes over the kernel's own text, whose sites may share a key with sites of this one.
        detours: the probes whose breakpoint may become a jump.
        nops: what the kernel writes where it wants nothing to happen.
        is_target: whether a call or jump may lead to an address.
    """

    mechanism = "text-change"

    def __init__(
        self,
        linux: Linux,
        changes: TextChanges,
        area: tuple[int, int],
        earlier: Sequence[PatchPass],
        others: Sequence[PatchPass],
        detours: Sequence[Detour],
        nops: Sequence[bytes],
        is_target: IsTarget,
    ) -> None:
        self._linux = linux
        self._changes = changes
        self._nops = frozenset(nops)
        self._is_target = is_target
        self._jumps = [one for one in earlier if isinstance(one, JumpLabelsPass)]

        sizes = {change.address: len(change.new) for change in changes.under_way.values()}
        keyed = [one for one in earlier if isinstance(one, KeyedSweep)]
        keys = {key for one in (*keyed, *others) if isinstance(one, KeyedSweep) for key in one.keys_at(list(sizes))}
        for one in keyed:
            sizes |= {address: sizes.get(address, size) for address, size in one.places_of(keys)}

        self._probed: dict[int, _Probed] = {}
        if changes.is_locked:
            for each in earlier:
                if isinstance(each, ProbePass):
                    self._probed |= {address: _Probed(code, code) for address, code in each.originals()}
                elif isinstance(each, FtraceTrampolineCalls):
                    starts, lengths = known_spans(each)
                    sizes |= dict(zip(starts.tolist(), lengths.tolist(), strict=True))
            for found in detours:
                self._probed[found.address] = _Probed(found.original, detour(found.address, found.slot))
        sizes |= {address: max(sizes.get(address, 0), len(probed.original)) for address, probed in self._probed.items()}
        self._places = sorted((address, size) for address, size in sizes.items() if area[0] <= address < area[1])

    def unlisted(self) -> list[str]:
        """Why places may be missing."""
        return self._changes.problems

    def originals(self) -> list[tuple[int, bytes]]:
        """Address and overwritten bytes of each jump of a probe that is being written or taken away."""
        found = []
        for address, probed in self._probed.items():
            size = len(probed.jump)
            try:
                now = self._linux.memory.read(address, size)
            except MemoryFault:
                continue
            if size > 1 and now[1:] == probed.jump[1:]:
                found.append((address, probed.original))
        return found

    def spans(self) -> Spans:
        """What is in the list, and the other sites of the same keys."""
        return make_spans([address for address, _ in self._places], [size for _, size in self._places])

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """The instruction as it is, if it may be so; else what the passes before left."""
        address, size = self._places[index]
        try:
            now = self._linux.memory.read(address, size)
        except MemoryFault as error:
            raise Undecidable(f"this instruction is being changed: {error}") from error

        left = text.read(address, size)
        change = self._changes.under_way.get(address)
        if change is None:
            stage = "is as it was" if now != left and self._may_have_been(now, address, left) else None
        else:
            stage = self._stage(now, change, left)
        if stage is None:
            return None
        text.write(address, now)
        listed = "in the list of changes under way" if change else "changed with others, or by itself, under text_mutex"
        return Applied("being changed", f"{listed}: it {stage}")

    def _stage(self, now: bytes, change: Change, left: bytes) -> str | None:
        """How far a change has come, in words; None where its instruction is none of what it may be."""
        if now == change.new:
            return "is changed"
        if now[0] == _BREAKPOINT and now[1:] == change.new[1:]:
            return "is a breakpoint, with the new bytes behind it"
        if self._may_have_been(now, change.address, left):
            return "is as it was"
        before = bytes((change.first,)) + now[1:]
        if now[0] == _BREAKPOINT and self._may_have_been(before, change.address, left):
            return "is a breakpoint, with the old bytes behind it"
        return None

    def _may_have_been(self, code: bytes, address: int, left: bytes) -> bool:
        """Whether an instruction may have stood at a site before it was changed."""
        if code == left or code in self._nops:
            return True
        if address in self._probed:
            return self._probed[address].may_be(code, left)
        versions = [found for one in self._jumps for found in one.versions(address)]
        if versions:
            return code in versions
        is_branch = code[0] in (_CALL, _JUMP) and len(code) == 5
        is_condition = code[0] == _TWO_BYTE and code[1] in _CONDITIONS and len(code) == 6
        if not is_branch and not is_condition:
            return False
        distance = int.from_bytes(code[-4:], "little", signed=True)
        return self._is_target(address + len(code) + distance & U64)


def _targets(build: Build) -> IsTarget:
    """Whether a function, code that the kernel made, or a module's text is at an address."""
    linux = build.linux
    made = GeneratedCodes(linux)
    modules, _ = list_modules(linux)
    end = linux.address("_end")

    def is_target(address: int) -> bool:
        found = linux.symbols.at(address - linux.slide & U64)
        if found is not None and found.symbol.address + linux.slide == address:
            return True
        code = made.at(address)
        if code is not None:
            return code.start == address
        if any(start <= address < start + size for start, size in (module.text for module in modules)):
            return True
        # The trampoline of a tracer that is being taken off is on no list any more while calls of it are taken away.
        return address >= end and _is_readable(linux.memory, address)

    return is_target


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[TextChangePass]:
    changes = build.text_changes
    if not changes.under_way and not changes.problems and not changes.is_locked:
        return []
    kernel = build.kernel_build
    shared: tuple[Mechanism, ...] = ()
    if kernel is not build:
        shared = (jump_label.JUMP_LABEL, static_call.STATIC_CALL_SITES, static_call.STATIC_CALL_TRAMPOLINES)
    others = [one for mechanism in shared for one in mechanism.make(kernel, ())]
    nops = [PLAIN_RETURN, *STANDING_FOR_CALLS.values()]
    if build.nops is not None:
        nops += [build.nops.atomic, *build.nops.by_length]
    detours = build.probes.detours if changes.is_locked else ()
    return [TextChangePass(build.linux, changes, build.text, earlier, others, detours, nops, _targets(build))]


def _is_readable(memory: AddressSpace, address: int) -> bool:
    """Whether memory has a byte there."""
    try:
        memory.read(address, 1)
    except MemoryFault:
        return False
    return True


TEXT_CHANGE = Mechanism(TextChangePass.mechanism, _passes)

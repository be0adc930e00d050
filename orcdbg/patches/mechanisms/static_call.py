"""Where do the static calls go: the sites that were patched to call a function directly, and the trampolines?

Mirrors kernel/static_call_inline.c and arch/x86/kernel/static_call.c. Sites are in `.static_call_sites` inside `.rodata`;
the function pointer in each `struct static_call_key` decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from orcdbg.base.reading import self_relative
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, U64Array, Undecidable, WorkingText, make_spans
from orcdbg.patches.state.mitigations import PLAIN_RETURN, Mitigations
from orcdbg.patches.state.nops import NopTable
from orcdbg.patches.state.padding import Pads
from orcdbg.patches.state.static_call_keys import KEY_PREFIX
from orcdbg.patches.sweep import IntArray, KeyedSweep, Written
from orcdbg.patches.tables import (
    BoundedTable,
    branch_targets,
    branches,
    built_bytes,
    displacement,
    repeated,
)
from orcdbg.patches.variables import read_words

TABLE = BoundedTable(".static_call_sites", "__start_static_call_sites", "__stop_static_call_sites")
_ENTRY = 8
_TAIL = 1  # flags in the key's address: a jump, a site in init text
_CALL, _JUMP, _TWO_BYTE = 0xE8, 0xE9, 0x0F
# Instructions written in place of a call of these two functions (since 5.12 and 6.19).
STANDING_FOR_CALLS = {"__static_call_return0": b"\x2e\x2e\x2e\x31\xc0", "__WARN_trap": b"\x67\x48\x0f\xb9\x3a"}


class StaticCalls:
    """What both kinds of static-call sites share: the keys' functions, and the bytes they lead to.

    Args:
        linux: the kernel.
        mitigations: the machine's defences.
        pads: the padding in front of functions.
        nops: the NOPs that this kernel writes.
        are_late: whether the sites are a module's, which are first written when the machine has chosen its return thunk.
    """

    def __init__(
        self, linux: Linux, mitigations: Mitigations, pads: Pads, nops: NopTable | None, are_late: bool = False
    ) -> None:
        self._are_late = are_late
        self.linux = linux
        self.mitigations = mitigations
        self.nops = nops
        self._pads = pads
        self._special = [(linux.find_address(name), code) for name, code in STANDING_FOR_CALLS.items()]

    def functions(self, keys: U64Array) -> U64Array:
        """The function that each key names; 0 for none."""
        found: U64Array = read_words(self.linux.memory, keys, 8).view("<u8").ravel()
        return found

    def counted(self, functions: U64Array) -> U64Array:
        """Where calls of those functions go: into the padding, where this machine counts calls. Jumps are not counted."""
        return self._pads.translated(functions)

    def special(self, function: int) -> bytes | None:
        """What stands for a call of `function`, where that is not a call."""
        if function == 0:
            if self.nops is None:
                raise Undecidable("ideal_nops is not in the snapshot")
            return self.nops.atomic
        return next((code for address, code in self._special if address == function), None)

    def returns(self, sites: U64Array) -> Iterator[Written]:
        """What stands at tail calls whose key names no function.

        The kernel's own were written before the machine chose its return thunk. Later kernels write all of them again once it
        has (static_call_force_reinit(), 6.2), earlier ones leave the plain return.
        """
        if self._are_late or self.linux.symbols.find("static_call_force_reinit") is not None:
            return self.mitigations.returns(sites)
        return _plain_returns(sites)

    def emptied(self, trampolines: U64Array) -> Iterator[Written]:
        """What stands in trampolines whose keys name no function any more.

        In the kernel's own that is the work of the boot option `preempt=`, which is read before return thunks are chosen.
        """
        return self.mitigations.returns(trampolines) if self._are_late else _plain_returns(trampolines)

    def empty_condition(self) -> int:
        """Where a conditional tail call goes whose key names no function."""
        if self.mitigations.return_thunks:
            return self.mitigations.return_thunk
        return self.linux.find_address("__static_call_return") or self.linux.address("__x86_return_thunk")

    def name(self, key: int) -> str:
        """The static call's name, by its key's symbol."""
        found = self.linux.symbols.at(key - self.linux.slide)
        return found.symbol.name.removeprefix(KEY_PREFIX) if found else hex(key)

    def describe(self, key: int) -> Applied:
        """The name, and the function it leads to."""
        function = int(self.functions(np.array([key], dtype=np.uint64))[0])
        found = self.linux.symbols.at(function - self.linux.slide) if function else None
        target = found.symbol.name if found else hex(function)
        return Applied(self.name(key), f"{self.name(key)}.func = {target if function else 'NULL'}")


def _plain_returns(sites: U64Array) -> Iterator[Written]:
    yield Written(np.arange(len(sites)), repeated(PLAIN_RETURN, len(sites)))


class StaticCallSites(KeyedSweep):
    """`__static_call_update()` over the inline sites, as a replay pass.

    Args:
        table: `.static_call_sites` as built.
        address: its run-time address.
        image: text as built, which tells a conditional jump of six bytes from calls and jumps of five.
        calls: the keys' functions.
    """

    mechanism = "static-call"
    table = TABLE.section

    def __init__(self, table: bytes, address: int, image: Image, calls: StaticCalls) -> None:
        sites = self_relative(table, address, _ENTRY)
        keys = self_relative(table, address, _ENTRY, 4)
        self._is_tail = (keys & np.uint64(_TAIL)).astype(np.bool_)
        self.keys = keys & ~np.uint64(3)
        self._first = built_bytes(image, sites - np.uint64(calls.linux.slide), 2)
        self._is_conditional = self._first[:, 0] == _TWO_BYTE
        self.places = make_spans(sites, np.where(self._is_conditional, 6, 5))
        self._calls = calls
        self._image = image

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """Calls, jumps and conditional jumps to the keys' functions, or what stands for them."""
        functions = self._calls.functions(self.keys[rows])
        conditional, tail = self._is_conditional[rows], self._is_tail[rows]
        yield from self._conditions(rows[conditional], functions[conditional])
        tails = tail & ~conditional
        yield from self._tails(rows[tails], functions[tails])
        calls = ~tail & ~conditional
        yield from self._direct(rows[calls], functions[calls])

    def _direct(self, rows: IntArray, functions: U64Array) -> Iterator[Written]:
        functions = self._calls.counted(functions)
        plain = np.ones(len(rows), dtype=np.bool_)
        for function in np.unique(functions).tolist():
            code = self._calls.special(function)
            if code is not None:
                same = functions == function
                plain &= ~same
                yield Written(rows[same], repeated(code, int(same.sum())))
        yield Written(rows[plain], branches(_CALL, self.places.starts[rows[plain]], functions[plain]))

    def _tails(self, rows: IntArray, functions: U64Array) -> Iterator[Written]:
        live = functions != 0
        yield Written(rows[live], branches(_JUMP, self.places.starts[rows[live]], functions[live]))
        empty = rows[~live]
        for written in self._calls.returns(self.places.starts[empty]) if len(empty) else ():
            yield Written(empty[written.rows], written.data)

    def _conditions(self, rows: IntArray, functions: U64Array) -> Iterator[Written]:
        if not len(rows):
            return
        targets = np.where(functions == 0, np.uint64(self._calls.empty_condition()), functions)
        out = np.empty((len(rows), 6), dtype=np.uint8)
        out[:, :2] = self._first[rows]
        out[:, 2:] = displacement(self.places.starts[rows], 6, targets)
        yield Written(rows, out)

    def called(self) -> U64Array:
        """The functions that sites call, rather than jump to: padding in front of them gets its counting instruction too.

        Both those that the keys name now and those that they were built with, which the boot saw first; but a key that names
        none was emptied before calls were counted.
        """
        keys = np.unique(self.keys[~self._is_tail & ~self._is_conditional])
        first, now = self._built_functions(keys), self._calls.functions(keys)
        return np.unique(np.concatenate([now, first[(first != 0) & (now != 0)]]))

    def _built_functions(self, keys: U64Array) -> U64Array:
        slide = np.uint64(self._calls.linux.slide)
        found: U64Array = built_bytes(self._image, keys - slide, 8).view("<u8").ravel()
        return np.where(found == 0, found, found + slide)

    def describe(self, row: int) -> Applied:
        """The static call and its function."""
        return self._calls.describe(int(self.keys[row]))


class StaticCallTrampolines(KeyedSweep):
    """The trampolines that calls go through which were not patched, as a replay pass.

    Args:
        image: text as built.
        calls: the keys' functions.
        pairs: run-time addresses of trampoline and key of each static call.
    """

    mechanism = "static-call"
    table = "__SCT__ symbols"

    def __init__(self, image: Image, calls: StaticCalls, pairs: Sequence[tuple[int, int]]) -> None:
        slide = calls.linux.slide
        self.keys = np.array([key for _, key in pairs], dtype=np.uint64)
        self.places = make_spans([address for address, _ in pairs], np.full(len(pairs), 5))
        first = built_bytes(image, self.places.starts - np.uint64(slide), 5)
        default = np.uint64(calls.linux.find_address("__x86_return_thunk") or 0)  # a kernel need not have any
        self._built_empty = (first[:, 0] == PLAIN_RETURN[0]) | (branch_targets(self.places.starts, first) == default)
        self._calls = calls

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """A jump to the key's function, or a return; one that was built empty is a return site and was dealt with there."""
        functions = self._calls.functions(self.keys[rows])
        live = functions != 0
        yield Written(rows[live], branches(_JUMP, self.places.starts[rows[live]], functions[live]))
        emptied = rows[~live & ~self._built_empty[rows]]
        for written in self._calls.emptied(self.places.starts[emptied]) if len(emptied) else ():
            yield Written(emptied[written.rows], written.data)

    def describe(self, row: int) -> Applied:
        """The static call and its function."""
        return self._calls.describe(int(self.keys[row]))


def _calls_of(build: Build) -> StaticCalls:
    return StaticCalls(build.linux, build.mitigations, build.pads, build.nops, build.is_module)


def _site_passes(build: Build, earlier: Sequence[PatchPass] = ()) -> list[StaticCallSites]:
    table, address = build.table(TABLE)
    return [StaticCallSites(table, address, build.image, _calls_of(build))] if table else []


def _trampoline_passes(build: Build, earlier: Sequence[PatchPass]) -> list[StaticCallTrampolines]:
    if build.linux.symbols.find(TABLE.start) is None:
        return []  # a kernel without static calls in line (HAVE_STATIC_CALL_INLINE)
    return [StaticCallTrampolines(build.image, _calls_of(build), build.static_calls)]


def static_called(build: Build) -> U64Array:
    """The functions that static call sites call."""
    passes = _site_passes(build)
    return passes[0].called() if passes else np.empty(0, dtype=np.uint64)


STATIC_CALL_SITES = Mechanism(StaticCallSites.mechanism, _site_passes, (TABLE.section,))
STATIC_CALL_TRAMPOLINES = Mechanism(StaticCallTrampolines.mechanism, _trampoline_passes)

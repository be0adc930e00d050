"""Which defences against speculation did this machine choose, as far as they decide what text looks like?

Two of them, CALL_DEPTH and INDIRECT_THUNK_ITS, have feature numbers that moved between stable releases. Both are switched
on together with a return thunk of their own (bugs.c), and a thunk has a name.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import read_u64
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.patches.site import Applied, U64Array, Undecidable
from orcdbg.patches.sweep import Written
from orcdbg.patches.tables import branches, repeated

RETPOLINE, RETPOLINE_LFENCE, RETHUNK = 364, 365, 366
JUMP = 0xE9
PLAIN_RETURN = b"\xc3\xcc\xcc\xcc\xcc"


class Mitigations:
    """The choices of one machine. Its members raise Undecidable where the state that decides is not in the snapshot.

    Args:
        linux: the kernel.
        features: its feature bits.
    """

    def __init__(self, linux: Linux, features: Features) -> None:
        self._linux = linux
        self._features = features

    def _need(self, number: int) -> bool:
        has = self._features.has(number)
        if has is None:
            raise Undecidable(f"{self._features.name(number)}: the feature bits are not in the snapshot")
        return has

    @functools.cached_property
    def retpolines(self) -> bool:
        """Indirect branches go through retpolines, or through an LFENCE."""
        return self._need(self._features.retpoline(RETPOLINE))

    @functools.cached_property
    def lfence(self) -> bool:
        """Indirect branches stand behind an LFENCE."""
        return self._need(self._features.retpoline(RETPOLINE_LFENCE))

    @functools.cached_property
    def return_thunks(self) -> bool:
        """Returns go through a thunk."""
        return self._need(RETHUNK)

    @functools.cached_property
    def return_thunk(self) -> int:
        """The return thunk in use."""
        pointer = self._linux.find_address("x86_return_thunk")
        if pointer is None:  # a kernel that has only one
            return self._linux.address("__x86_return_thunk")
        try:
            return read_u64(self._linux.memory, pointer)
        except MemoryFault as error:
            raise Undecidable(f"x86_return_thunk: {error}") from error

    def _is_thunk(self, name: str) -> bool:
        return self.return_thunks and self.return_thunk == self._linux.find_address(name)

    @functools.cached_property
    def call_depth(self) -> bool:
        """Calls are counted, to fill the return stack buffer in time."""
        return self._is_thunk("call_depth_return_thunk")

    @functools.cached_property
    def its(self) -> bool:
        """Indirect branches and returns must not end in the lower half of a cache line."""
        return self._is_thunk("its_return_thunk")

    def wants_thunk(self, sites: U64Array) -> npt.NDArray[np.bool_]:
        """For each return site, whether it goes through the thunk (cpu_wants_rethunk_at)."""
        if not self.return_thunks:
            return np.zeros(len(sites), dtype=np.bool_)
        if not self.its:
            return np.ones(len(sites), dtype=np.bool_)
        lower: npt.NDArray[np.bool_] = (sites & np.uint64(0x20)) == 0
        return lower

    def returns(self, sites: U64Array) -> Iterator[Written]:
        """The five bytes of a return at each site."""
        wanted = self.wants_thunk(sites)
        through, plain = np.flatnonzero(wanted), np.flatnonzero(~wanted)
        if len(through):
            yield Written(through, branches(JUMP, sites[through], self.return_thunk))
        yield Written(plain, repeated(PLAIN_RETURN, len(plain)))

    def describe_return(self) -> Applied:
        """Which return is in use, and why."""
        if not self.return_thunks:
            return Applied("ret", "X86_FEATURE_RETHUNK clear")
        found = self._linux.symbols.at(self.return_thunk - self._linux.slide)
        name = found.symbol.name if found else hex(self.return_thunk)
        return Applied(name, f"X86_FEATURE_RETHUNK set, x86_return_thunk = {name}")

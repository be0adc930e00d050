"""Static calls: trampolines and sites that go where the key's function is, or return."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from orcdbg.patches.mechanisms.static_call import StaticCalls, StaticCallTrampolines
from orcdbg.patches.state import nops
from orcdbg.patches.state.mitigations import PLAIN_RETURN, RETHUNK
from orcdbg.patches.state.static_call_keys import trampolines_and_keys
from tests.patches.world import DATA, RETURN_THUNK, TEXT, branch, image_of, machine, rows, text_of


class Defined:
    """What a symbol table says of names with a beginning."""

    def __init__(self, names: dict[str, int]) -> None:
        self._names = names

    def starting(self, prefix: str) -> dict[str, int]:
        """Addresses by the rest of the name."""
        return {name.removeprefix(prefix): at for name, at in self._names.items() if name.startswith(prefix)}


def test_a_trampoline_jumps_to_the_function_of_its_key() -> None:
    """Whoever defines it, kernel or module: a jump where the key names a function, else a return."""
    names = {"__SCT__set": TEXT, "__SCT__empty": TEXT + 8, "__SCT__emptied": TEXT + 16, "__SCT__keyless": TEXT + 24}
    keys = {"__SCK__set": DATA + 16, "__SCK__empty": DATA + 24, "__SCK__emptied": DATA + 32, "__SCK__other": DATA}
    pairs = trampolines_and_keys(cast("Any", Defined(names | keys)), 0x10)
    assert pairs == [(TEXT + 8 * n + 0x10, DATA + 16 + 8 * n + 0x10) for n in range(3)]
    linux, mitigations = machine(set())
    linux.memory.words |= {DATA + 16: TEXT + 0x100, DATA + 24: 0, DATA + 32: 0}
    calls = StaticCalls(linux, mitigations, cast("Any", None), nops.P6)
    built = branch(b"\xe9", TEXT, RETURN_THUNK)
    text = text_of({0: built, 8: b"\xc3" + built[1:], 16: branch(b"\xe9", TEXT + 16, TEXT + 0x80)})
    pairs = trampolines_and_keys(cast("Any", Defined(names | keys)), 0)
    StaticCallTrampolines(image_of(text), calls, pairs).sweep(text, rows(3))
    assert text.read(TEXT, 5) == branch(b"\xe9", TEXT, TEXT + 0x100)
    assert text.read(TEXT + 8, 5) == b"\xc3" + built[1:]
    assert text.read(TEXT + 16, 5) == b"\xc3\xcc\xcc\xcc\xcc"


@pytest.mark.parametrize("are_late", [False, True])
def test_an_empty_tail_call_of_a_module_goes_through_the_return_thunk(are_late: bool) -> None:
    """A module's sites are written when the thunk is chosen; the kernel's own were before that, up to 6.1."""
    linux, mitigations = machine({RETHUNK}, RETURN_THUNK + 0x100)  # for the lower half of a cache line only
    linux.memory.words |= {DATA + 16: 0, DATA + 24: 0}
    calls = StaticCalls(linux, mitigations, cast("Any", None), nops.P6, are_late)
    places = np.array([TEXT, TEXT + 0x20], dtype=np.uint64)
    expected = [branch(b"\xe9", TEXT, RETURN_THUNK + 0x100) if are_late else PLAIN_RETURN, PLAIN_RETURN]
    found = {
        int(row): bytes(data) for one in calls.returns(places) for row, data in zip(one.rows, one.data, strict=True)
    }
    assert [found[0], found[1]] == expected
    text = text_of({0: branch(b"\xe9", TEXT, TEXT + 0x80), 0x20: branch(b"\xe9", TEXT + 0x20, TEXT + 0x80)})
    pairs = [(TEXT, DATA + 16), (TEXT + 0x20, DATA + 24)]
    StaticCallTrampolines(image_of(text), calls, pairs).sweep(text, rows(2))
    assert [text.read(int(place), 5) for place in places] == expected

"""Padding in front of functions: whose calls are counted, in the kernel's text and in a module's."""

from __future__ import annotations

import functools
import struct
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.reading import BytesSpace
from orcdbg.patches.alternative_replacements import PatchedReplacements
from orcdbg.patches.alternative_table import AlternativeTable
from orcdbg.patches.mechanisms.alternative import AlternativesPass
from orcdbg.patches.mechanisms.call_thunk import CountedCalls, PadsPass
from orcdbg.patches.site import U64Array, WorkingText
from orcdbg.patches.state import nops
from orcdbg.patches.state.module_calls import ModuleCalls, called
from orcdbg.patches.state.padding import PAD_SIZE, Pads
from tests.patches.world import DATA, TEXT, MiniFeatures, MiniLinux, branch

MODULE = TEXT + 0x4000_0000
PADDING = b"\x90" * 16
SIZE = 0x200


class Counting:
    """A kernel with a counter and memory that is a piece of module text."""

    def __init__(self, memory: WorkingText) -> None:
        self.memory = space_of(memory)
        self.slide = 0
        self.types = self

    def has(self, _struct: str, _member: str) -> bool:
        """No `pcpu_hot`."""
        return False

    def find_address(self, name: str) -> int | None:
        """The counter, and one function that is never counted."""
        return {"__x86_call_depth": DATA, "__fentry__": TEXT + 0x80}.get(name)


def space_of(text: WorkingText) -> Any:
    """A text as memory, or as an image whose link addresses are run-time addresses."""
    return BytesSpace(text.address, bytes(text.data), lambda at, size: NotInSnapshot("image", at, size))


def padded(address: int, offsets: list[int]) -> WorkingText:
    """Text with padding in front of the functions at `offsets`."""
    text = WorkingText(address, bytearray(SIZE))
    for offset in offsets:
        text.write(address + offset - len(PADDING), PADDING)
    return text


def addresses(*values: int) -> U64Array:
    """An array of addresses."""
    return np.array(values, dtype=np.uint64)


class PadsBesideAModule(Pads):
    """The padding of a kernel whose list of modules has one."""

    @functools.cached_property
    def _module_texts(self) -> list[tuple[int, int]]:
        return [(MODULE, MODULE + SIZE)]


@pytest.fixture
def pads() -> tuple[Pads, Pads]:
    """The padding of a kernel and of a module that was loaded: two functions each, one of the kernel's never counted."""
    module = padded(MODULE, [0x40, 0x80])
    linux = cast("Any", Counting(module))
    kernel = PadsBesideAModule(space_of(padded(TEXT, [0x40, 0x80])), linux, cast("Any", None), (TEXT, TEXT + SIZE))
    return kernel, Pads(space_of(module), linux, cast("Any", None), (MODULE, MODULE + SIZE), kernel)


def test_kernel_and_module_agree_on_whose_calls_are_counted(pads: tuple[Pads, Pads]) -> None:
    """With padding and not excepted; the kernel tells a module's padding by memory, the module by its file."""
    functions = addresses(TEXT + 0x40, TEXT + 0x80, TEXT + 0xC0, MODULE + 0x40, MODULE + 0xC0, MODULE + 4, DATA)
    for one in pads:
        assert one.exist(functions).tolist() == [True, False, False, True, False, False, False]


def test_padding_that_was_filled_is_still_padding(pads: tuple[Pads, Pads]) -> None:
    """The kernel finds the counting instruction in memory; with another operand it is no padding."""
    kernel, module = pads
    pad = addresses(MODULE + 0x40 - PAD_SIZE)
    for spoil, expected in ((0, True), (1, False)):
        memory = padded(MODULE, [0x40])
        code = bytearray(module.code(pad).tobytes())
        code[4] ^= spoil
        memory.write(int(pad[0]), bytes(code))
        kernel._linux.memory = space_of(memory)
        assert kernel.exist(pad + np.uint64(PAD_SIZE)).tolist() == [expected]


def test_only_calls_into_padding_tell_of_a_counted_function(pads: tuple[Pads, Pads]) -> None:
    """One that goes to the function itself was written after calls were counted."""
    calls = ModuleCalls(addresses(MODULE + 0x40 - PAD_SIZE, MODULE + 0x80), addresses(TEXT + 0x40))
    assert called([calls], pads[1]).tolist() == [TEXT + 0x40, MODULE + 0x40]
    assert called([], pads[1]).tolist() == []


def test_only_padding_of_the_text_under_replay_is_filled(pads: tuple[Pads, Pads]) -> None:
    """A module's calls of the kernel fill padding that is no part of the module."""
    functions = addresses(TEXT + 0x40, MODULE + 0x40)
    for one, function in zip(pads, functions.tolist(), strict=True):
        assert PadsPass(functions, one).places.starts.tolist() == [function - PAD_SIZE]


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_direct_call_goes_as_far_before_its_target_as_its_stand_in_was_moved(
    pads: tuple[Pads, Pads], is_counted: bool
) -> None:
    """A module's `call *pv_ops` becomes a call by way of BUG_func's, which is counted first since 6.16 and so is moved.

    The kernel adds the distance from BUG_func to the target, and so the call goes into the target's padding, filled or not.
    """
    stand_in, target = TEXT + 0x40, TEXT + 0x1C0
    site, replacement, table = MODULE + 0x100, MODULE + 0x120, MODULE + 0x180
    text = padded(MODULE, [0x40])
    text.write(site, b"\xff\x15" + (DATA - site - 6 & 0xFFFF_FFFF).to_bytes(4, "little"))
    text.write(replacement, branch(b"\xe8", replacement, stand_in))
    pads[1]._mitigations = cast("Any", SimpleNamespace(call_depth=True))
    section = SimpleNamespace(address=replacement, end=replacement + 5)
    image = cast("Any", SimpleNamespace(find_section=lambda _name: section))
    before = [CountedCalls(addresses(replacement), pads[1])] if is_counted else []
    linux = cast("Any", MiniLinux({"BUG_func": stand_in}, {DATA: target}))
    features = cast("Any", MiniFeatures({0}))
    entry = struct.pack("<iiHHBB", site - table, replacement - table - 4, 0, 2, 6, 5)
    replacements = PatchedReplacements(image, space_of(text), 0, before)
    the_pass = AlternativesPass(linux, replacements, AlternativeTable(entry, table, 14), features, nops.P6)
    the_pass.apply(0, text)
    assert text.read(site, 5) == branch(b"\xe8", site, target - PAD_SIZE * is_counted)

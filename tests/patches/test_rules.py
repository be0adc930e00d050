"""The rule of each mechanism, on a few bytes of text: what decides, and what comes of it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.reading import BytesSpace
from orcdbg.patches.mechanisms import nops
from orcdbg.patches.mechanisms.jump_labels import JumpLabelsPass
from orcdbg.patches.mechanisms.mitigations import PLAIN_RETURN, RETHUNK, RETPOLINE, RETPOLINE_LFENCE, Mitigations
from orcdbg.patches.mechanisms.moved_instructions import moved, optimise_new_nops, optimise_old_nops
from orcdbg.patches.mechanisms.retpolines import RetpolinePass, RetpolineStyle
from orcdbg.patches.mechanisms.return_thunks import ReturnsPass
from orcdbg.patches.mechanisms.smp_locks import SmpLocksPass
from orcdbg.patches.mechanisms.static_calls import StaticCalls, StaticCallTrampolines, trampolines_and_keys
from orcdbg.patches.site import Undecidable, WorkingText
from orcdbg.x86.instructions import decode
from tests.patches.world import DATA, RETURN_THUNK, TEXT, THUNKS, MiniFeatures, MiniLinux, branch, rows, text_of

NAMES = {
    "__x86_indirect_thunk_array": THUNKS,
    "__x86_return_thunk": RETURN_THUNK,
    "x86_return_thunk": DATA,
    "its_return_thunk": RETURN_THUNK + 0x100,
    "srso_return_thunk": RETURN_THUNK + 0x200,
    "uniproc_patched": DATA + 8,
}
OLD = RetpolineStyle(lambda data: optimise_old_nops(data, nops.P6), False, False)
STOPPING = RetpolineStyle(lambda data: optimise_old_nops(data, nops.P6), True, False)
PREFIXED = RetpolineStyle(lambda data: data, True, True)


def machine(bits: set[int] | None, thunk: int = RETURN_THUNK, one_cpu: int = 0) -> tuple[Any, Mitigations]:
    """A kernel with those features and that return thunk."""
    linux = cast("Any", MiniLinux(NAMES, {DATA: thunk, DATA + 8: one_cpu}))
    return linux, Mitigations(linux, cast("Any", MiniFeatures(bits)))


def image_of(text: WorkingText) -> Any:
    """The text as an image, link addresses being run-time addresses."""
    return BytesSpace(TEXT, bytes(text.data), lambda address, size: NotInSnapshot("image", address, size))


def retpoline(code: bytes, bits: set[int], style: RetpolineStyle) -> bytes:
    """What becomes of one site at the start of the text."""
    linux, mitigations = machine(bits)
    text = text_of({0: code})
    the_pass = RetpolinePass(np.array([TEXT], dtype=np.uint64), image_of(text), linux, mitigations, style)
    the_pass.sweep(text, rows(1))
    return bytes(text.data[: len(code)])


def thunk_call(opcode: bytes, register: int) -> bytes:
    """A branch to the thunk of a register, at the start of the text."""
    return branch(opcode, TEXT, THUNKS + 32 * register)


@pytest.mark.parametrize("style", [OLD, STOPPING, PREFIXED], ids=["old", "stopping", "prefixed"])
@pytest.mark.parametrize(
    ("opcode", "register"),
    [
        *(
            (opcode, register)
            for opcode in (b"\xe8", b"\xe9", b"\x2e\xe9", b"\x0f\x84")
            for register in (0, 3, 7, 8, 15)
        ),
        *((b"\x2e\xe8", register) for register in (8, 15)),  # compilers prefix calls through r8 to r15 only
    ],
)
def test_without_retpolines_the_site_is_the_indirect_branch(
    opcode: bytes, register: int, style: RetpolineStyle
) -> None:
    """One indirect branch through the thunk's register, in a whole number of instructions, of the site's own length."""
    out = retpoline(thunk_call(opcode, register), set(), style)
    code = list(decode(out, TEXT))
    assert sum(insn.size for insn in code) == len(opcode) + 4
    indirect = [insn for insn in code if insn.operands.startswith("*")]
    assert len(indirect) == 1
    assert indirect[0].is_call == (opcode[-1] == 0xE8)
    assert indirect[0].raw[-1] & 7 == register & 7
    assert (0x41 in indirect[0].raw[:-2]) == (register >= 8)


def test_a_conditional_tail_call_is_jumped_over_when_its_condition_fails() -> None:
    """je thunk becomes jne past the site; jmp *reg."""
    out = retpoline(thunk_call(b"\x0f\x84", 2), set(), STOPPING)
    first = next(iter(decode(out, TEXT)))
    assert first.mnemonic == "jne"
    assert first.target == TEXT + 6


@pytest.mark.parametrize("opcode", [b"\xe8", b"\x2e\xe9", b"\x0f\x84"], ids=lambda code: code.hex())
def test_with_retpolines_sites_stay_as_built(opcode: bytes) -> None:
    """The thunk is what is wanted."""
    code = thunk_call(opcode, 1)
    assert retpoline(code, {RETPOLINE}, STOPPING) == code


@pytest.mark.parametrize(
    ("opcode", "register", "fits"), [(b"\xe8", 1, True), (b"\xe8", 9, False), (b"\x2e\xe9", 9, True)]
)
def test_an_lfence_that_does_not_fit_leaves_the_thunk(opcode: bytes, register: int, fits: bool) -> None:
    """3 + 2 bytes fit into five, 3 + 3 only into six, and behind a condition nothing fits."""
    code = thunk_call(opcode, register)
    out = retpoline(code, {RETPOLINE, RETPOLINE_LFENCE}, STOPPING)
    assert out.startswith(b"\x0f\xae\xe8") == fits
    assert (out == code) != fits


def test_a_site_that_calls_no_thunk_is_left_alone() -> None:
    """The kernel warns and goes on."""
    for target in (THUNKS - 32, THUNKS + 5, THUNKS + 16 * 32):
        code = branch(b"\xe8", TEXT, target)
        assert retpoline(code, set(), STOPPING) == code


def returns_at(offsets: list[int], bits: set[int] | None, thunk: int = RETURN_THUNK) -> WorkingText:
    """Text with compiled returns, after the pass."""
    linux, mitigations = machine(bits, thunk)
    sites = [TEXT + at for at in offsets]
    text = text_of({at: branch(b"\xe9", TEXT + at, RETURN_THUNK) for at in offsets})
    ReturnsPass(np.array(sites, dtype=np.uint64), linux, mitigations).sweep(text, rows(len(sites)))
    return text


def test_without_return_thunks_returns_are_plain() -> None:
    """And what is behind them traps."""
    assert returns_at([0], set()).read(TEXT, 5) == b"\xc3\xcc\xcc\xcc\xcc"


def test_returns_go_where_the_variable_points() -> None:
    """x86_return_thunk decides, not a list of known thunks."""
    text = returns_at([0, 40], {RETHUNK}, RETURN_THUNK + 0x200)
    assert text.read(TEXT + 40, 5) == branch(b"\xe9", TEXT + 40, RETURN_THUNK + 0x200)


def test_only_returns_in_the_lower_half_of_a_line_need_the_its_thunk() -> None:
    """Bit 5 of the address decides."""
    text = returns_at([0x10, 0x30], {RETHUNK}, RETURN_THUNK + 0x100)
    assert text.read(TEXT + 0x10, 5) == branch(b"\xe9", TEXT + 0x10, RETURN_THUNK + 0x100)
    assert text.read(TEXT + 0x30, 1) == b"\xc3"


def test_without_feature_bits_nothing_is_claimed() -> None:
    """The pass says that it cannot tell."""
    with pytest.raises(Undecidable, match="feature"):
        returns_at([0], None)


@pytest.mark.parametrize("one_cpu", [0, 1])
def test_lock_prefixes_go_on_one_cpu_only(one_cpu: int) -> None:
    """And only where there is one: a table may name other bytes."""
    linux, _ = machine(set(), one_cpu=one_cpu)
    text = text_of({0: b"\xf0\x90", 8: b"\x48"})
    SmpLocksPass(np.array([TEXT, TEXT + 8], dtype=np.uint64), linux).sweep(text, rows(2))
    assert text.read(TEXT, 2) == (b"\x3e\x90" if one_cpu else b"\xf0\x90")
    assert text.read(TEXT + 8, 1) == b"\x48"


@pytest.mark.parametrize("inverted", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 0xFFFF_FFFF])
@pytest.mark.parametrize("built", [b"\xeb\x10", b"\x66\x90", b"\x0f\x1f\x44\x00\x00", b"\xe9\x00\x01\x00\x00"])
def test_a_static_branch_is_taken_when_enabled_differs_from_inverted(built: bytes, count: int, inverted: int) -> None:
    """A key counts from -1, which means "being switched on"; the site keeps the length it was built with."""
    linux = cast("Any", MiniLinux({}, {DATA: count}))
    table = np.zeros(1, dtype=[("code", "<i4"), ("target", "<i4"), ("key", "<i8")])
    at = DATA + 0x100
    table["code"], table["target"], table["key"] = TEXT - at, TEXT + 0x40 - at - 4, DATA + inverted - at - 8
    text = text_of({0: built})
    JumpLabelsPass(table.tobytes(), at, image_of(text), linux, nops.P6).sweep(text, rows(1))
    code = next(iter(decode(bytes(text.data[:8]), TEXT)))
    assert code.size == len(built)
    assert (code.target == TEXT + 0x40) == bool((count != 0) ^ inverted)


@pytest.mark.parametrize("shift", [0x1000, -0x1000])
def test_a_moved_branch_still_goes_to_its_target(shift: int) -> None:
    """Out of the replacement: corrected; inside it: left."""
    code = b"\x74\x05" + branch(b"\xe8", 2, 0x500) + b"\x90" * 3
    out = moved(code, shift, 7)
    inside, outside = list(decode(out, 0))[:2]
    assert inside.target == 7
    assert outside.target == (0x500 + shift) & (1 << 64) - 1


@pytest.mark.parametrize("table", [nops.P6, nops.K8, nops.LONG], ids=lambda table: table.name)
@pytest.mark.parametrize("optimise", [optimise_old_nops, optimise_new_nops])
@pytest.mark.parametrize("size", [1, 2, 5, 9, 12, 40])
def test_optimising_nops_twice_is_optimising_them_once(optimise: Any, table: nops.NopTable, size: int) -> None:
    """And the length stays."""
    once = optimise(b"\x50" + b"\x90" * size + b"\x58", table)
    assert len(once) == size + 2
    assert optimise(once, table) == once


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

"""Paravirt calls of kernels whose pointers are in several variables."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from orcdbg.patches.mechanisms.paravirt import ParavirtPass
from orcdbg.patches.site import Undecidable
from orcdbg.patches.state import nops
from tests.build.kernel import POINTER, Structure, made_linux
from tests.build.memory import SparseMemory
from tests.patches.world import DATA, TEXT, branch, image_of, text_of

INIT, IRQ, LOCK = DATA, DATA + 0x40, DATA + 0x80
LABELS, NATIVE_PATCH, NATIVE, XEN, NOTHING, PATCH_CALL = (TEXT + 0x100 + 0x10 * number for number in range(6))
STRUCTURES: dict[str, Structure] = {
    "pv_init_ops": (8, {"patch": (0, POINTER)}),
    "pv_irq_ops": (24, {"save_fl": (0, POINTER), "restore_fl": (8, POINTER), "safe_halt": (16, POINTER)}),
    "pv_lock_ops": (8, {"vcpu_is_preempted": (0, POINTER)}),
    "paravirt_patch_template": (
        40,
        {"pv_init_ops": (0, "pv_init_ops"), "pv_irq_ops": (8, "pv_irq_ops"), "pv_lock_ops": (32, "pv_lock_ops")},
    ),
}
SAVE_FL, RESTORE_FL, SAFE_HALT, IS_PREEMPTED = range(1, 5)
SYMBOLS = {
    "pv_init_ops": INIT,
    "pv_irq_ops": IRQ,
    "pv_lock_ops": LOCK,
    "native_patch": NATIVE_PATCH,
    "native_save_fl": NATIVE,
    "xen_save_fl": XEN,
    "_paravirt_nop": NOTHING,
    "start_pv_irq_ops_save_fl": LABELS,
    "end_pv_irq_ops_save_fl": LABELS + 2,
    "start_pv_lock_ops_vcpu_is_preempted": LABELS + 2,
    "end_pv_lock_ops_vcpu_is_preempted": LABELS + 5,
    "__raw_callee_save___native_vcpu_is_preempted": NATIVE,
}
CALL = b"\xff\x14\x25\x40\x00\x00\x82"


def site_after(
    number: int,
    pointer: int,
    patch: int = NATIVE_PATCH,
    size: int = 7,
    leaving: tuple[str, ...] = (),
    clobbers: int = 0,
    patch_call: bytes = b"\xc3",
) -> bytes:
    """What the boot makes of a call by that number, where its pointer and that of the patch function hold these."""
    memory = SparseMemory()
    memory.put_words(INIT, patch)
    memory.put_words(IRQ, pointer, pointer, pointer)
    memory.put_words(LOCK, pointer)
    text = text_of({0: CALL, LABELS - TEXT: b"\x9c\x58\x48\x31\xc0", PATCH_CALL - TEXT: patch_call})
    table = struct.pack("<QBBHI", TEXT, number, size, clobbers, 0)
    symbols = {name: (at, 8) for name, at in SYMBOLS.items() if name not in leaving}
    symbols["paravirt_patch_call"] = PATCH_CALL, len(patch_call)
    linux: Any = made_linux(memory, STRUCTURES, symbols)
    image = image_of(text)
    ParavirtPass(linux, image, table, 0, nops.P6, image).apply(0, text)
    return bytes(text.data[:7])


def test_the_instruction_is_what_the_kernel_has_between_its_labels() -> None:
    """4.14 clears all of rax for vcpu_is_preempted, in three bytes, where later kernels do with two."""
    assert site_after(SAVE_FL, NATIVE) == b"\x9c\x58" + nops.P6.fill(5)
    assert site_after(IS_PREEMPTED, NATIVE) == b"\x48\x31\xc0" + nops.P6.fill(4)


def test_a_hypervisor_that_patches_itself_gets_a_call() -> None:
    """Of whatever the pointer holds; so does a lock function that is not the plain one."""
    call = branch(b"\xe8", TEXT, XEN) + nops.P6.fill(2)
    assert site_after(SAVE_FL, XEN, patch=XEN) == call
    assert site_after(IS_PREEMPTED, XEN) == call


@pytest.mark.parametrize(
    ("pointer", "written"),
    [
        (0, b"\x0f\x0b" + nops.P6.fill(5)),
        (NOTHING, nops.P6.fill(7)),
        (XEN, branch(b"\xe8", TEXT, XEN) + nops.P6.fill(2)),
    ],
)
def test_a_pointer_without_an_instruction_of_its_own_is_called(pointer: int, written: bytes) -> None:
    """One of nothing becomes UD2, one of the function that does nothing NOPs."""
    assert site_after(SAFE_HALT, pointer) == written


def test_what_does_not_fit_leaves_the_call_as_built() -> None:
    """The kernel writes the old bytes back."""
    assert site_after(SAFE_HALT, XEN, size=4) == CALL


MINDING = b"\x41\xf7\xd0\x44\x85\xc2\xc3"  # not %r8d; test %r8d,%edx; ret


@pytest.mark.parametrize(
    ("patch_call", "clobbers", "is_called"), [(b"\xc3", 1, True), (MINDING, 1, False), (MINDING, 0x1FF, True)]
)
def test_before_4_19_a_call_stays_indirect_where_registers_must_live_through_it(
    patch_call: bytes, clobbers: int, is_called: bool
) -> None:
    """By what the kernel's own paravirt_patch_call() looks at. An instruction is put there all the same."""
    call = branch(b"\xe8", TEXT, XEN) + nops.P6.fill(2)
    assert site_after(SAFE_HALT, XEN, clobbers=clobbers, patch_call=patch_call) == (call if is_called else CALL)
    inline = site_after(SAVE_FL, NATIVE, clobbers=clobbers, patch_call=patch_call)
    assert inline == b"\x9c\x58" + nops.P6.fill(5)


def test_a_first_site_of_entry_code_does_not_tell_the_generation() -> None:
    """Assembly calls by a distance from rip where C code calls by an address."""
    text = text_of({0: b"\xff\x15\x00\x00\x00\x00\x90", 0x10: CALL})
    table = b"".join(struct.pack("<QBBHI", TEXT + at, SAVE_FL, 7, 0, 0) for at in (0, 0x10))
    linux: Any = made_linux(SparseMemory(), STRUCTURES, {})
    assert ParavirtPass(linux, image_of(text), table, 0, nops.P6, image_of(text)).inlines


def test_a_group_whose_variable_the_kernel_lacks_is_undecided() -> None:
    """Nothing is guessed of it."""
    with pytest.raises(Undecidable):
        site_after(SAVE_FL, NATIVE, leaving=("pv_irq_ops",))

"""What notes say of a CPU."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.formats.elf import Note
from orcdbg.snapshot.machine import CpuState
from orcdbg.snapshot.notes import cpu_states

KERNELS, PROGRAMS = 0xFFFF_8880_0420_0000, 0x7F00_0000_1000


def notes(gs_base: int, kernel_gs_base: int) -> list[Note]:
    """One CPU as QEMU writes it: struct QEMUCPUState of its target/i386/arch_dump.c has the inactive base last."""
    state = bytearray(440)
    struct.pack_into("<Q", state, 152 + 24 * 4 + 16, gs_base)
    struct.pack_into("<Q", state, 432, kernel_gs_base)
    return [Note("CORE", 1, bytes(336)), Note("QEMU", 0, bytes(state))]


def test_qemus_note_has_both_gs_bases() -> None:
    """The one in use, and the one that swapgs brings."""
    (state,) = cpu_states(notes(PROGRAMS, KERNELS))
    assert (state.gs_base, state.kernel_gs_base) == (PROGRAMS, KERNELS)
    (state,) = cpu_states(notes(PROGRAMS, KERNELS)[:1])
    assert (state.gs_base, state.kernel_gs_base) == (None, None)


def of_cpu(number: int) -> tuple[Note, Note]:
    """The two notes of a CPU, whose base tells its number."""
    status, state = bytearray(336), bytearray(440)
    for data, ip_at, sp_at in ((status, 112 + 16 * 8, 112 + 19 * 8), (state, 136, 56)):
        struct.pack_into("<Q", data, ip_at, 0xFFFF_FFFF_8100_0000)  # all wait at one instruction
        struct.pack_into("<Q", data, sp_at, KERNELS + 0x1000 * number)
    struct.pack_into("<Q", state, 152 + 24 * 4 + 16, KERNELS + number)
    return Note("CORE", 1, bytes(status)), Note("QEMU", 0, bytes(state))


@given(st.permutations(range(5)), st.permutations(range(5)), st.sets(st.integers(0, 4)))
def test_notes_in_any_order_belong_together_by_their_registers(
    statuses: list[int], others: list[int], lost: set[int]
) -> None:
    """Neither kind names its CPU, and a note of one kind may be missing."""
    found = cpu_states(
        [*(of_cpu(number)[0] for number in statuses), *(of_cpu(number)[1] for number in others if number not in lost)]
    )
    bases = [None if number in lost else KERNELS + number for number in statuses]
    assert [state.gs_base for state in found] == bases


def test_an_old_qemus_note_has_no_second_base() -> None:
    """kernel_gs_base came with QEMU 3.1; the note before that is 8 bytes shorter."""
    status, state = notes(KERNELS, PROGRAMS)
    (found,) = cpu_states([status, state._replace(data=state.data[:432])])
    assert (found.gs_base, found.kernel_gs_base) == (KERNELS, None)


@pytest.mark.parametrize(
    ("cs", "in_use", "other", "bases"),
    [
        (0x33, PROGRAMS, KERNELS, [KERNELS]),
        (0x33, KERNELS + 0x1000, KERNELS, [KERNELS]),  # a program set its own to an address of the kernel
        (0x33, KERNELS + 0x1000, None, []),
        (0x10, KERNELS, PROGRAMS, [KERNELS]),
        (0x10, PROGRAMS, KERNELS, [KERNELS]),  # before swapgs
        (0x10, KERNELS + 0x1000, KERNELS, [KERNELS + 0x1000, KERNELS]),
        (0x10, 0, None, []),  # early in the boot
    ],
)
def test_a_programs_base_is_never_the_kernels_in_user_mode(
    cs: int, in_use: int, other: int | None, bases: list[int]
) -> None:
    """In the kernel it may be either, the one in use more likely."""
    state = CpuState(0, "made", {"cs": cs}, 1, gs_base=in_use, kernel_gs_base=other)
    assert list(state.possible_kernel_bases) == bases

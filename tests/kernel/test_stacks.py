"""A CPU's stacks, as each generation of kernels lays them out; made by code from the structures."""

from __future__ import annotations

import pytest

from orcdbg.kernel.linux import Linux
from orcdbg.kernel.stacks import StackKind, cpu_stacks, exception_stacks, irq_stack
from tests.build.kernel import U64, Structure, made_linux
from tests.build.memory import SparseMemory

PER_CPU, OFFSETS, COUNT = 0xFFFF_8880_0F60_0000, 0xFFFF_FFFF_8220_0000, 0xFFFF_FFFF_8220_0100
AREA = 0xFFFF_FE00_0000_1000
ORIG_IST, IRQ_POINTER, ESTACKS_POINTER = 0x100, 0x200, 0x300
PAGE = 0x1000
# struct cpu_entry_area of 4.15 to 5.1: GDT, entry stack, TSS (three pages), trampoline, exception stacks.
OLD_AREA: Structure = (12 * PAGE, {"entry_stack_page": (PAGE, U64), "exception_stacks": (6 * PAGE, U64)})
IRQ_STACK: Structure = (4 * PAGE, {"first_word": (0, U64)})
IRQ_UNION: Structure = (4 * PAGE, {"irq_stack": (0, "stack"), "stack_canary": (40, U64)})


def linux_of(structures: dict[str, Structure], words: dict[int, int], per_cpu: dict[str, int]) -> Linux:
    """A kernel with one CPU, whose per-CPU variables have these offsets and hold these words."""
    memory = SparseMemory()
    memory.put_words(OFFSETS, PER_CPU)
    memory.put(COUNT, (1).to_bytes(4, "little"))
    for offset, value in words.items():
        memory.put_words(PER_CPU + offset, value)
    symbols = {name: (offset, 8) for name, offset in per_cpu.items()}
    return made_linux(memory, structures, {"__per_cpu_offset": (OFFSETS, 8), "nr_cpu_ids": (COUNT, 4), **symbols})


def original(ends: list[int], structures: dict[str, Structure]) -> Linux:
    """A kernel before 5.2, with these words in `orig_ist`."""
    words = {ORIG_IST + 8 * number: end for number, end in enumerate(ends)}
    return linux_of(structures, words, {"orig_ist": ORIG_IST})


def test_before_5_2_orig_ist_has_the_end_of_each_exception_stack() -> None:
    """They lie side by side, that of #DB twice as long; the entry stack is where cpu_entry_area has it."""
    begin = AREA + 6 * PAGE
    linux = original([begin + PAGE, begin + 2 * PAGE, begin + 4 * PAGE, begin + 5 * PAGE], {"cpu_entry_area": OLD_AREA})
    found = {stack.kind: (stack.begin - AREA, stack.end - AREA) for stack in exception_stacks(linux, 0)}
    assert found == {
        StackKind.DF: (6 * PAGE, 7 * PAGE),
        StackKind.NMI: (7 * PAGE, 8 * PAGE),
        StackKind.DB: (8 * PAGE, 10 * PAGE),
        StackKind.MCE: (10 * PAGE, 11 * PAGE),
        StackKind.ENTRY: (PAGE, 2 * PAGE),
    }


def test_before_4_15_there_is_no_entry_stack() -> None:
    """The exception stacks lie in per-CPU data, and no structure holds them."""
    begin = PER_CPU + 16 * PAGE
    linux = original([begin + PAGE, begin + 2 * PAGE, begin + 4 * PAGE, begin + 5 * PAGE], {})
    kinds = [stack.kind for stack in exception_stacks(linux, 0)]
    assert kinds == [StackKind.DF, StackKind.NMI, StackKind.DB, StackKind.MCE]


@pytest.mark.parametrize(
    "ends",
    [
        [0, 0, 0, 0],
        [AREA + PAGE, AREA, AREA + 2 * PAGE, AREA + 3 * PAGE],
        [AREA + PAGE, AREA + 2 * PAGE, AREA + 4 * PAGE, AREA + (1 << 40)],
        [AREA + PAGE + 8, AREA + 2 * PAGE, AREA + 4 * PAGE, AREA + 5 * PAGE],
    ],
)
def test_words_that_are_no_ends_of_stacks_make_none(ends: list[int]) -> None:
    """A CPU that was never set up, and damaged ones: nothing may be taken for a stack that is none."""
    assert exception_stacks(original(ends, {"cpu_entry_area": OLD_AREA}), 0) == []


def test_from_5_2_to_5_7_a_debug_exception_in_another_has_its_own_stack() -> None:
    """There were gaps between the stacks, and a hole where no second such stack is."""
    members = {
        name: (2 * number * PAGE + PAGE, U64) for number, name in enumerate(("DF_stack", "NMI_stack", "DB2_stack"))
    }
    members |= {"DB1_stack": (7 * PAGE, U64), "DB_stack": (9 * PAGE, U64), "MCE_stack": (11 * PAGE, U64)}
    structures: dict[str, Structure] = {"cea_exception_stacks": (12 * PAGE, members)}
    linux = linux_of(structures, {ESTACKS_POINTER: AREA}, {"cea_exception_stacks": ESTACKS_POINTER})
    begins = [(stack.kind, stack.begin - AREA) for stack in exception_stacks(linux, 0)]
    assert begins == [
        (StackKind.DF, PAGE),
        (StackKind.NMI, 3 * PAGE),
        (StackKind.DB, 9 * PAGE),
        (StackKind.DB, 7 * PAGE),
        (StackKind.MCE, 11 * PAGE),
    ]


def test_before_5_2_the_interrupt_stack_is_a_union_in_per_cpu_data() -> None:
    """Its end is in `irq_stack_ptr`."""
    end = PER_CPU + 4 * PAGE
    linux = linux_of(
        {"stack": IRQ_STACK, "irq_stack_union": IRQ_UNION}, {IRQ_POINTER: end}, {"irq_stack_ptr": IRQ_POINTER}
    )
    found = irq_stack(linux, 0)
    assert found is not None
    assert (found.begin, found.end) == (PER_CPU, end)
    assert [stack.kind for stack in cpu_stacks(linux, 0)] == [StackKind.IRQ]

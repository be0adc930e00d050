"""Return addresses that function_graph replaced, in each layout that kernels keep them in, made by code, and damaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import Corrupt, MemoryFault, OrcdbgError
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.ret_stack import ReplacedReturn, graph_returns
from tests.build.kernel import POINTER, U32, U64, WORD_POINTER, Structure, made_linux
from tests.build.memory import SparseMemory

TASK, STACK = 0xFFFF888000000000, 0xFFFF888000200000
# Offsets differ from those of real kernels on purpose: they come from BTF.
OLD_ENTRY: Structure = (32, {"ret": (0, U64), "func": (8, U64), "calltime": (16, U64), "retp": (24, POINTER)})
NEW_ENTRY: Structure = (24, {"ret": (0, U64), "func": (8, U64), "retp": (16, POINTER)})


def graph_task(pointer: str) -> Structure:
    """A task_struct with a stack of return addresses."""
    return 64, {"curr_ret_stack": (4, U32), "ret_stack": (8, pointer)}


def array_kernel(entries: list[tuple[int, int]], top: int | None = None, room: int = 60) -> Linux:
    """function_graph's array of structures, oldest entry first: return address and slot."""
    memory = SparseMemory()
    memory.put(TASK, (len(entries) - 1 if top is None else top).to_bytes(8, "little", signed=True))
    memory.pieces[TASK] = bytearray(4) + memory.pieces[TASK][:4] + STACK.to_bytes(8, "little")
    words = [word for ret, slot in entries for word in (ret, 0x1111, 0, slot)]
    memory.put_words(STACK, *words, *[0] * (4 * room - len(words)))
    return made_linux(memory, {"task_struct": graph_task(POINTER), "ftrace_ret_stack": OLD_ENTRY})


def words_kernel(entries: list[tuple[int, int, int]], top: int | None = None, damage: int = 0) -> Linux:
    """function_graph's array of words: return address, slot, and how many words a tracer keeps besides."""
    memory, words = SparseMemory(), list[int]()
    for ret, slot, extra in entries:
        # The entry, a tracer's data with their sizes on top, and at the very top the distance to the entry.
        words += [ret, 0x1111, slot, *[0x2222] * extra]
        words.append((3 + extra) ^ damage | 1 << 10)
    memory.put(
        TASK, bytes(4) + (len(words) if top is None else top).to_bytes(4, "little") + STACK.to_bytes(8, "little")
    )
    memory.put_words(STACK, *words, *[0] * (512 - len(words)))
    return made_linux(memory, {"task_struct": graph_task(WORD_POINTER), "ftrace_ret_stack": NEW_ENTRY})


def listed(found: list[ReplacedReturn]) -> list[tuple[int, int | None]]:
    """Address and slot of the entries that are not taken back."""
    return [(entry.address, entry.slot) for entry in found if not entry.is_taken_back]


ENTRIES = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=40)


@given(ENTRIES)
def test_an_array_is_read_from_its_last_entry_down(entries: list[tuple[int, int]]) -> None:
    """Up to 6.10; an empty one too."""
    assert listed(graph_returns(array_kernel(entries), TASK)) == entries[::-1]


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 5)), max_size=40))
def test_words_are_read_by_the_distances_on_top_of_each_entry(entries: list[tuple[int, int, int]]) -> None:
    """Since 6.11, whatever tracers keep between."""
    assert listed(graph_returns(words_kernel(entries), TASK)) == [(ret, slot) for ret, slot, _ in entries[::-1]]


@pytest.mark.parametrize("kernel", [array_kernel([(1, 2), (3, 4)], top=0), words_kernel([(1, 2, 0), (3, 4, 0)], top=4)])
def test_the_entry_that_was_just_taken_back_is_told_apart(kernel: Linux) -> None:
    """It lies above the last one."""
    first, *others = graph_returns(kernel, TASK)
    assert (first.address, first.slot, first.is_taken_back) == (3, 4, True)
    assert [(entry.address, entry.is_taken_back) for entry in others] == [(1, False)]


@pytest.mark.parametrize(
    "kernel",
    [
        array_kernel([(1, 2)], top=-2),
        array_kernel([(1, 2)], top=1 << 20),
        words_kernel([(1, 2, 0)], top=513),
        words_kernel([(1, 2, 0)], top=2),
        words_kernel([(1, 2, 0), (3, 4, 0)], damage=3),
        words_kernel([(1, 2, 0), (3, 4, 0)], damage=0x80),
    ],
)
def test_counts_and_distances_that_cannot_be_are_refused(kernel: Linux) -> None:
    """Below the beginning, above the end, nowhere."""
    with pytest.raises(Corrupt):
        graph_returns(kernel, TASK)


def test_a_stack_that_is_not_in_the_snapshot_is_a_fault() -> None:
    """The count reaches beyond what was saved."""
    with pytest.raises(MemoryFault):
        graph_returns(array_kernel([(1, 2)], top=200), TASK)


def test_a_task_that_was_never_traced_has_none() -> None:
    """Its pointer is NULL."""
    memory = SparseMemory()
    memory.put(TASK, bytes(64))
    types = {"task_struct": graph_task(POINTER), "ftrace_ret_stack": OLD_ENTRY}
    assert graph_returns(made_linux(memory, types), TASK) == []
    assert graph_returns(made_linux(memory, {"task_struct": (64, {})}), TASK) == []


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), min_size=512, max_size=512))
def test_any_words_give_entries_or_an_error(top: int, words: list[int]) -> None:
    """A snapshot may hold anything."""
    memory = SparseMemory()
    memory.put(TASK, bytes(4) + top.to_bytes(4, "little") + STACK.to_bytes(8, "little"))
    memory.put_words(STACK, *words)
    for pointer, entry in ((WORD_POINTER, NEW_ENTRY), (POINTER, OLD_ENTRY)):
        linux = made_linux(memory, {"task_struct": graph_task(pointer), "ftrace_ret_stack": entry})
        try:
            assert len(graph_returns(linux, TASK)) <= 514
        except OrcdbgError as error:
            assert str(error)

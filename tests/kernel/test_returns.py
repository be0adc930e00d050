"""Replaced return addresses in each layout that kernels keep them in, made by code, and damaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import Corrupt, MemoryFault, OrcdbgError
from orcdbg.kernel.kretprobes import kretprobe_returns
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.ret_stack import ReplacedReturn, Tracer, graph_returns
from tests.build.kernel import POINTER, U32, U64, WORD_POINTER, Structure, made_linux
from tests.build.memory import SparseMemory

TASK, OTHER, STACK, RECORDS = (0xFFFF888000000000 + 0x100000 * i for i in range(4))
TABLE = 0xFFFFFFFF82000000
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


NODE: Structure = (48, {"llist": (16, U64), "ret_addr": (32, U64), "frame": (40, U64)})
INSTANCE: Structure = (48, {"llist": (8, U64), "ret_addr": (24, U64), "fp": (32, POINTER)})
HASHED: Structure = (48, {"hlist": (0, U64), "ret_addr": (24, U64), "task": (32, POINTER), "fp": (40, POINTER)})


def list_kernel(entries: list[tuple[int, int]], member: str, struct: Structure, slot: str, circle: bool) -> Linux:
    """A task with a list of its own, newest entry first: return address and slot."""
    memory, at = SparseMemory(), struct[1]
    name = "rethook_node" if slot == "frame" else "kretprobe_instance"
    for index, (ret, where) in enumerate(entries):
        record = bytearray(48)
        last = index == len(entries) - 1
        following = 0 if last and not circle else RECORDS + 64 * (0 if last else index + 1) + at["llist"][0]
        for key, value in (("llist", following), ("ret_addr", ret), (slot, where)):
            record[at[key][0] : at[key][0] + 8] = value.to_bytes(8, "little")
        memory.put(RECORDS + 64 * index, bytes(record))
    memory.put_words(TASK, RECORDS + at["llist"][0] if entries else 0)
    return made_linux(memory, {"task_struct": (8, {member: (0, U64)}), name: struct})


def table_kernel(entries: list[tuple[int, int, int]], circle: bool = False) -> Linux:
    """The hash table of before 5.11, all instances in one chain: return address, slot, task."""
    memory = SparseMemory()
    memory.put_words(TABLE, *[0] * 17, RECORDS if entries else 0, *[0] * 46)
    for index, (ret, slot, task) in enumerate(entries):
        last = index == len(entries) - 1
        following = (RECORDS if circle else 0) if last else RECORDS + 64 * (index + 1)
        memory.put_words(RECORDS + 64 * index, following, 0, 0, ret, task, slot)
    return made_linux(memory, {"kretprobe_instance": HASHED}, {"kretprobe_inst_table": (TABLE, 512)})


@pytest.mark.parametrize(
    ("member", "struct", "slot"), [("rethooks", NODE, "frame"), ("kretprobe_instances", INSTANCE, "fp")]
)
def test_a_tasks_list_is_read_newest_first(member: str, struct: Structure, slot: str) -> None:
    """With rethook and before it; a list that runs in a circle is refused."""
    entries = [(1, 2), (3, 4), (5, 4)]
    assert listed(kretprobe_returns(list_kernel(entries, member, struct, slot, False), TASK)) == entries
    assert kretprobe_returns(list_kernel([], member, struct, slot, False), TASK) == []
    with pytest.raises(Corrupt):
        kretprobe_returns(list_kernel(entries, member, struct, slot, True), TASK)


def test_the_table_of_all_instances_gives_those_of_the_task() -> None:
    """Those of others in the same chain are left out; a chain that runs in a circle is refused."""
    entries = [(1, 2, TASK), (3, 4, OTHER), (5, 6, TASK)]
    assert listed(kretprobe_returns(table_kernel(entries), TASK)) == [(1, 2), (5, 6)]
    assert kretprobe_returns(table_kernel([]), TASK) == []
    with pytest.raises(Corrupt):
        kretprobe_returns(table_kernel(entries, circle=True), TASK)


def test_a_kernel_without_kretprobes_has_none() -> None:
    """No list and no table."""
    assert kretprobe_returns(made_linux(SparseMemory(), {}), TASK) == []


@pytest.mark.parametrize(
    ("handler", "owner"), [(0xFFFFFFFF81000000, Tracer.KRETPROBE), (0xFFFFFFFF81000040, None), (0, None), (None, None)]
)
def test_whose_a_node_of_rethook_is_follows_from_its_handler(handler: int | None, owner: Tracer | None) -> None:
    """A kretprobe's, another's, that of one that was taken away, and one that is not in the snapshot."""
    memory = SparseMemory()
    memory.put_words(TASK, RECORDS + 16)
    memory.put_words(RECORDS, 0, 0, 0, OTHER, 1, 2)
    if handler is not None:
        memory.put_words(OTHER, 0, handler)
    node: Structure = (48, {**NODE[1], "rethook": (24, POINTER)})
    types = {"task_struct": (8, {"rethooks": (0, U64)}), "rethook_node": node, "rethook": (16, {"handler": (8, U64)})}
    symbols = {"kretprobe_rethook_handler": (0xFFFFFFFF81000000, 64)}
    assert kretprobe_returns(made_linux(memory, types, symbols), TASK) == [ReplacedReturn(1, 2, RECORDS, owner=owner)]

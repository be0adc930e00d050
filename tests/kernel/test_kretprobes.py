"""Return addresses that kretprobes replaced: in a task's list, in the table of before 5.11, and in rethook's nodes."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import Corrupt
from orcdbg.kernel.kretprobes import kretprobe_returns
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.ret_stack import ReplacedReturn, Tracer
from tests.build.kernel import POINTER, U64, Structure, made_linux
from tests.build.memory import SparseMemory

TASK, OTHER, RECORDS = (0xFFFF888000000000 + 0x100000 * i for i in range(3))
TABLE = 0xFFFFFFFF82000000
NODE: Structure = (48, {"llist": (16, U64), "ret_addr": (32, U64), "frame": (40, U64)})
INSTANCE: Structure = (48, {"llist": (8, U64), "ret_addr": (24, U64), "fp": (32, POINTER)})
HASHED: Structure = (48, {"hlist": (0, U64), "ret_addr": (24, U64), "task": (32, POINTER), "fp": (40, POINTER)})


def listed(found: list[ReplacedReturn]) -> list[tuple[int, int | None]]:
    """Address and slot of each entry."""
    return [(entry.address, entry.slot) for entry in found]


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


PROBE, HOLDER, HOOK, PROBED = OTHER + 0x100, OTHER + 0x200, OTHER + 0x300, 0xFFFFFFFF81000044
PROBES: dict[str, Structure] = {"kretprobe": (72, {"kp": (0, U64)}), "kprobe": (64, {"addr": (40, POINTER)})}


@pytest.mark.parametrize("form", ["table", "holder", "rethook", "taken away"])
def test_a_record_leads_to_the_function_that_was_probed(form: str) -> None:
    """By the instance's kretprobe, by the holder of both, by what rethook's user gave; not once the probe was taken away."""
    memory = SparseMemory()
    memory.put_words(PROBE + 40, PROBED)
    symbols = {"kretprobe_inst_table": (TABLE, 512), "kretprobe_rethook_handler": (0xFFFFFFFF81000000, 64)}
    if form == "table":
        memory.put_words(TABLE, *[0] * 17, RECORDS, *[0] * 46)
        memory.put_words(RECORDS, 0, 0, PROBE, 1, TASK, 2)
        types = {**PROBES, "kretprobe_instance": (48, {**HASHED[1], "rp": (16, POINTER)})}
    elif form == "rethook":
        memory.put_words(TASK, RECORDS + 16)
        memory.put_words(RECORDS, 0, 0, 0, HOOK, 1, 2)
        memory.put_words(HOOK, PROBE, 0xFFFFFFFF81000000)
        node: Structure = (48, {**NODE[1], "rethook": (24, POINTER)})
        hook: Structure = (16, {"data": (0, POINTER), "handler": (8, U64)})
        types = {**PROBES, "task_struct": (8, {"rethooks": (0, U64)}), "rethook_node": node, "rethook": hook}
    else:
        memory.put_words(TASK, RECORDS + 8)
        memory.put_words(RECORDS, 0, 0, HOLDER, 1, 2)
        memory.put_words(HOLDER, 0 if form == "taken away" else PROBE)
        instance: Structure = (48, {**INSTANCE[1], "rph": (16, POINTER)})
        holder: Structure = (16, {"rp": (0, POINTER)})
        lists: Structure = (8, {"kretprobe_instances": (0, U64)})
        types = {**PROBES, "task_struct": lists, "kretprobe_instance": instance, "kretprobe_holder": holder}
    (found,) = kretprobe_returns(made_linux(memory, types, symbols), TASK)
    assert (found.address, found.slot, found.callee) == (1, 2, None if form == "taken away" else PROBED)

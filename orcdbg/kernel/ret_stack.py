"""Which return addresses did function_graph take off a task's stack?

Mirrors kernel/trace/fgraph.c. Each task has a stack of its own for them, `task_struct.ret_stack`: before 6.11 an array of
`struct ftrace_ret_stack`, since then words of which the topmost of each entry says how far below the entry begins.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import Corrupt
from orcdbg.base.reading import read_u64
from orcdbg.kernel.linux import Linux

MAX_ENTRIES = 512
_WORDS = 512  # SHADOW_STACK_SIZE, a page
_OFFSET_MASK = 0x3FF  # FGRAPH_FRAME_OFFSET_BITS


class Tracer(enum.Enum):
    """What replaces return addresses; the values are the JSON contract's words."""

    FGRAPH = "fgraph"
    KRETPROBE = "kretprobe"
    RETHOOK = "rethook"


class ReplacedReturn(NamedTuple):
    """A return address that the kernel replaced by a trampoline's.

    `address` is what stood in the slot before: the true address, or another trampoline. `slot` is where, None where the
    kernel does not keep that. `record` is the address of the structure that says so. `is_taken_back` is True for the entry
    that was last given back: the trampoline may still be on its way with it. `owner` is what replaced it,
    where its trampoline serves more than one. `callee` is an address in the function that was to return there, where the
    record says.
    """

    address: int
    slot: int | None
    record: int
    is_taken_back: bool = False
    owner: Tracer | None = None
    callee: int | None = None


def graph_returns(linux: Linux, task: int) -> list[ReplacedReturn]:
    """The return addresses that function_graph keeps for a task, the innermost first.

    The list starts with the entry above the last one, as `is_taken_back`, where there is room for one.

    Raises:
        Corrupt: a count or an offset that the kernel cannot have written.
        MemoryFault: the stack of return addresses is not in the snapshot.
    """
    if not linux.types.has("task_struct", "ret_stack"):
        return []
    stack = linux.member("task_struct", "ret_stack", task)
    if not stack:
        return []
    index = linux.member("task_struct", "curr_ret_stack", task) & 0xFFFF_FFFF
    top = index - (1 << 32) if index >> 31 else index
    return list(_words(linux, stack, top) if _is_in_words(linux) else _array(linux, stack, top))


def _is_in_words(linux: Linux) -> bool:
    """Since 6.11 (42675b723b48) the stack is an array of words, in which tracers keep data of theirs too."""
    return linux.types.points_to_integer("task_struct", "ret_stack")


def _entry(linux: Linux, record: int, is_taken_back: bool = False) -> ReplacedReturn:
    has_slot = linux.types.has("ftrace_ret_stack", "retp")
    slot = linux.member("ftrace_ret_stack", "retp", record) if has_slot else None
    address, callee = (linux.member("ftrace_ret_stack", name, record) for name in ("ret", "func"))
    return ReplacedReturn(address, slot, record, is_taken_back, callee=callee)


def _array(linux: Linux, stack: int, top: int) -> Iterator[ReplacedReturn]:
    """`curr_ret_stack` is the index of the last entry, -1 for none."""
    if not -1 <= top < MAX_ENTRIES:
        raise Corrupt(f"curr_ret_stack is {top}")
    size = linux.types.size("ftrace_ret_stack")
    yield _entry(linux, stack + size * (top + 1), is_taken_back=True)
    for index in range(top, -1, -1):
        yield _entry(linux, stack + size * index)


def _words(linux: Linux, stack: int, top: int) -> Iterator[ReplacedReturn]:
    """`curr_ret_stack` counts words; below each entry's top the word there says how many to go down."""
    if not 0 <= top <= _WORDS:
        raise Corrupt(f"curr_ret_stack is {top}")
    size = -(-linux.types.size("ftrace_ret_stack") // 8)
    if top + size <= _WORDS:
        yield _entry(linux, stack + 8 * top, is_taken_back=True)
    while top:
        distance = read_u64(linux.memory, stack + 8 * (top - 1)) & _OFFSET_MASK
        if not size <= distance < top:
            raise Corrupt(f"word {top - 1} of ret_stack {stack:#x} goes down {distance}")
        top -= 1 + distance
        yield _entry(linux, stack + 8 * top)

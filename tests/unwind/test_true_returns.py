"""Walks through return slots that function_graph and kretprobes replaced, in a kernel made by code."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from orcdbg.kernel.names import Location
from orcdbg.kernel.ret_stack import Tracer
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.table import OrcEntry
from orcdbg.unwind.frame import FrameKind, Mark, Recovered, RegisterValue
from orcdbg.unwind.reasons import ReturnRegisterUnknown
from orcdbg.unwind.true_returns import TrueReturns
from orcdbg.unwind.walker import State, Walk, WalkEnd, Walker
from orcdbg.views.reasons import words_or_none
from tests.build.code import SINCE_5_12, MadeKernelCode, MadeRows, made_terrain
from tests.build.kernel import POINTER, U32, U64, WORD_POINTER, Structure, made_linux
from tests.build.memory import SparseMemory

TEXT = 0xFFFFFFFF81000000
TOP = 0xFFFFC90000014000
STACK = Stack(StackKind.TASK, TOP - 0x4000, TOP)
SP = TOP - 0x400
TASK, SHADOW, NODES = (0xFFFF888000000000 + 0x100000 * i for i in range(3))
GRAPH, RETHOOK, HANDLER, PROBE_HANDLER = TEXT + 0x8000, TEXT + 0x9000, TEXT + 0xA000, TEXT + 0xB000
PROBE = NODES + 0x8000  # the struct rethook of a kretprobe
A, B, C = (TEXT + 0x100 * i + 0x20 for i in range(3))  # A is called by B, B by C; C is where new tasks begin

TYPES: dict[str, Structure] = {
    "task_struct": (32, {"curr_ret_stack": (0, U32), "ret_stack": (8, WORD_POINTER), "rethooks": (16, U64)}),
    "ftrace_ret_stack": (24, {"ret": (0, U64), "func": (8, U64), "retp": (16, POINTER)}),
    "rethook_node": (48, {"llist": (16, U64), "rethook": (24, U64), "ret_addr": (32, U64), "frame": (40, U64)}),
    "rethook": (16, {"handler": (8, U64)}),
}


def call(place: int, target: int) -> bytes:
    """A direct call at `place`."""
    return b"\xe8" + (target - place - 5 & 0xFFFFFFFF).to_bytes(4, "little")


# sub $16,%rsp; call HANDLER; mov %rax,%rdi; add $16,%rsp; call 1f; int3; 1: mov %rdi,(%rsp); ret
GRAPH_CODE = (
    bytes.fromhex("4883ec10") + call(GRAPH + 4, HANDLER) + bytes.fromhex("4889c7 4883c410 e801000000 cc 48893c24 c3")
)
AFTER_HANDLER = 9
# push $RETHOOK; push %rbp; call HANDLER; pop %rbp; ret
RETHOOK_CODE = b"\x68" + RETHOOK.to_bytes(8, "little")[:4] + b"\x55" + call(RETHOOK + 6, HANDLER) + b"\x5d\xc3"


class _Code(MadeKernelCode):
    """Code without a symbol for every place."""

    def is_text(self, address: int) -> bool:
        """True in the first pages."""
        return TEXT <= address < TEXT + 0x10000


@dataclass
class Kernel:
    """Three functions with frames of 16 bytes, A's return slot at SP + 8, and what tracers keep of the task."""

    slot: int = B
    graph: list[tuple[int, int]] = field(default_factory=list)
    rethooks: list[tuple[int, int]] = field(default_factory=list)
    taken_back: tuple[int, int] = (0, 0)
    names: dict[int, str] = field(default_factory=dict)
    is_new: bool = False
    outer: int = C
    owner: int = 0

    def walk(self, ip: int = A, sp: int = SP, **registers: int) -> Walk:
        """The walk from an interrupted ip."""
        memory = SparseMemory()
        self._put(memory)
        symbols = (
            {
                "return_to_handler": (GRAPH, len(GRAPH_CODE)),
                "arch_rethook_trampoline": (RETHOOK, len(RETHOOK_CODE)),
                "kretprobe_rethook_handler": (PROBE_HANDLER, 16),
            }
            | SINCE_5_12
            | ({"ftrace_graph_func": (HANDLER, 16)} if self.is_new else {})
        )
        linux = made_linux(memory, TYPES, symbols)
        terrain = made_terrain(_Code(memory, self._locate, known_linux=linux), MadeRows(self._find))
        values = {"rip": ip, "rsp": sp, **registers}
        start = State(ip, True, {n: RegisterValue(v, "given") for n, v in values.items()}, FrameKind.INTERRUPT, None)
        return Walker(terrain, [STACK], TrueReturns(linux, terrain.overlay.returns, TASK)).walk(start)

    def _put(self, memory: SparseMemory) -> None:
        words = [word for ret, slot in self.graph for word in (ret, 0x1111, slot, 3 | 1 << 10)]
        above = [self.taken_back[0], 0x1111, self.taken_back[1]]
        memory.put(TASK, len(words).to_bytes(8, "little") + SHADOW.to_bytes(8, "little"))
        memory.pieces[TASK] += (NODES + 16 if self.rethooks else 0).to_bytes(8, "little") + bytes(8)
        memory.put_words(SHADOW, *words, *above, *[0] * (509 - len(words)))
        for index, (ret, frame) in enumerate(self.rethooks):
            following = NODES + 64 * (index + 1) + 16 if index + 1 < len(self.rethooks) else 0
            memory.put_words(NODES + 64 * index, 0, 0, following, self.owner, ret, frame)
        memory.put_words(PROBE, 0, PROBE_HANDLER)
        memory.put(GRAPH, GRAPH_CODE.ljust(256, b"\xcc"))
        memory.put(RETHOOK, RETHOOK_CODE.ljust(256, b"\xcc"))
        stack = dict.fromkeys(range(SP - 0x40, TOP, 8), 0) | {SP + 8: self.slot, SP + 24: self.outer}
        memory.put_words(SP - 0x40, *stack.values())

    def _find(self, address: int) -> OrcEntry | None:
        number = (address - TEXT) // 0x100
        last = OrcRow(
            OrcRegister.UNDEFINED,
            0,
            OrcRegister.UNDEFINED,
            0,
            RowType.END_OF_STACK if number == 2 else RowType.UNDEFINED,
            False,
        )
        row = OrcRow(OrcRegister.SP, 16, OrcRegister.UNDEFINED, 0, RowType.CALL, False) if number < 2 else last
        return OrcEntry("test", number, TEXT + 0x100 * number, None, bytes(6), row)

    def _locate(self, address: int) -> Location | None:
        start = address & ~0xFF
        known = {A: "a", B: "b", C: "ret_from_fork"} | self.names
        name = next((text for place, text in known.items() if place & ~0xFF == start), "other")
        return Location(name, start, 0x100, None, True)


def ips(walk: Walk) -> list[int]:
    """The frames' addresses, without the first."""
    return [frame.ip for frame in walk.frames[1:]]


def test_the_caller_that_function_graph_keeps_is_shown() -> None:
    """With the trampoline that stood in its place, and still sure."""
    walk = Kernel(GRAPH, graph=[(C + 1, TOP), (B, SP + 8), (A, SP - 64)]).walk()
    caller = walk.frames[1]
    assert (ips(walk), caller.recovered) == ([B, C], Recovered(Tracer.FGRAPH, GRAPH, 0x1111))
    assert (caller.mark, caller.reliable, caller.doubt) == (Mark.CHANGED, True, None)
    assert "holds return_to_handler" in caller.registers["rip"].source


@pytest.mark.parametrize(("owner", "by"), [(PROBE, Tracer.KRETPROBE), (0, Tracer.RETHOOK)])
def test_the_caller_that_a_rethook_keeps_is_shown(owner: int, by: Tracer) -> None:
    """Several on one function, and the same function further out; a kretprobe is called one."""
    walk = Kernel(RETHOOK, rethooks=[(RETHOOK, SP + 8), (B, SP + 8), (C, TOP)], owner=owner).walk()
    assert (ips(walk), walk.frames[1].recovered) == ([B, C], Recovered(by, RETHOOK))


@pytest.mark.parametrize(
    ("slot", "graph", "rethooks"),
    [
        (GRAPH, [(RETHOOK, SP + 8)], [(B, SP + 8)]),
        (RETHOOK, [(B, SP + 8)], [(GRAPH, SP + 8)]),
        (RETHOOK, [(RETHOOK, SP + 8)], [(GRAPH, SP + 8), (B, SP + 8)]),
        (GRAPH, [(B, SP + 8), (GRAPH, SP + 8)], []),
    ],
    ids=["graph over a probe", "a probe over graph", "graph between two probes", "a tail call"],
)
def test_layers_on_one_slot_are_taken_off_one_by_one(
    slot: int, graph: list[tuple[int, int]], rethooks: list[tuple[int, int]]
) -> None:
    """Whatever was put on top of what; the frame names what stands in the slot."""
    walk = Kernel(slot, graph, rethooks).walk()
    assert ips(walk) == [B, C]
    callee = 0x1111 if graph else None
    assert walk.frames[1].recovered == Recovered(Tracer.FGRAPH if slot == GRAPH else Tracer.RETHOOK, slot, callee)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (Kernel(GRAPH), "no ftrace_ret_stack names this slot"),
        (Kernel(GRAPH, graph=[(B, SP + 16)]), "no ftrace_ret_stack names this slot"),
        (Kernel(GRAPH, taken_back=(B, SP + 8)), "no ftrace_ret_stack names this slot"),
        (Kernel(GRAPH, graph=[(GRAPH, SP + 8)]), "no ftrace_ret_stack names this slot"),
        (Kernel(RETHOOK, rethooks=[(GRAPH, SP + 8)]), "no ftrace_ret_stack names this slot"),
        (Kernel(RETHOOK, graph=[(B, SP + 8)]), "no rethook_node names this slot"),
        (Kernel(RETHOOK, rethooks=[(0x1234, SP + 8)]), "is not an address of kernel text"),
    ],
)
def test_a_walk_stops_where_nothing_names_the_slot(kernel: Kernel, reason: str) -> None:
    """Another slot's entry, one that was taken back, one that leads to itself, or no text: never a guess."""
    walk = kernel.walk()
    assert (walk.end, len(walk.frames)) == (WalkEnd.STOPPED, 1)
    assert reason in (words_or_none(walk.end_reason) or "")


def test_an_entry_that_is_just_being_written_is_in_doubt() -> None:
    """Kernels that replace the slot first may show an older call's entry; those that write it first show a whole one."""
    for is_new in (False, True):
        kernel = Kernel(B, graph=[(C, SP + 24)], names={A: "prepare_ftrace_return"}, is_new=is_new, outer=GRAPH)
        walk = kernel.walk()
        assert ips(walk) == [B, C]
        assert [frame.reliable for frame in walk.frames] == [True, True, is_new]


@pytest.mark.parametrize(
    ("offset", "sp", "registers", "record"),
    [
        (0, 0, {}, "listed"),
        (4, -16, {}, "listed"),
        (4, -16, {}, "taken back"),
        (9, -16, {"rax": B}, "gone"),
        (12, -16, {"rdi": B, "rax": 1}, "gone"),
        (16, 0, {"rdi": B}, "gone"),
        (22, -8, {"rdi": B}, "gone"),
        (26, -8, {}, "in the slot"),
    ],
)
def test_inside_function_graphs_trampoline_the_caller_is_found(
    offset: int, sp: int, registers: dict[str, int], record: str
) -> None:
    """At its first byte, around its handler, and when the address is in a register or back on the stack."""
    kernel = Kernel(B if record == "in the slot" else 0x5555)
    kernel.graph = [(C, SP + 0x200)] + ([(B, SP + 8)] if record == "listed" else [])
    kernel.taken_back = (B, SP + 8) if record == "taken back" else (0, 0)
    walk = kernel.walk(GRAPH + offset, SP + 16 + sp, **registers)
    assert ips(walk) == [B, C]
    assert {frame.reliable for frame in walk.frames} == {True}


@pytest.mark.parametrize(
    ("offset", "sp", "is_back"), [(0, 0, False), (5, -8, False), (6, -16, False), (11, -16, True), (12, -8, True)]
)
def test_inside_a_rethooks_trampoline_the_caller_is_found(offset: int, sp: int, is_back: bool) -> None:
    """At its first byte the slot may hold anything; behind it the trampoline itself, and in the end the true address."""
    kernel = Kernel(0x5555 if offset == 0 else B if is_back else RETHOOK, rethooks=[] if is_back else [(B, SP + 8)])
    walk = kernel.walk(RETHOOK + offset, SP + 16 + sp)
    assert ips(walk) == [B, C]


def test_a_register_that_is_not_known_stops_the_walk() -> None:
    """The trampoline has the address, but nobody saved the register."""
    walk = Kernel(0x5555).walk(GRAPH + AFTER_HANDLER, SP)
    assert walk.end_reason == ReturnRegisterUnknown("rax")

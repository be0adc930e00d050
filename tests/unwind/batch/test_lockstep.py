"""Walking many stacks together must find what walking each alone finds, or leave it alone."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.target.session import Session
from orcdbg.unwind.batch.equal_stacks import SharedFrames
from orcdbg.unwind.batch.lockstep import Found, Lockstep, Sleeper
from orcdbg.unwind.frame import End, FrameKind
from orcdbg.unwind.starts import switched_out_registers
from orcdbg.unwind.walker import State, Walk, WalkEnd
from orcdbg.x86.registers import PT_REGS
from tests.build.stacks import END, FUNCTION, TEXT, World, call

LAYOUT = {"r15": 0, "r14": 8, "r13": 16, "r12": 24, "rbx": 32, "rbp": 40, "rip": 48}
SIZE, STACK_SIZE = 56, 0x4000
FIRST_STACK = 0xFFFFC90000100000
NEW, ENTRY, BY_BP, SAVES_BP, MOVES_BP = 0, 1, 2, 3, 4
ROWS = {
    NEW: END,
    ENTRY: OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True),
    BY_BP: call(16, OrcRegister.BP, (OrcRegister.PREV_SP, -16)),
    SAVES_BP: call(32, OrcRegister.SP, (OrcRegister.PREV_SP, -24)),
    MOVES_BP: call(24, OrcRegister.SP, (OrcRegister.BP, 8)),
    **{5 + size: call(8 * size) for size in range(1, 8)},
}
USER = {"cs": 0x33, "ss": 0x2B, "rip": 0x401000, "rsp": 0x7FFF0000, "rflags": 0x202, "orig_rax": 202, "rbp": 77}


def address(function: int, offset: int = 0x10) -> int:
    """A return address in a function."""
    return TEXT + function * FUNCTION + offset


@dataclass
class Made:
    """A stack from code: its words by address, and where the task's stack pointer was saved."""

    words: dict[int, int]
    stack: Stack
    sp: int
    is_kernel_thread: bool


def make_stack(number: int, chain: list[int], is_kernel_thread: bool, deeper: int = 0) -> Made:
    """A task asleep below the functions of `chain`, innermost first; `deeper` words lie between its start and its end."""
    begin = FIRST_STACK + number * 0x8000
    end = begin + STACK_SIZE
    functions = [*chain, NEW if is_kernel_thread else ENTRY]
    sizes = [{BY_BP: 48, SAVES_BP: 32, MOVES_BP: 24}.get(f, 8 * (f - 5)) for f in chain]
    top = end - 168 - 8 * deeper
    start = top - sum(sizes) - SIZE
    ends = [start + SIZE + sum(sizes[: n + 1]) for n in range(len(chain))]
    # rbp as each function must find it: that of the next one, itself included, which uses it as a frame pointer.
    bps = [next((ends[i] - 16 for i in range(n, len(chain)) if chain[i] == BY_BP), 77) for n in range(len(chain) + 1)]
    words = {start + 48: address(functions[0]), start + 40: bps[0], start + 32: number}
    for n, function in enumerate(chain):
        words[ends[n] - 8] = address(functions[n + 1])
        if function in (BY_BP, SAVES_BP):
            words[ends[n] - (16 if function == BY_BP else 24)] = bps[n + 1]
    words |= {top + PT_REGS[name]: value for name, value in USER.items()}
    return Made(words, Stack(StackKind.TASK, begin, end), start, is_kernel_thread)


def world_of(stacks: list[Made]) -> World:
    """All stacks in one memory."""
    world = World(ROWS)
    for made in stacks:
        words = [made.words.get(at, 0) for at in range(made.stack.begin, made.stack.end, 8)]
        world.memory.put_words(made.stack.begin, *words)
    return world


def together(world: World, stacks: list[Made]) -> list[Found | None]:
    """All walked together."""
    sleepers = [Sleeper(m.sp, m.stack.begin, m.stack.end, m.is_kernel_thread) for m in stacks]
    return Lockstep(world.terrain(), LAYOUT, SIZE, lambda ip: True).walk(sleepers)


def alone(world: World, made: Made) -> Walk:
    """One walked by the careful walk."""
    values = {name: made.words.get(made.sp + at, 0) for name, at in LAYOUT.items()}
    registers = switched_out_registers(values, made.sp, LAYOUT, made.sp + SIZE)
    state = State(values["rip"], False, registers, FrameKind.CALL, made.sp + SIZE - 8)
    return world.walker([made.stack]).walk(state)


CHAINS = st.lists(st.sampled_from(sorted(set(ROWS) - {NEW, ENTRY, MOVES_BP})), min_size=1, max_size=12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(CHAINS, st.booleans()), min_size=1, max_size=6))
def test_whole_stacks_are_found_together_as_alone(plans: list[tuple[list[int], bool]]) -> None:
    """Whatever functions called each other, with frame pointers saved and used or not: all frames, and none left alone."""
    stacks = [make_stack(number, chain, kernel) for number, (chain, kernel) in enumerate(plans * 2)]
    world = world_of(stacks)
    for made, found in zip(stacks, together(world, stacks), strict=True):
        walk = alone(world, made)
        assert walk.end == (WalkEnd.FIRST_FRAME if made.is_kernel_thread else WalkEnd.USER), walk.end_reason
        assert found is not None
        assert found.end == (End.KTHREAD if made.is_kernel_thread else End.USER)
        assert found.frames == tuple(walk.frames)
        assert tuple(walk.frames) == found.frames


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(set(ROWS) - {NEW, ENTRY})), min_size=1, max_size=8),
    st.integers(0, 60),
    st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([address(f) for f in ROWS]), st.integers(0, 0x4000)),
    st.booleans(),
    st.integers(0, 6),
)
def test_damaged_stacks_are_found_as_alone_or_left_alone(
    chain: list[int], where: int, value: int, kernel: bool, deeper: int
) -> None:
    """One word of a stack is anything: an address of text, of the stack, a small number, or noise."""
    whole, damaged = make_stack(0, chain, kernel), make_stack(1, chain, kernel, deeper)
    at = damaged.sp + 8 * where
    damaged.words[at] = value if value > 0x4000 else damaged.stack.begin + value
    world = world_of([whole, damaged])
    found = together(world, [whole, damaged])[1]
    walk = alone(world, damaged)
    if found is not None:
        assert found.frames == tuple(walk.frames)
        assert {WalkEnd.USER: End.USER, WalkEnd.FIRST_FRAME: End.KTHREAD}[walk.end] == found.end


def test_equal_stacks_share_what_is_equal() -> None:
    """Tasks that came the same way have one shape, whatever their stacks' places and saved registers."""
    stacks = [make_stack(number, [6, 7, 8, SAVES_BP], False) for number in range(5)]
    stacks.append(make_stack(5, [6, 7, 9, SAVES_BP], False))
    found = [one.frames for one in together(world_of(stacks), stacks) if one]
    assert [one.shape is found[0].shape for one in found] == [True] * 5 + [False]
    assert [frames[0].registers["rbx"].value for frames in found] == list(range(6))
    assert [frames.top for frames in found] == [made.stack.end for made in stacks]
    assert found[0].bps() == [frame.bp for frame in found[0][:-1]]


def test_what_needs_care_is_left_to_the_careful_walk() -> None:
    """A missing page, a rewritten return address, a stack pointer elsewhere, a deep sleeper; and a call that is none."""
    stacks = [make_stack(number, [6, 7], False) for number in range(5)]
    stacks[1].words[stacks[1].sp + SIZE] = world_of([]).symbols["return_to_handler"]
    stacks[2].sp = 8
    stacks[3] = make_stack(3, [6, 7], False, 700)
    world = world_of(stacks)
    del world.memory.pieces[stacks[0].stack.begin]
    assert [one is None for one in together(world, stacks)] == [True, True, True, True, False]
    world.follows_call = False
    assert together(world, stacks[4:]) == [None]


def test_the_samples_tasks_are_the_same_together_and_alone(sample: Session) -> None:
    """Every task, running ones and swappers included, in the order asked for."""
    tasks = sample.tasks
    traces = sample.unwinder.traces(tasks)
    assert traces == [sample.unwinder.trace(task) for task in tasks]
    assert sum(isinstance(trace.frames, SharedFrames) for trace in traces) > len(tasks) // 2

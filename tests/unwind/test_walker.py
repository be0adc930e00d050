"""Walks over stacks that the tests build, where the right answer is known by construction."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import BadAddress
from orcdbg.base.reading import BytesSpace
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.orc.effective import Source, TextFrom
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.patches.ledger import PatchLedger
from orcdbg.patches.site import Applied, Spans, WorkingText, make_spans
from orcdbg.unwind.frame import FrameKind, Mark, RegisterValue
from orcdbg.unwind.reasons import InterruptedPointerOffStacks, StackEnteredTwice, Unreadable
from orcdbg.unwind.walker import State, WalkEnd
from orcdbg.views.reasons import words, words_or_none
from orcdbg.x86.registers import PT_REGS
from tests.build.stacks import END, FUNCTION, IRQ, STACK, TEXT, TOP, World, call


@settings(deadline=None)  # the first call of all may wait for a busy machine
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_a_generated_call_chain_unwinds_to_itself(sizes: list[int]) -> None:
    """Functions with frames of any size, each calling the next: every caller is found at its slot."""
    rows = {number: call(8 * size) for number, size in enumerate(sizes)} | {len(sizes): END}
    start = TOP - 168 - 8 * sum(sizes)
    world, sp = World(rows), start
    slots = []
    for number, size in enumerate(sizes):
        sp += 8 * size
        world.words[sp - 8] = TEXT + (number + 1) * FUNCTION + 0x10
        slots.append(sp - 8)
    walk = world.walk(TEXT + 4, start)
    assert [frame.location.symbol for frame in walk.frames if frame.location] == [
        *(f"f{i}" for i in range(len(sizes))),
        "ret_from_fork",
    ]
    assert [frame.return_slot for frame in walk.frames[:-1]] == slots
    assert (walk.end, {frame.reliable for frame in walk.frames}) == (WalkEnd.FIRST_FRAME, {True})


def test_a_frame_pointer_row_reads_the_callers_rbp_where_it_was_saved() -> None:
    """bp+16 with rbp saved at CFA-16: the next frame's rbp is that word, and says so."""
    world = World({0: call(16, OrcRegister.BP, (OrcRegister.PREV_SP, -16)), 1: call(8), 2: END})
    bp = TOP - 0x100
    world.words |= {bp: 0x1234, bp + 8: TEXT + FUNCTION + 5, bp + 16: TEXT + 2 * FUNCTION + 5}
    walk = world.walk(TEXT, bp - 0x50, rbp=bp)
    assert walk.frames[1].registers["rbp"] == RegisterValue(0x1234, f"saved at {bp:#x} by frame #0")
    assert walk.end == WalkEnd.FIRST_FRAME


def test_an_interrupt_crosses_to_the_interrupted_stack() -> None:
    """Saved registers on the IRQ stack lead to the task's, and the interrupted ip is exact."""
    world = World(
        {0: OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True), 1: call(8), 2: END}, (STACK, IRQ)
    )
    at, task_sp = IRQ.end - 0x200, TOP - 0x80
    values = {"rip": TEXT + FUNCTION, "cs": 0x10, "rflags": 0x202, "rsp": task_sp, "ss": 0x18, "rbx": 77}
    world.words |= {at + PT_REGS[name]: value for name, value in values.items()}
    world.words[task_sp] = TEXT + 2 * FUNCTION + 1
    walk = world.walk(TEXT + 9, at)
    assert [(f.kind, f.stack) for f in walk.frames] == [
        (FrameKind.INTERRUPT, StackKind.IRQ),
        (FrameKind.INTERRUPT, StackKind.TASK),
        (FrameKind.CALL, StackKind.TASK),
    ]
    assert walk.frames[1].registers["rbx"].value == 77
    assert walk.frames[1].location is not None
    assert walk.frames[1].location.symbol == "f1"


@pytest.mark.parametrize("below", [8, 0x800, 0x1000, 0x1008])
def test_an_overflown_stack_is_walked_from_the_double_fault(below: int) -> None:
    """The interrupted stack pointer is in the page below the stack; further down it is nobody's."""
    fault = Stack(StackKind.DF, 0xFFFFFE0000001000, 0xFFFFFE0000003000)
    world = World(
        {
            0: OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True),
            1: call(0x2000),
            2: call(0x2000),
            3: END,
        },
        (STACK, fault),
    )
    at, sp = fault.end - 168, STACK.begin - below
    values = {"rip": TEXT + FUNCTION, "cs": 0x10, "rflags": 0x202, "rsp": sp, "ss": 0x18}
    world.words |= {at + PT_REGS[name]: value for name, value in values.items()}
    world.words |= {sp + 0x2000 - 8: TEXT + 2 * FUNCTION + 5, sp + 0x4000 - 8: TEXT + 3 * FUNCTION + 5}
    walk = world.walk(TEXT + 4, at)
    names = [frame.location.symbol for frame in walk.frames if frame.location]
    assert names == (["f0", "f1", "f2", "ret_from_fork"] if below <= 0x1000 else ["f0"])
    if below > 0x1000:
        assert isinstance(walk.end_reason, InterruptedPointerOffStacks)


def test_a_walk_ends_at_user_registers() -> None:
    """A code segment of privilege 3 is the user's; no rule is looked up beyond."""
    world = World({0: OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True)})
    at = TOP - 168
    world.words |= {
        at + PT_REGS["cs"]: 0x33,
        at + PT_REGS["ss"]: 0x2B,
        at + PT_REGS["rip"]: 0x401000,
        at + PT_REGS["rflags"]: 0x202,
    }
    walk = world.walk(TEXT, at)
    assert (walk.frames[-1].kind, walk.frames[-1].ip, walk.end) == (FrameKind.USER, 0x401000, WalkEnd.USER)


def stopped(world: World, sp: int = TOP - 0x100, rbp: int | None = None) -> str:
    """The reason why a walk that must not succeed stopped, and that no frame followed the first."""
    walk = world.walk(TEXT + 4, sp, **({} if rbp is None else {"rbp": rbp}))
    assert walk.end == WalkEnd.STOPPED
    assert len(walk.frames) == 1
    assert walk.end_reason is not None
    return words(walk.end_reason)


def test_a_return_address_outside_text_stops_the_walk() -> None:
    """The word is named, and not shown as a frame."""
    world = World({0: call(16)})
    world.words[TOP - 0x100 + 8] = 0xDEADBEEF
    assert "0xdeadbeef, is not an address of kernel text" in stopped(world)


def test_a_stack_pointer_that_does_not_grow_stops_the_walk() -> None:
    """Otherwise a corrupt stack could be walked for ever."""
    world = World({0: call(0, OrcRegister.BP), 1: call(8)})
    world.words[TOP - 0x208] = TEXT + FUNCTION
    assert "does not move up" in stopped(world, TOP - 0x100, rbp=TOP - 0x200)


def test_a_cfa_off_every_stack_stops_the_walk() -> None:
    """Nothing is read outside the task's own stacks."""
    assert "on none of this task's stacks" in stopped(World({0: call(8, OrcRegister.BP)}), rbp=0xFFFF888000001000)


def test_a_rule_on_an_unknown_register_stops_the_walk() -> None:
    """r10 is known only right above an interrupt."""
    assert "needs r10" in stopped(World({0: call(0, OrcRegister.R10)}))


def test_an_end_of_stack_row_below_the_top_is_no_end() -> None:
    """Entry code has such rows too: there the row only says that nothing is known."""
    assert "not the first frame of a stack" in stopped(World({0: END}))


def test_text_without_a_row_stops_the_walk() -> None:
    """There is no guessing by frame pointer."""
    assert "no ORC row covers" in stopped(World({}))


UNLISTED = 0xFFFFFFFFC0001000


def in_unlisted(world: World, sp: int) -> int:
    """A frame of code that no list names, which f0 called and f1 called; returns its frame pointer."""
    bp = sp + 0x40
    world.memory.put(UNLISTED, bytes(64))
    world.words |= {sp: UNLISTED + 20, bp: 0x1234, bp + 8: TEXT + FUNCTION + 5, bp + 16: TEXT + 2 * FUNCTION + 5}
    return bp


def test_code_that_no_list_names_is_walked_by_frame_pointer_as_a_guess() -> None:
    """As the kernel does; the frames are marked, whether it called or was interrupted."""
    world, sp = World({0: call(8), 1: call(8), 2: END}), TOP - 0x400
    bp = in_unlisted(world, sp)
    walk = world.walk(TEXT + 4, sp, rbp=bp)
    assert [frame.ip for frame in walk.frames[1:]] == [UNLISTED + 20, TEXT + FUNCTION + 5, TEXT + 2 * FUNCTION + 5]
    assert [frame.mark for frame in walk.frames] == [Mark.AS_BUILT, Mark.GUESS, Mark.GUESS, Mark.GUESS]
    assert (walk.frames[1].source, walk.frames[1].rule) == (Source.FRAME_POINTER, "bp+16")
    assert "by frame pointer, which is a guess" in (words_or_none(walk.frames[1].doubt) or "")
    inside = world.walk(UNLISTED + 20, sp + 8, rbp=bp)
    assert [frame.ip for frame in inside.frames] == [frame.ip for frame in walk.frames[1:]]
    assert all(frame.mark == Mark.GUESS for frame in inside.frames[1:])


@pytest.mark.parametrize("missing", ["memory", "a call", "the frame pointer", "place"])
def test_what_cannot_be_such_code_stops_the_walk(missing: str) -> None:
    """Nothing mapped there, no call before it, where code of the kernel never lies; or rbp is not known."""
    world, sp = World({0: call(8), 1: call(8), 2: END}), TOP - 0x400
    bp = in_unlisted(world, sp)
    if missing == "memory":
        del world.memory.pieces[UNLISTED]
    if missing == "place":
        world.words[sp] = bp
    world.follows_call = missing != "a call"
    walk = world.walk(TEXT + 4, sp, **({} if missing == "the frame pointer" else {"rbp": bp}))
    assert walk.end == WalkEnd.STOPPED
    assert [frame.mark for frame in walk.frames] == (
        [Mark.AS_BUILT, Mark.GUESS] if missing == "the frame pointer" else [Mark.AS_BUILT]
    )


def test_an_undefined_row_stops_the_walk() -> None:
    """The kernel's own unwinder gives up there too."""
    assert "undefined" in stopped(
        World({0: OrcRow(OrcRegister.UNDEFINED, 0, OrcRegister.UNDEFINED, 0, RowType.UNDEFINED, False)})
    )


def test_a_rewritten_return_address_stops_the_walk_by_name() -> None:
    """The kernel keeps the true one elsewhere; the trampoline's own row would lead astray."""
    world = World({0: call(16), 0xF0: call(8)})
    world.words[TOP - 0x100 + 8] = TEXT + 0xF000
    assert "was replaced by return_to_handler" in stopped(world)


@pytest.mark.parametrize(("name", "value"), [("cs", 0x1234), ("rflags", 0), ("rsp", 0x1000)])
def test_saved_registers_that_no_cpu_saved_stop_the_walk(name: str, value: int) -> None:
    """A code segment, flags or stack pointer that cannot be is a contradiction, not a frame."""
    world = World({0: OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True), 1: END})
    at = TOP - 0x180
    good = {"rip": TEXT + FUNCTION, "cs": 0x10, "rflags": 0x202, "rsp": TOP - 0x40, "ss": 0x18}
    world.words |= {at + PT_REGS[key]: number for key, number in (good | {name: value}).items()}
    assert "cannot be saved registers" in stopped(world, at)


def test_a_stack_is_not_entered_a_second_time() -> None:
    """Interrupt registers that lead back to a stack the walk has left are a circle."""
    regs = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True)
    world = World({0: regs, 1: regs}, (STACK, IRQ))
    for at, sp in ((IRQ.end - 0x200, TOP - 0x200), (TOP - 0x200, IRQ.end - 0x100)):
        values = {"rip": TEXT + FUNCTION, "cs": 0x10, "rflags": 0x202, "rsp": sp, "ss": 0x18}
        world.words |= {at + PT_REGS[name]: value for name, value in values.items()}
    walk = world.walk(TEXT, IRQ.end - 0x200)
    assert walk.end_reason is not None
    assert isinstance(walk.end_reason, StackEnteredTwice)


def test_a_return_address_that_follows_no_call_is_marked_and_so_is_all_below() -> None:
    """The walk goes on, but none of it is shown as sure."""
    world = World({0: call(8), 1: call(8), 2: call(8), 3: END})
    sp = TOP - 0x400
    world.words |= {sp + 8 * i: TEXT + (i + 1) * FUNCTION + 5 for i in range(3)}
    world.follows_call = False
    walk = world.walk(TEXT, sp)
    assert [frame.mark for frame in walk.frames] == [Mark.AS_BUILT, Mark.GUESS, Mark.GUESS, Mark.GUESS]
    assert all(frame.doubt for frame in walk.frames[1:])


def test_a_stack_page_that_is_missing_keeps_the_frames_before_it() -> None:
    """What can be had is shown, then the reason."""
    world = World({0: call(8), 1: call(8), 2: END}, (STACK,))
    sp = STACK.begin + 0x1000 - 8
    world.words[sp] = TEXT + FUNCTION + 5
    world.walk(TEXT, sp)  # builds the stack's memory
    data = bytes(world.memory.pieces.pop(STACK.begin))
    world.memory.put(STACK.begin, data[:0x1000])
    registers = {"rip": RegisterValue(TEXT, "given"), "rsp": RegisterValue(sp, "given")}
    world.follows_call = None
    walk = world.walker((STACK,)).walk(State(TEXT, True, registers, FrameKind.INTERRUPT, None))
    assert len(walk.frames) == 2
    assert walk.end_reason is not None
    assert isinstance(walk.end_reason, Unreadable)


class PushPop:
    """A pass that put `pushfq; pop %rax` over a call at +0x10 of function 0, as 5.10 does."""

    mechanism = "paravirt"
    code = bytes.fromhex("9c586666906690")

    def spans(self) -> Spans:
        """One site."""
        return make_spans([TEXT + 0x10], [7])

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Writes it."""
        text.write(TEXT + 0x10, self.code)
        return Applied("irq.save_fl", "pv_ops.irq.save_fl = native_save_fl")


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("offset", "adjust"), [(0x10, 0), (0x11, 8), (0x12, 0)])
def test_the_rule_is_corrected_between_patched_push_and_pop_only(offset: int, adjust: int, in_memory: bool) -> None:
    """The case this debugger exists for, also where the text itself is not in the snapshot."""
    world = World({0: call(16), 1: END})
    built = BytesSpace(
        TEXT, bytes.fromhex("ff1425b0146382").rjust(0x17, b"\x90"), lambda a, s: BadAddress("text", a, s)
    )
    world.ledger = PatchLedger([PushPop()], built)
    if in_memory:
        world.memory.put(TEXT + 0x10, PushPop.code)
    sp = TOP - 192
    world.words |= {sp: 0x246, sp + 8: 1, sp + 16: TEXT + FUNCTION + 5}
    if adjust == 0:
        world.words |= {sp + 8: TEXT + FUNCTION + 5}
    walk = world.walk(TEXT + offset, sp)
    first = walk.frames[0]
    assert (first.rule, first.source) == (f"sp+{16 + adjust}", Source.PATCH if adjust else Source.ORC)
    assert first.mark == (Mark.CHANGED if adjust else Mark.AS_BUILT)
    assert walk.end == WalkEnd.FIRST_FRAME
    if adjust:
        assert first.patch is not None
        assert first.patch.instructions == ("pushfq",)
        assert (first.patch.text_from is TextFrom.MEMORY) == in_memory


def test_an_ip_inside_a_patched_instruction_is_a_contradiction() -> None:
    """No row, corrected or not, holds in the middle of an instruction: what follows is not sure."""
    world = World({0: call(16), 1: END})
    built = BytesSpace(
        TEXT, bytes.fromhex("ff1425b0146382").rjust(0x17, b"\x90"), lambda a, s: BadAddress("text", a, s)
    )
    world.ledger = PatchLedger([PushPop()], built)
    world.memory.put(TEXT + 0x10, PushPop.code)
    sp = TOP - 0x400
    world.words |= {sp + 8: TEXT + FUNCTION + 5}
    walk = world.walk(TEXT + 0x13, sp)
    assert [frame.mark for frame in walk.frames] == [Mark.STEP_IN_DOUBT, Mark.GUESS]


@pytest.mark.parametrize(("moves", "end"), [(True, WalkEnd.FIRST_FRAME), (False, WalkEnd.STOPPED)])
def test_the_registers_that_error_entry_saved_are_taken_from_rax(moves: bool, end: WalkEnd) -> None:
    """At `mov %rax,%rsp` after `call error_entry` the row still describes what was before the call."""
    world = World(
        {0: OrcRow(OrcRegister.SP, 8, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True), 1: call(8), 2: END}
    )
    at, task_sp = TOP - 0x180, TOP - 192
    values = {"rip": TEXT + FUNCTION, "cs": 0x10, "rflags": 0x202, "rsp": task_sp, "ss": 0x18}
    world.words |= {at + PT_REGS[name]: value for name, value in values.items()} | {task_sp: TEXT + 2 * FUNCTION + 1}
    world.memory.put(TEXT + 0x10, b"\xe8" + (0x100).to_bytes(4, "little") + (b"\x48\x89\xc4" if moves else b"\x90" * 3))
    world.symbols["error_entry"] = TEXT + 0x15 + 0x100
    walk = world.walk(TEXT + 0x15, at, rax=at)
    assert walk.end == end
    assert (walk.frames[0].mark == Mark.CHANGED) == moves


class Named(World):
    """Function 1 has a name that the walk knows."""

    own_name = ""

    def name(self, number: int) -> str:
        """Its name is what says what may happen there."""
        return self.own_name if number == 1 else super().name(number)


@pytest.mark.parametrize(
    ("name", "frames"),
    [("entry_SYSCALL_64", 2), ("entry_SYSCALL_compat", 2), ("sysret32_from_system_call", 2), ("f1", 1)],
)
def test_the_kernel_may_be_interrupted_with_the_users_stack_pointer(name: str, frames: int) -> None:
    """By an NMI in the first instructions of a system call, or the last; elsewhere such registers were never saved."""
    saved = dict.fromkeys(PT_REGS, 0) | {"rip": TEXT + FUNCTION, "cs": 0x10, "rflags": 2, "rsp": 0x7FFD00001000}
    world = Named({0: OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True), 1: END})
    world.own_name = name
    world.words = {STACK.begin + 0x100 + at: saved[name] for name, at in PT_REGS.items()}
    walk = world.walk(TEXT + 4, STACK.begin + 0x100)
    assert (walk.end, len(walk.frames)) == (WalkEnd.STOPPED, frames)
    assert [(frame.ip, frame.sp) for frame in walk.frames[1:]] == [(saved["rip"], saved["rsp"])] * (frames - 1)


@pytest.mark.parametrize(("name", "marks"), [("__switch_to", " "), ("__switch_to_asm", " "), ("f1", "?")])
def test_a_switch_returns_to_the_first_instruction_of_a_task_that_never_ran(name: str, marks: str) -> None:
    """No call put that address there; from any other function it is in doubt."""
    world = Named({1: call(8), 2: END})
    world.own_name = name
    world.follows_call = False
    sp = TOP - 176
    world.words = {sp: TEXT + 2 * FUNCTION}
    walk = world.walk(TEXT + FUNCTION + 4, sp)
    frame = walk.frames[1]
    assert (frame.mark.value, frame.exact, frame.ip) == (marks, marks == " ", TEXT + 2 * FUNCTION)
    assert (walk.end is WalkEnd.FIRST_FRAME) == (marks == " ")

"""Through which pointer did an indirect call go? Over text that the tests make, and over the sample with changed stacks."""

from __future__ import annotations

import struct

import pytest

from orcdbg.base.errors import BadAddress
from orcdbg.base.reading import BytesSpace
from orcdbg.kernel.names import Location
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Mark, StackTrace
from orcdbg.unwind.judge.pointers import Constants, PointerRead, Pointers
from orcdbg.unwind.reasons import PointerLeadsElsewhere
from orcdbg.unwind.registers.finder import RegisterFinder
from orcdbg.unwind.unwinder import Unwinder
from tests.build.code import MadeKernelCode, branch, nothing
from tests.damage import DamagedStacks, Ground

TEXT = 0xFFFFFFFF81000000
SIZE = 0x40
NAMES = ("f", "f.cold", "g", "__x86_indirect_thunk_array", "__x86_indirect_thunk_r9")
READ = PointerRead("rbx", 0x28)
LOAD, CALL = bytes.fromhex("488b4328"), bytes.fromhex("ffd0")  # mov 0x28(%rbx),%rax; call *%rax
MOVES = bytes.fromhex("4889df89ee")  # mov %rbx,%rdi; mov %ebp,%esi
LOAD_R9 = bytes.fromhex("4c8b4b28")


def locate(address: int) -> Location | None:
    """The made-up function that holds an address."""
    number = (address - TEXT) // SIZE
    return Location(NAMES[number], TEXT + number * SIZE, SIZE, None, True) if 0 <= number < len(NAMES) else None


def start_of(name: str) -> int:
    """Where a made-up function begins."""
    return TEXT + SIZE * NAMES.index(name)


def read_by(code: bytes, cold: bytes = b"", end: int | None = None) -> PointerRead | None:
    """What is said of the call that ends `code`, the beginning of `f`; or of the one that ends at `end`."""
    bodies = {"f": code + b"\xc3", "f.cold": cold}
    text = b"".join(bodies.get(name, b"").ljust(SIZE, b"\x90") for name in NAMES)
    space = BytesSpace(TEXT, text, lambda a, s: BadAddress("text", a, s))
    return Pointers(MadeKernelCode(space, locate)).read_by(TEXT + (len(code) if end is None else end))


def thunk(name: str, at: int) -> bytes:
    """A call of a thunk, `at` bytes into `f`."""
    return branch(b"\xe8", TEXT + at, start_of(name))


CASES: dict[str, tuple[bytes, PointerRead | None]] = {
    "out of the object": (bytes.fromhex("ff5328"), READ),
    "without an offset": (bytes.fromhex("41ff5500"), PointerRead("r13", 0)),
    "below the object": (bytes.fromhex("ff53f8"), PointerRead("rbx", -8)),
    "by a register": (LOAD + CALL, READ),
    "with moves of arguments": (LOAD + MOVES + CALL, READ),
    "by the first thunk": (LOAD + thunk("__x86_indirect_thunk_array", 4), READ),
    "by another thunk": (LOAD_R9 + thunk("__x86_indirect_thunk_r9", 4), READ),
    "a thunk of another register": (LOAD + thunk("__x86_indirect_thunk_r9", 4), None),
    "past a jump that is not taken": (LOAD + b"\x74\x20" + CALL, READ),
    "past a jump that is": (LOAD + b"\xeb\x20" + CALL, None),
    "with a call in between": (LOAD + branch(b"\xe8", TEXT + 4, start_of("g")) + CALL, None),
    "another object by then": (LOAD + bytes.fromhex("4889eb") + CALL, None),
    "an object that gives way to its pointer": (bytes.fromhex("488b5b28ffd3"), PointerRead("rbx", None)),
    "a kept register itself": (bytes.fromhex("41ffd4"), PointerRead("r12", None)),
    "an object in a register that is not kept": (bytes.fromhex("488b4728") + CALL, None),
    "an object on the stack": (bytes.fromhex("ff542428"), None),
    "half of a pointer": (bytes.fromhex("8b4328") + CALL, None),
    "an element of a table": (bytes.fromhex("ff14c500000000"), None),
    "a pointer that was counted on": (LOAD + bytes.fromhex("4883c010") + CALL, None),
    "a direct call": (LOAD + branch(b"\xe8", TEXT + 4, start_of("g")), None),
    "no call": (LOAD + MOVES, None),
    "a loop that begins at the call": (LOAD + CALL + b"\xeb\xfc", None),
    "a jump to anywhere": (b"\x74\x02\xff\xe1" + LOAD + CALL, None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_call_has_its_target_from_where_its_text_says(name: str) -> None:
    """Where every way to the call comes by the load, and the object is in a register that all functions keep."""
    code, expected = CASES[name]
    end = len(LOAD + CALL) if "loop" in name else None
    assert read_by(code, end=end) == expected


def test_a_split_off_part_may_come_back_behind_the_load() -> None:
    """Then nothing is known of the register."""
    code = LOAD + b"\x0f\x84" + struct.pack("<i", start_of("f.cold") - TEXT - 10) + CALL
    back = branch(b"\xe9", start_of("f.cold"), TEXT + 10)
    elsewhere = branch(b"\xe9", start_of("f.cold"), TEXT)
    assert (read_by(code, back), read_by(code, elsewhere)) == (None, READ)


def test_of_two_texts_the_jumps_of_both_count() -> None:
    """What replaced a thunk is no jump to anywhere; a branch that is switched off now may have been taken."""
    jump = b"\x74\x05"  # over the jump out of the function
    built = jump + branch(b"\xe9", TEXT + 2, start_of("__x86_indirect_thunk_array")) + LOAD + CALL + b"\xc3"
    now = jump + b"\xff\xe0\xcc\xcc\xcc" + LOAD + CALL + b"\xc3"
    off = b"\x66\x90" + built[2:]
    into = b"\x74\x09" + built[2:]  # behind the load

    def asked(*texts: bytes) -> PointerRead | None:
        spaces = [BytesSpace(TEXT, text.ljust(SIZE, b"\x90"), lambda a, s: BadAddress("text", a, s)) for text in texts]
        return Pointers(MadeKernelCode(spaces[0], locate, was=spaces[-1])).read_by(TEXT + 13)

    assert [asked(now, built), asked(built), asked(now), asked(off, built)] == [READ, READ, None, READ]
    assert [asked(off, into), asked(into, off)] == [None, None]


def test_only_constants_are_pointers_that_a_call_went_through() -> None:
    """What can be written may have changed since; what is no address of the kernel cannot have been called through."""
    first, last, slide = TEXT + 0x1000, TEXT + 0x1010, 0x2000000
    image = BytesSpace(first, struct.pack("<QQ", TEXT - slide, 7), lambda a, s: BadAddress("image", a, s))
    memory = BytesSpace(first, struct.pack("<Q", TEXT + 8), lambda a, s: BadAddress("memory", a, s))
    bounds = {"__start_rodata": (first, 0), "__end_rodata": (last, 0)}
    code = MadeKernelCode(memory, locate, bounds, was=image, slide=slide)
    constants = Constants(code)
    assert [constants.read(at) for at in (first - 1, first, first + 8, first + 9)] == [None, TEXT + 8, 7, None]
    without = Constants(MadeKernelCode(nothing(), locate, bounds, was=image, slide=slide))
    assert without.read(first) == TEXT
    pointers = Pointers(code)
    assert [pointers.target(READ, value) for value in (first - 0x28, first, 0x28, 1 << 62)] == [TEXT + 8, None, 0, 0]


def sleeper(sample: Session) -> StackTrace:
    """A task of the sample in clock_nanosleep(), which calls by the operations of the clock."""
    traces = [sample.unwinder.trace(task) for task in sample.tasks]
    return next(one for one in traces if any(f.location and f.location.symbol == "common_nsleep" for f in one.frames))


def changed(sample: Session, address: int, value: int) -> Unwinder:
    """Walks over the sample with another word on a stack."""
    data = {address + i: byte for i, byte in enumerate(struct.pack("<Q", value))}
    return Ground(sample).damaged(DamagedStacks(sample.memory, data, set()))


def test_a_look_alike_of_the_called_function_is_marked(sample: Session) -> None:
    """Two functions of one shape, each called indirectly: the clock tells which it was, together and alone."""
    whole = sleeper(sample)
    frame = next(f for f in whole.frames if f.location and f.location.symbol == "common_nsleep")
    task, other = sample.task(whole.task), sample.linux.address("common_nsleep_timens")
    assert frame.came_from is not None
    assert frame.location is not None
    unwinder = changed(sample, frame.came_from, other + frame.ip - frame.location.start)
    trace = unwinder.trace(task)
    assert [f.mark for f in trace.frames[: frame.index]] == [Mark.AS_BUILT] * frame.index
    assert trace.frames[frame.index].mark == Mark.STEP_IN_DOUBT
    doubt = trace.frames[frame.index].doubt
    assert isinstance(doubt, PointerLeadsElsewhere)
    assert (doubt.offset, doubt.register) == (0x30, "r13")
    assert {f.mark for f in trace.frames[frame.index + 1 :]} == {Mark.GUESS}
    assert unwinder.traces([task]) == [trace]


@pytest.mark.parametrize("value", [0x1234, 1 << 62])
def test_a_saved_register_that_cannot_have_been_called_through_is_marked(sample: Session, value: int) -> None:
    """The frame may be right and the register wrong: nobody can tell, so it says that it may be wrong."""
    whole = sleeper(sample)
    frame = next(f for f in whole.frames if f.location and f.location.symbol == "common_nsleep")
    frames = whole.frames[: frame.index + 2]
    saved = RegisterFinder(sample.code, sample.kernel.function_saves).saved(frames, "r13")
    assert saved is not None
    assert saved.slot is not None
    assert saved.value == sample.register_finder.all(whole)[frame.index + 1].values["r13"].value
    unwinder, task = changed(sample, saved.slot, value), sample.task(whole.task)
    trace = unwinder.trace(task)
    assert trace.frames[frame.index].mark == Mark.STEP_IN_DOUBT
    assert unwinder.traces([task]) == [trace]
    assert sample.unwinder.traces([task]) == [whole]

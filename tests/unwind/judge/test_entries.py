"""By which ways can a function be entered? Over text and an image that the tests make."""

from __future__ import annotations

from dataclasses import replace

from orcdbg.base.reading import BytesSource
from orcdbg.image.references import References
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.generated_code import CodeKind, GeneratedCode
from orcdbg.kernel.names import Location
from orcdbg.kernel.ret_stack import Tracer
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.unwind.frame import Frame, FrameKind, Mark, Recovered, RegisterValue
from orcdbg.unwind.judge.calls import Calls
from orcdbg.unwind.reasons import CallLeadsElsewhere, RecordOfOtherFunction, TailCalled
from orcdbg.unwind.true_returns import enters_function
from orcdbg.views.reasons import words
from tests.build.code import MadeKernelCode, branch, made_evidence
from tests.build.elf import Part, image
from tests.build.memory import SparseMemory

TEXT, RODATA, DATA = (0xFFFFFFFF81000000 + 0x100000 * i for i in range(3))
SIZE = 0x40
NAMES = ("caller", "f", "g", "h", "f.cold", "srso_safe_ret", "__x86_indirect_thunk_rax", "ftrace_caller", "end")
RET = b"\xc3"
INDIRECT = b"\xff\xd0"  # call *%rax
STACK = Stack(StackKind.TASK, 0xFFFFC90000010000, 0xFFFFC90000014000)


def start_of(name: str) -> int:
    """Where a made-up function begins."""
    return TEXT + SIZE * NAMES.index(name)


def to(name: str, place: str, opcode: bytes = b"\xe9") -> bytes:
    """A jump to a function, which another begins with."""
    return branch(opcode, start_of(place), start_of(name))


def locate(address: int) -> Location | None:
    """The made-up function that holds an address."""
    number = (address - TEXT) // SIZE
    return Location(NAMES[number], TEXT + number * SIZE, SIZE, None, True) if 0 <= number < len(NAMES) else None


def place_of(name: str) -> Location:
    """A made-up function."""
    place = locate(start_of(name))
    assert place is not None
    return place


def make(bodies: dict[str, bytes], pointers: tuple[str, ...] = ()) -> MadeKernelCode:
    """A kernel of these functions, of which data points to some; the others return at once."""
    text = b"".join(bodies.get(name, RET).ljust(SIZE, b"\xcc") for name in NAMES)
    table = b"".join(start_of(name).to_bytes(8, "little") for name in pointers)
    parts = (
        Part(".text", TEXT, text, flags=6),
        Part(".rodata", RODATA, table.ljust(64, b"\0")),
        Part(".data", DATA, bytes(64)),
    )
    memory = SparseMemory()
    memory.put(TEXT, text)
    return MadeKernelCode(memory, locate, references=References(Image(BytesSource("made", image(parts)))))


def verdict(code: MadeKernelCode, callee: str, return_address: int = TEXT + 2) -> bool | None:
    """Whether the call that the caller begins with can have led there."""
    return Calls(code).leads_to(return_address, place_of(callee))


def test_an_indirect_call_leads_nowhere_that_nothing_points_to() -> None:
    """One that jumps there will do; a function that returns may return from a thunk for any."""
    bodies = {"caller": INDIRECT + RET}
    assert verdict(make(bodies), "f") is False
    assert verdict(make(bodies, ("f",)), "f") is None
    jump = {**bodies, "h": to("f", "h")}
    assert [verdict(make(jump, pointers), "f") for pointers in ((), ("h",), ("g",))] == [False, None, False]
    assert verdict(make(bodies), "srso_safe_ret") is None
    unknown = make(bodies)
    unknown.references = None
    assert verdict(unknown, "f") is None


def test_a_call_of_a_thunk_is_an_indirect_one() -> None:
    """Retpolines are as good as pointers, and as bad."""
    bodies = {
        "caller": to("__x86_indirect_thunk_rax", "caller", b"\xe8") + RET,
        "__x86_indirect_thunk_rax": b"\xff\xe0",
    }
    assert verdict(make(bodies), "f", TEXT + 5) is False
    assert verdict(make(bodies, ("f",)), "f", TEXT + 5) is None


def test_a_function_that_falls_or_jumps_a_short_way_into_the_next_is_a_way_in() -> None:
    """Such jumps have two bytes, and do not name the function in four."""
    for body in (b"\x90" * SIZE, b"\xeb" + bytes([SIZE - 2]) + RET):
        bodies = {"caller": INDIRECT + RET, "g": body}
        assert [verdict(make(bodies, pointers), "h") for pointers in ((), ("g",))] == [False, None]


def test_what_an_indirect_jump_leaves_open_is_closed_where_nothing_points() -> None:
    """The call goes to `f`, which goes on through a pointer."""
    bodies = {"caller": to("f", "caller", b"\xe8") + RET, "f": b"\xff\xe0"}
    assert verdict(make(bodies), "g", TEXT + 5) is False
    assert verdict(make(bodies, ("g",)), "g", TEXT + 5) is None


def test_a_tail_call_is_named_with_its_jumps() -> None:
    """No note is made of a call that enters the function, or a part of it that was split off."""
    calls = Calls(make({"caller": to("f", "caller", b"\xe8") + RET, "f": to("g", "f"), "g": to("h", "g")}))
    note = calls.tail_call(TEXT + 5, place_of("h"))
    assert note == TailCalled("f", "h", (start_of("f"), start_of("g")))
    assert words(note) == (
        f"the call before it enters f, which goes on to h by the jumps at {start_of('f'):#x}, {start_of('g'):#x}"
    )
    assert calls.tail_call(TEXT + 5, place_of("f")) is None
    assert calls.tail_call(TEXT + 5, place_of("f.cold")) is None
    assert calls.tail_call(TEXT + 5, place_of("caller")) is None


def frame(index: int, ip: int, recovered: Recovered | None = None, exact: bool = False) -> Frame:
    """A frame at an address."""
    sp = STACK.begin + 0x100 + 16 * index
    kind = FrameKind.CALL if index else FrameKind.INTERRUPT
    registers = {"rip": RegisterValue(ip, "test"), "rsp": RegisterValue(sp, "test")}
    place = locate(ip if exact else ip - 1)
    return Frame(index, kind, StackKind.TASK, ip, exact, place, registers, recovered=recovered)


def test_a_tracers_record_is_judged_like_a_return_slot() -> None:
    """By the call before its address and by the function that it names; in the trampoline only that is left to judge by."""
    evidence = made_evidence(make({"caller": to("f", "caller", b"\xe8") + RET, "f": to("g", "f")}))

    def judged(inside: str, callee: str | None, has_returned: bool = False) -> Frame:
        recovered = Recovered(Tracer.FGRAPH, 0x1000, None if callee is None else start_of(callee), has_returned)
        frames = [frame(0, start_of(inside) + 1, exact=True), frame(1, TEXT + 5, recovered)]
        return evidence.judge(frames, [STACK], False)[1]

    assert judged("f", "f").mark is Mark.CHANGED
    assert judged("f", None).mark is Mark.CHANGED
    assert judged("g", "f").mark is Mark.CHANGED  # f went on to it
    assert judged("h", "h").doubt == CallLeadsElsewhere(TEXT + 5, "h")
    assert judged("f", "h").doubt == RecordOfOtherFunction(start_of("h"))
    assert judged("end", "f", has_returned=True).mark is Mark.CHANGED
    assert judged("end", "h", has_returned=True).doubt == CallLeadsElsewhere(TEXT + 5, "h")


def test_a_return_that_enters_a_function_is_no_return_address() -> None:
    """From what returns jump to, reached from a retpoline, and from ftrace where a livepatch is; and from nowhere else."""
    code = make({})
    code.calls = False
    inside = {name: frame(0, start_of(name), exact=True) for name in ("srso_safe_ret", "ftrace_caller", "g")}
    entered = {name: enters_function(code, one, start_of("f")) for name, one in inside.items()}
    assert entered == {"srso_safe_ret": True, "ftrace_caller": True, "g": False}
    assert not enters_function(code, inside["ftrace_caller"], start_of("f") + 1)
    assert not enters_function(code, replace(inside["ftrace_caller"], exact=False), start_of("f"))
    code.calls = True
    assert not enters_function(code, inside["ftrace_caller"], start_of("f"))


def test_a_slot_of_a_kprobe_is_decoded_from_its_own_beginning() -> None:
    """Its name is one for the whole page, and what other slots hold may be anything."""
    page = TEXT + 0x10000
    memory = SparseMemory()
    memory.put(page, b"\xe8" * 64 + b"\x41\x54" + branch(b"\xe9", page + 66, TEXT) + bytes(64))
    made = GeneratedCode(CodeKind.KPROBE, page + 64, page + 79, "kprobe_insn_page", "__builtin__kprobes", TEXT, 0, 2)
    name = Location("kprobe_insn_page", page, 0x1000, "__builtin__kprobes", True)
    code = MadeKernelCode(memory, lambda address: name if page <= address < page + 0x1000 else None, made=(made,))
    calls = Calls(code)
    assert [calls.is_boundary(page + 64 + offset) for offset in (0, 1, 2)] == [True, False, True]

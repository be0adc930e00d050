"""Can a call have led into a function? Over text that the tests make, and over the sample."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from orcdbg.base.errors import BadAddress
from orcdbg.base.reading import BytesSpace
from orcdbg.kernel.exception_table import ExceptionTable
from orcdbg.kernel.names import Location
from orcdbg.target.session import Session
from orcdbg.unwind.frame import FrameKind
from orcdbg.unwind.judge.calls import Calls
from tests.build.code import MadeKernelCode, branch, nothing

TEXT = 0xFFFFFFFF81000000
SIZE = 0x40  # bytes that each made-up function has
RET, UD2, INT3, NOP5 = b"\xc3", b"\x0f\x0b", b"\xcc", b"\x0f\x1f\x44\x00\x00"
NAMES = ("caller", "f", "g", "h", "f.cold", "__x86_return_thunk", "__SCT__s", "__fentry__")


def start_of(name: str) -> int:
    """Where a made-up function begins."""
    return TEXT + SIZE * NAMES.index(name)


def to(name: str, place: str, offset: int = 0, opcode: bytes = b"\xe9") -> bytes:
    """A jump at `place` + `offset` to a function."""
    return branch(opcode, start_of(place) + offset, start_of(name))


def make(
    bodies: dict[str, bytes], built: dict[str, bytes] | None = None, faults: ExceptionTable | None = None
) -> Calls:
    """The answers of text in which the caller begins with a call of `f`, at `caller`."""
    first = {"caller": to("f", "caller", 0, b"\xe8") + RET}

    def text(own: dict[str, bytes]) -> BytesSpace:
        parts = [(first | own).get(name, RET).ljust(SIZE, b"\x90") for name in NAMES]
        return BytesSpace(TEXT, b"".join(parts), lambda a, s: BadAddress("text", a, s))

    return Calls(
        MadeKernelCode(text(bodies), locate, was=text(bodies if built is None else built), known_faults=faults)
    )


def locate(address: int) -> Location | None:
    """The made-up function that holds an address."""
    number = (address - TEXT) // SIZE
    return Location(NAMES[number], TEXT + number * SIZE, SIZE, None, True) if 0 <= number < len(NAMES) else None


def verdict(calls: Calls, callee: str, return_address: int = TEXT + 5) -> bool | None:
    """What is said of the call in `caller`."""
    place = locate(start_of(callee))
    assert place is not None
    return calls.leads_to(return_address, place)


CASES: dict[str, tuple[dict[str, bytes], str, bool | None]] = {
    "a direct call": ({}, "f", True),
    "another function": ({}, "g", False),
    "a tail call": ({"f": to("g", "f")}, "g", True),
    "a chain of tail calls": ({"f": to("g", "f"), "g": to("h", "g")}, "h", True),
    "a conditional tail call": ({"f": to("g", "f", 0, b"\x0f\x84") + RET}, "g", True),
    "a chain that leads elsewhere": ({"f": to("g", "f")}, "h", False),
    "jumps in a circle": ({"f": to("g", "f"), "g": to("f", "g")}, "h", False),
    "an indirect jump": ({"f": b"\xff\xe0"}, "g", None),
    "a return by a jump": ({"f": to("__x86_return_thunk", "f")}, "g", False),
    "a function that falls into the next": ({"f": NOP5}, "g", True),
    "one that ends in a call that may not return": ({"f": to("h", "f", 0, b"\xe8").rjust(SIZE, b"\x90")}, "g", True),
    "padding after a return": ({"f": RET + INT3 * 3 + NOP5}, "g", False),
    "the cold part of a function": ({}, "f.cold", True),
    "padding as built": ({"f": to("h", "f", 0, b"\xe8").rjust(SIZE - 3, b"\x90") + INT3 * 3}, "g", False),
    "a function that begins with a call": ({"f": to("h", "f", 0, b"\xe8") + RET}, "g", False),
    "a function that may be traced": ({"f": to("__fentry__", "f", 0, b"\xe8") + RET}, "g", None),
    "the same with ENDBR": ({"f": b"\xf3\x0f\x1e\xfa" + to("__fentry__", "f", 4, b"\xe8") + RET}, "g", None),
    "bytes that are no instructions": ({"f": b"\x06" * SIZE}, "g", None),
    "an indirect call": ({"caller": b"\x90\x90\x90\xff\xd0" + RET}, "g", None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_call_leads_where_its_text_says(name: str) -> None:
    """No only where it is proved."""
    bodies, callee, expected = CASES[name]
    assert verdict(make(bodies), callee) is expected


def test_a_tracer_may_send_the_cpu_anywhere() -> None:
    """A first call that was another as built."""
    traced = {"f": to("h", "f", 0, b"\xe8") + RET}
    assert verdict(make(traced, {"f": to("__fentry__", "f", 0, b"\xe8") + RET}), "g") is None
    assert verdict(make(traced, {"f": NOP5 + RET}), "g") is None


def test_a_probe_may_send_the_cpu_anywhere() -> None:
    """A breakpoint that was not there as built; padding is what was."""
    assert verdict(make({"f": INT3 + RET}, {}), "g") is None


def test_a_patched_call_leads_where_it_does_now_or_as_built() -> None:
    """Both are a yes; to anywhere else it never led."""
    calls = make({}, {"caller": to("h", "caller", 0, b"\xe8") + RET})
    assert (verdict(calls, "f"), verdict(calls, "h"), verdict(calls, "g")) == (True, True, False)
    indirect = make({}, {"caller": b"\x3e\xff\x14\x25\x00" + RET})
    assert (verdict(indirect, "f"), verdict(indirect, "g")) == (True, False)  # paravirt: patched once, at boot


@pytest.mark.parametrize("now", [to("f", "caller", 0, b"\xe8"), NOP5, INT3 + NOP5[1:]])
@pytest.mark.parametrize("name", ["__SCT__s", "__fentry__"])
def test_what_stands_in_for_a_patched_call_leads_nowhere_itself(name: str, now: bytes) -> None:
    """Its call in memory decides; where that is none now, there is nothing to return from."""
    calls = make({"caller": now + RET}, {"caller": to(name, "caller", 0, b"\xe8") + RET})
    is_call, is_being_patched = now[0] == 0xE8, now[0] == 0xCC
    assert verdict(calls, "f") is (True if is_call else None if is_being_patched else False)
    assert verdict(calls, "g") is (None if is_being_patched else False)
    traced = Location("ftrace_caller", start_of("h"), SIZE, None, True)
    assert calls.leads_to(TEXT + 5, traced) is (False if is_call else None)  # tracing may have ended meanwhile


@pytest.mark.parametrize(("now", "lead_to_h"), [(to("h", "__SCT__s"), True), (RET + INT3 * 3, False)])
def test_a_jump_to_a_static_calls_trampoline_goes_where_that_goes_now(now: bytes, lead_to_h: bool) -> None:
    """Not where it went as built: the default is a stand-in too."""
    jump = {"f": to("__SCT__s", "f")}
    calls = make(jump | {"__SCT__s": now}, jump | {"__SCT__s": to("g", "__SCT__s")})
    assert (verdict(calls, "g"), verdict(calls, "h")) == (False, lead_to_h)


class Faults(ExceptionTable):
    """Where made-up faults are continued."""

    def __init__(self, *pairs: tuple[int, int]) -> None:
        columns = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
        self.entries = (columns[:, 0], columns[:, 1])


def test_a_fault_that_is_continued_elsewhere_is_a_way_out() -> None:
    """What runs in 5.10's .fixup belongs to functions elsewhere, whatever symbol comes before it; and it jumps on."""
    bodies = {"caller": to("f", "caller", 0, b"\xe8") + RET, "g": RET + INT3 * 3 + to("h", "g", 4)}
    whole = make(bodies)
    faults = Faults((start_of("f"), start_of("g") + 4), (start_of("f") + 1, start_of("f") + 2))
    landed = make(bodies, faults=faults)
    names = ("f", "g", "h", "caller")
    assert [verdict(whole, name) for name in names] == [True, False, False, False]
    assert [verdict(landed, name) for name in names] == [True, True, True, False]
    assert (whole.ends_call(start_of("g") + 9), landed.ends_call(start_of("g") + 9)) == (False, None)
    assert (whole.ends_call(start_of("h") + 9), landed.ends_call(start_of("h") + 9)) == (False, False)
    beyond = Location("beyond", 2**64 - 16, 32, None, True)
    assert landed.leads_to(TEXT + 5, beyond) is False


def test_a_stack_begins_at_a_function_or_behind_a_far_return() -> None:
    """Such addresses are put there, not called from."""
    calls = make({"caller": b"\x48\xcb" + NOP5 + RET})
    assert [calls.may_begin(TEXT + at) for at in (0, 2, 7)] == [True, True, False]


def test_a_call_into_the_padding_before_a_function_is_a_call_of_it() -> None:
    """Call depth tracking makes such calls."""
    near = branch(b"\xe8", TEXT, start_of("f") - 9) + RET
    calls = make({"caller": near}, {})
    assert (verdict(calls, "f"), verdict(calls, "g")) == (True, False)


def test_text_that_is_missing_leaves_the_question_open() -> None:
    """Nothing is concluded from what is not there."""
    calls = Calls(MadeKernelCode(nothing(TEXT), locate))
    assert verdict(calls, "f") is None
    assert calls.ends_call(TEXT + 5) is None
    assert calls.is_boundary(TEXT + 5) is None


def test_instructions_have_boundaries() -> None:
    """A byte inside of one is none, and only some are ends of calls."""
    calls = make({"caller": b"\x48\xb8\xff\xd0\xff\xd0\xff\xd0\xff\xd0\xff\xd0" + RET})
    assert [calls.is_boundary(TEXT + at) for at in (0, 2, 4, 10, 12, 13)] == [True, False, False, True, True, True]
    assert [calls.ends_call(TEXT + at) for at in (4, 6, 10, 12)] == [False, False, False, True]


def test_no_call_of_the_sample_is_doubted(sample: Session) -> None:
    """And most are proved to lead where they do."""
    calls = Calls(sample.code)
    found = []
    for task in sample.tasks:
        frames = sample.unwinder.trace(task).frames
        pairs = itertools.pairwise(frames)
        found += [calls.leads_to(b.ip, a.location) for a, b in pairs if b.kind == FrameKind.CALL and a.location]
    assert False not in found
    assert found.count(True) > 2 * len(found) // 3


def test_a_small_function_next_to_the_one_that_is_called_is_another(sample: Session) -> None:
    """Padding before a function is its entry too, for patched calls; what ends there is not that function."""
    (called,), (before,) = (sample.names.starts_of(name) for name in ("__put_user_nocheck_4", "__put_user_4"))
    assert called - before < 16
    text = range(sample.linux.address("_stext"), sample.linux.address("_etext"))
    code = sample.memory.read(text.start, len(text))
    distances = np.ndarray((len(code) - 4,), dtype="<i4", buffer=code, strides=(1,))[1:]
    ends = np.arange(text.start + 5, text.start + 5 + len(distances), dtype=np.uint64)
    is_call = np.frombuffer(code, dtype=np.uint8)[: len(distances)] == 0xE8
    (places,) = np.nonzero(is_call & (ends + distances.astype(np.uint64) == called))
    assert len(places)

    calls = sample.kernel.terrain.evidence.calls
    for place in places.tolist():
        callees = [location for start in (called, before) if (location := sample.names.at(start)) is not None]
        assert [calls.leads_to(text.start + place + 5, callee) for callee in callees] == [True, False]

"""Variables of made frames: where they are, what is sure of them, and why a value is not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import BadAddress, OrcdbgError
from orcdbg.base.reading import BytesSource, BytesSpace
from orcdbg.base.reasons import UnknownRegister, WhyNoValue
from orcdbg.formats.elf import ElfFile
from orcdbg.image.compile_units import CompileUnits
from orcdbg.kernel.names import Names
from orcdbg.kernel.stacks import StackKind
from orcdbg.orc.effective import PatchEffect, Source, TextFrom
from orcdbg.patches.code import Code
from orcdbg.patches.site import PatchSite
from orcdbg.typed.dwarf_types import DwarfTypes
from orcdbg.typed.objects import Absent, Immediate, InMemory
from orcdbg.typed.program import Program
from orcdbg.unwind.frame import Frame, FrameKind, RegisterValue
from orcdbg.unwind.registers.finder import KnownRegisters
from orcdbg.variables.frame_state import Debugged
from orcdbg.variables.local_variables import StackVariables, Variable
from tests.build import entries as made
from tests.build.dwarf import TEXT, image_with
from tests.build.kernel import made_linux

SLIDE = 0x200_0000
STACK = 0xFFFF_C900_0000_0000
CFA = STACK + 0x80
# The callee is TEXT to TEXT + 0x40; the caller, behind it, calls it before TEXT + 0x65.
CALLER, RETURN = TEXT + 0x40, TEXT + 0x65


@dataclass
class MadeCode:
    """Memory, and where the call before the return address leads."""

    target: int | None = TEXT + SLIDE
    memory: BytesSpace = field(default_factory=lambda: BytesSpace(STACK, bytes(range(256)), _fault))

    def call_target(self, address: int) -> int | None:
        """The callee, of the one call that there is."""
        return self.target if address == RETURN + SLIDE else None


def _fault(address: int, size: int) -> Exception:
    return BadAddress("kernel", address, size)


def unit() -> tuple[made.Entry, made.Entry, made.Entry, made.Entry]:
    """A unit, its int, the callee and the caller."""
    root = made.Entry(made.COMPILE_UNIT, name="made.c", low_pc=TEXT)
    number = root.add(made.BASE_TYPE, name="int", byte_size=4, encoding=5)
    callee = root.add(
        made.SUBPROGRAM, name="callee", low_pc=TEXT, high_pc=0x40, frame_base=b"\x9c", call_all_calls=True
    )
    caller = root.add(made.SUBPROGRAM, name="caller", low_pc=CALLER, high_pc=0x40, frame_base=b"\x9c")
    return root, number, callee, caller


def frames(**first: object) -> list[Frame]:
    """The callee, at a return address of its own, and the caller."""
    inner = Frame(
        0,
        FrameKind.CALL,
        StackKind.TASK,
        TEXT + 0x10 + SLIDE,
        False,
        None,
        {"rsp": RegisterValue(STACK + 0x40, "made"), "rip": RegisterValue(TEXT + 0x10 + SLIDE, "made")},
        cfa=CFA,
        source=Source.ORC,
    )
    outer = replace(inner, index=1, ip=RETURN + SLIDE, cfa=CFA + 0x40)
    return [replace(inner, **first), outer]  # type: ignore[arg-type]


KNOWN = {"rbx": 0x1122_3344_5566_7788, "rdi": 5}


def stack_of(
    root: made.Entry,
    stack: list[Frame] | None = None,
    code: MadeCode | None = None,
    known: Mapping[str, int] = KNOWN,
    sections: dict[str, bytes] | None = None,
    **others: bytes,
) -> StackVariables:
    """The variables of the two frames."""
    data = image_with(sections or made.sections_of(root, 5, others=others))
    units = CompileUnits(ElfFile(BytesSource("made", data)))
    debugged = Debugged(units, DwarfTypes(units), SLIDE)
    code = code or MadeCode()
    linux = made_linux(code.memory, {})
    values = {name: RegisterValue(value, "made") for name, value in known.items()}
    registers = [KnownRegisters(values, {"r12": UnknownRegister("the step is in doubt", WhyNoValue.DOUBT)})] * 2
    return StackVariables(
        Program(linux, Names(linux)), cast(Code, code), stack or frames(), registers, lambda address: debugged
    )


def the_variable(root: made.Entry, **options: object) -> Variable:
    """The one of the callee."""
    (found,) = stack_of(root, **options).of_frame(0)  # type: ignore[arg-type]
    return found


def why(variable: Variable) -> str:
    """Why it has no value."""
    place = variable.object.place_
    assert isinstance(place, Absent)
    return place.why


@pytest.mark.parametrize(
    ("location", "place"),
    [
        (b"\x91\x70", InMemory(CFA - 16)),
        (b"\x53", Immediate(b"\x88\x77\x66\x55")),
        (b"\x73\x01\x9f", Immediate(b"\x89\x77\x66\x55")),
        (b"\x91\x70\x93\x04", InMemory(CFA - 16)),
        (b"\x53\x93\x02\x91\x70\x93\x02", Immediate(b"\x88\x77\x70\x71")),
        (made.address_expression(TEXT + 0x100), InMemory(TEXT + 0x100 + SLIDE)),
        (b"\x77\x08", InMemory(STACK + 0x48)),
    ],
)
def test_places_of_variables(location: bytes, place: object) -> None:
    """In memory by the CFA, in a register, computed, in pieces, in the image, by the stack pointer."""
    root, number, callee, _ = unit()
    callee.add(made.VARIABLE, name="it", type=number, location=location)
    found = the_variable(root)
    assert (found.name, found.function, found.is_argument, found.is_sure) == ("it", "callee", False, True)
    assert found.object.place_ == place


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, "optimised out"),
        ({"location": b""}, "optimised out"),
        ({"location": b"\x5c"}, "it was in r12: the step is in doubt"),
        ({"location": b"\x51"}, "it was in rdx: a call may have changed it"),
        ({"location": b"\x61"}, "vector register"),
        ({"location": b"\x53\x93\x02\x93\x02"}, "a part of it was optimised out"),
        ({"location": b"\x53\x93\x02"}, "a part of it was optimised out"),
        ({"location": b"\x31\x06\x9f"}, "its location needs memory"),
    ],
)
def test_a_value_that_is_not_there_says_why(attributes: dict[str, bytes], words: str) -> None:
    """And has no number in its place."""
    root, number, callee, _ = unit()
    callee.add(made.VARIABLE, name="it", type=number, **attributes)
    assert words in why(the_variable(root))


def test_a_constant_is_a_value() -> None:
    """A negative one too, which is written in fewer bytes."""
    root, number, callee, _ = unit()
    callee.add(made.VARIABLE, name="it", type=number, const_value=-2)
    assert int(the_variable(root).object) == -2


def test_a_return_address_belongs_to_the_call_before_it() -> None:
    """A list that ends there still holds; one that begins there does not yet."""
    root, number, callee, _ = unit()
    first = b"\x04\x00\x10\x01\x53\x00"
    second = b"\x04\x10\x20\x01\x53\x00"
    callee.add(made.VARIABLE, name="it", type=number, location=made.Offset(0))
    assert isinstance(the_variable(root, loclists=first).object.place_, Immediate)
    assert why(the_variable(root, loclists=second)) == "not kept at this point"
    exact = frames(exact=True, kind=FrameKind.INTERRUPT)
    assert isinstance(the_variable(root, stack=exact, loclists=second).object.place_, Immediate)


def test_variables_of_a_doubtful_frame_are_doubtful() -> None:
    """Wherever their values are."""
    root, number, callee, _ = unit()
    callee.add(made.VARIABLE, name="it", type=number, location=b"\x53")
    assert not the_variable(root, stack=frames(reliable=False)).is_sure


def _patched(**more: object) -> list[Frame]:
    site = PatchSite("paravirt", TEXT + SLIDE, 16, "made", b"", b"", "made", 0)
    return frames(patch=PatchEffect(site, 8, (), None, b"", TextFrom.MEMORY), **more)


def test_the_stack_pointer_is_counted_as_built() -> None:
    """Where patched text has pushed a word more, the build's distances are from above that."""
    root, number, callee, _ = unit()
    callee.add(made.VARIABLE, name="it", type=number, location=b"\x77\x08")
    assert the_variable(root, stack=_patched()).object.place_ == InMemory(STACK + 0x48 + 8)
    derived = frames(source=Source.INSTRUCTIONS)
    assert "not as its build describes it" in why(the_variable(root, stack=derived))


def test_inside_of_patched_instructions_only_lasting_registers_count() -> None:
    """What stands for a call may use the others."""
    root, number, callee, _ = unit()
    callee.add(made.VARIABLE, name="it", type=number, location=b"\x55")
    inside = _patched(exact=True, kind=FrameKind.INTERRUPT)
    assert "patched instructions" in why(the_variable(root, stack=inside))
    assert int(the_variable(root, stack=frames(exact=True, kind=FrameKind.INTERRUPT)).object) == 5


def _with_entry_value() -> tuple[made.Entry, made.Entry, made.Entry]:
    """A callee whose argument is what rdi was at its entry; the caller passes rbx + 1 there."""
    root, number, callee, caller = unit()
    callee.add(made.PARAMETER, name="it", type=number, location=b"\xa3\x01\x55\x9f")
    site = caller.add(made.CALL_SITE, call_return_pc=RETURN)
    site.add(made.CALL_PARAMETER, location=b"\x55", call_value=b"\x73\x01")
    return root, callee, site


def test_what_a_function_was_called_with_is_the_callers_to_say() -> None:
    """By its call site, with the registers of the caller's frame."""
    root, _, _ = _with_entry_value()
    found = the_variable(root)
    assert (int(found.object), found.is_argument, found.is_sure) == (0x5566_7789, True, True)
    doubtful = frames()
    doubtful[1] = replace(doubtful[1], reliable=False)
    assert not the_variable(root, stack=doubtful).is_sure


@pytest.mark.parametrize("target", [None, TEXT + SLIDE + 4, CALLER + SLIDE])
def test_a_call_that_leads_elsewhere_says_nothing(target: int | None) -> None:
    """The function was entered through another, which may have changed the arguments."""
    root, _, _ = _with_entry_value()
    assert "does not call this function directly" in why(the_variable(root, code=MadeCode(target)))


def test_a_function_that_may_enter_itself_anew_says_nothing() -> None:
    """By a tail call of its own, or where the build does not say that all of them are described."""
    root, callee, _ = _with_entry_value()
    callee.add(made.CALL_SITE, call_return_pc=TEXT + 0x20, call_tail_call=True)
    assert "tail call" in why(the_variable(root))
    root, callee, _ = _with_entry_value()
    del callee.attributes["call_all_calls"]
    assert "tail call" in why(the_variable(root))


def test_a_call_site_may_be_silent() -> None:
    """It tells of another register, or of another call."""
    root, _, site = _with_entry_value()
    site.children[0].attributes["location"] = b"\x54"
    assert "does not keep" in why(the_variable(root))
    root, _, site = _with_entry_value()
    site.attributes["call_return_pc"] = RETURN + 1
    assert "does not keep" in why(the_variable(root))


def test_the_innermost_of_a_name_is_meant() -> None:
    """Inlined functions and blocks come before what is around them."""
    root, number, callee, _ = unit()
    abstract = root.add(made.SUBPROGRAM, name="helper")
    callee.add(made.VARIABLE, name="it", type=number, const_value=1)
    inlined = callee.add(made.INLINED, abstract_origin=abstract, low_pc=TEXT + 8, high_pc=0x10)
    inlined.add(made.VARIABLE, name="it", type=number, const_value=2)
    block = inlined.add(made.BLOCK, low_pc=TEXT + 8, high_pc=0x10)
    block.add(made.VARIABLE, name="it", type=number, const_value=3)
    elsewhere = callee.add(made.BLOCK, low_pc=TEXT + 0x30, high_pc=4)
    elsewhere.add(made.VARIABLE, name="it", type=number, const_value=4)
    stack = stack_of(root)
    shown = [(each.function, each.is_inlined, int(each.object)) for each in stack.of_frame(0)]
    assert shown == [("helper", True, 3), ("helper", True, 2), ("callee", False, 1)]
    found = stack.find(0, "it")
    assert found is not None
    assert int(found.object) == 3
    assert stack.find(0, "other") is None


@given(
    st.sampled_from((".debug_info", ".debug_abbrev", ".debug_loclists")),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_gives_variables_or_an_error(section: str, damage: list[tuple[int, int]]) -> None:
    """Any bytes changed anywhere: never another exception, never without end."""
    root, callee, _ = _with_entry_value()
    number = root.children[0]
    callee.add(made.VARIABLE, name="other", type=number, location=made.Offset(0))
    callee.add(made.BLOCK, low_pc=TEXT, high_pc=0x20).add(
        made.VARIABLE, name="inner", type=number, location=b"\x91\x70"
    )
    sections = made.sections_of(root, 5, others={"loclists": b"\x04\x00\x20\x01\x53\x00"})
    data = bytearray(sections[section])
    for place, value in damage:
        data[place % len(data)] = value
    try:
        for variable in stack_of(root, sections={**sections, section: bytes(data)}).of_frame(0):
            if not isinstance(variable.object.place_, Absent):
                variable.object.value_()
    except OrcdbgError:
        pass

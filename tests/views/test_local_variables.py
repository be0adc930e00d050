"""How variables look: under their functions, doubt on a line of its own, a reason in place of a value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orcdbg.base.reasons import WhyNoValue
from orcdbg.commands.local_variables import FrameVariables, ShownVariable
from orcdbg.kernel.stacks import StackKind
from orcdbg.typed.values import Compound, Scalar, ScalarKind
from orcdbg.unwind.frame import Frame, FrameKind
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain

_FRAME = Frame(2, FrameKind.CALL, StackKind.TASK, 0xFFFF_FFFF_8100_0010, False, None, {})
_ONE = ShownVariable("nr", "int nr", True, "outer", False, Scalar(ScalarKind.INT, 7), None, None, None, True)


def found(*variables: ShownVariable, problem: str | None = None) -> FrameVariables:
    """An answer."""
    return FrameVariables(_FRAME, variables, {0xFFFF_FFFF_8200_0000: "init_task"}, problem)


def test_variables_stand_under_their_functions() -> None:
    """An inlined one says that it is."""
    pointer = Scalar(ScalarKind.POINTER, 0xFFFF_FFFF_8200_0000)
    inner = replace(_ONE, name="p", declaration="void *p", function="inner", is_inlined=True, value=pointer)
    assert plain(lines_of(found(inner, _ONE), None)).splitlines()[1:] == [
        "  inlined inner:",
        "    void *p = 0xffffffff82000000 <init_task>",
        "  outer:",
        "    int nr = 7",
    ]


def test_what_is_inlined_in_a_function_of_the_same_name_stands_apart() -> None:
    """The compiler inlines a function in what is left of it elsewhere."""
    lines = plain(lines_of(found(replace(_ONE, is_inlined=True), _ONE), None)).splitlines()[1:]
    assert lines == ["  inlined outer:", "    int nr = 7", "  outer:", "    int nr = 7"]


def test_a_value_that_is_not_there_is_a_reason() -> None:
    """With the place, where it has one."""
    absent = replace(_ONE, value=None, why="optimised out", code=WhyNoValue.OPTIMISED_OUT)
    assert encode(found(absent))["variables"][0]["why_code"] == "optimised-out"
    large = replace(_ONE, value=None, why="5000 bytes", address=0xFFFF_C900_0000_0000)
    text = plain(lines_of(found(absent, large), None))
    assert "int nr = <optimised out>\n" in text
    assert "int nr = <at ffffc90000000000: 5000 bytes>\n" in text


def test_doubt_is_said_at_the_variable() -> None:
    """Nobody has to remember the frame's mark."""
    text = plain(lines_of(found(replace(_ONE, is_sure=False)), None))
    assert text.splitlines()[-1].strip().startswith("? nr: ")
    assert encode(found(replace(_ONE, is_sure=False)))["variables"][0]["reliable"] is False


def test_structures_have_a_line_for_each_member() -> None:
    """As `struct` shows them, and as objects in JSON."""
    value = Compound((("a", Scalar(ScalarKind.INT, 1)), ("b", Scalar(ScalarKind.BOOL, 1))))
    answer = found(replace(_ONE, value=value))
    assert "      a = 1\n      b = true\n" in plain(lines_of(answer, None))
    assert encode(answer)["variables"][0]["value"] == {"a": 1, "b": True}


def test_the_text_behind_a_pointer_stands_in_place_of_what_it_lies_in() -> None:
    """Escaped by what writes lines; where a symbol begins it has both."""
    pointer = Scalar(ScalarKind.POINTER, 0xFFFF_FFFF_8200_0000)
    text = replace(_ONE, declaration="char *s", value=pointer, words={(): '"a\x1b[2J"'})
    assert 'char *s = 0xffffffff82000000 <init_task> "a\\x1b[2J"\n' in plain(lines_of(found(text), None))
    inside = replace(found(text), symbols={0xFFFF_FFFF_8200_0000: "init_task+0x8"})
    assert 'char *s = 0xffffffff82000000 "a\\x1b[2J"\n' in plain(lines_of(inside, None))
    assert encode(inside)["variables"][0]["words"] == {"": '"a\x1b[2J"'}


@pytest.mark.parametrize("problem", ["no debugging information describes this code", None])
def test_nothing_is_not_silence(problem: str | None) -> None:
    """Neither where nothing is known nor where there is nothing."""
    text = plain(lines_of(found(problem=problem), None))
    assert (problem or "none") in text

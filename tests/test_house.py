"""Decisions run on enums and types: what `tests/house.py` finds, and what it leaves alone."""

from __future__ import annotations

import pytest

from tests.house import product_violations, stale_permissions, violations_in

SENTENCES = {
    "compared": "def f(why): return why == 'the return address is in rsi here'",
    "compared with a constant": "_WHY = 'the return address is in rsi'\ndef f(x): return x.words == _WHY",
    "one of several": "_A, _B = 'no call', 'ends here too'\ndef f(x): return x in (_A, _B)",
    "a key": "_IN = {'the return address is in rsi': 'rsi'}\ndef f(x): return x.words in _IN",
    "filled in": "def f(x, ip): return x.words == f'{ip:#x} does not follow a call'",
    "inside": "def f(x): return 'not in the snapshot' in str(x)",
    "its beginning": "def f(x): return x.words.startswith('reached through')",
}
TELLING = {
    "an attribute": "def f(frame): return frame.kind == 'call'",
    "a variable": "def f(status): return status != 'same'",
    "one of several": "def f(walk): return walk.end in ('stopped', 'user')",
    "on the right": "def f(frame): return 'scan' == frame.source",
    "inside": "def f(snapshot): return 'trimmed' in snapshot.format",
    "by a constant": "_STOPPED = 'stopped'\ndef f(walk): return walk.end == _STOPPED",
    "matched": "def f(frame):\n    match frame.kind:\n        case 'call':\n            return 1",
    "its beginning": "def f(frame): return frame.doubt.startswith('reached')",
    "a tuple": "def f(frame): return (frame.ip, frame.kind) == (0, 'call')",
}
ALLOWED = {
    "an enum": "def f(frame): return frame.kind is FrameKind.CALL",
    "a type": "def f(frame): return isinstance(frame.doubt, NoCallBefore)",
    "a symbol": "def f(place): return place.symbol == 'entry_SYSCALL_64'",
    "a section": "def f(section): return section.name in ('.text', '.init.text')",
    "magic": "def f(data): return data.startswith(b'KDUMP   ')",
    "another column": "def f(note): return (note.name, note.type) == ('GNU', 3)",
    "nothing": "def f(frame): return frame.doubt is None or frame.doubt == other.doubt",
    "said, not asked": "def f(frame): return f'on the {frame.stack.value} stack'",
}


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_a_decision_on_a_sentence_is_found(text: str) -> None:
    """However the sentence comes into the comparison."""
    assert [violation.what for violation in violations_in(text)] in (
        ["compared with a sentence"],
        ["looked into for a sentence"],
    )


@pytest.mark.parametrize("text", TELLING.values(), ids=TELLING)
def test_a_string_that_tells_what_a_thing_is_is_found(text: str) -> None:
    """An enum's member belongs there, whose comparison with a string mypy finds."""
    (violation,) = violations_in(text)
    assert violation.what == "a string tells what this is"
    assert str(violation).startswith("planted.py:")


@pytest.mark.parametrize("text", ALLOWED.values(), ids=ALLOWED)
def test_what_decides_by_types_or_compares_real_text_is_left_alone(text: str) -> None:
    """Symbols, sections and magic are text; so is what is printed."""
    assert violations_in(text) == []


def test_the_product_decides_by_types() -> None:
    """And what it is allowed to compare is still there."""
    assert product_violations() == []
    assert stale_permissions() == []

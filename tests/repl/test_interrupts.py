"""Where an interrupt would be lost, since Python prints an exception there and goes on."""

from __future__ import annotations

import sys
import weakref
from types import FrameType

from orcdbg.repl.shell import _is_in_destructor


class Thing:
    """What can be freed, and weakly referred to."""


class Destroyed:
    """What has a destructor."""

    def __del__(self) -> None:
        self.__class__.__doc__ = None


def test_code_that_frees_objects_is_known_as_such() -> None:
    """A destructor, and the callbacks of sets and mappings of weak references; a call of one's own is none."""
    found: dict[str, bool] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            found[frame.f_code.co_qualname] = _is_in_destructor(frame)

    things = [Thing(), Thing(), Thing(), Destroyed()]
    kept = (
        weakref.WeakSet(things[:1]),
        weakref.WeakValueDictionary({1: things[1]}),
        weakref.WeakKeyDictionary({things[2]: 1}),
    )
    sys.setprofile(note)
    try:
        things.clear()
        plainly_called()
    finally:
        sys.setprofile(None)
    assert [len(one) for one in kept] == [0, 0, 0]
    freeing = {name for name, is_freeing in found.items() if is_freeing}
    assert {"WeakSet.__init__.<locals>._remove", "WeakValueDictionary.__init__.<locals>.remove"} <= freeing
    assert {"WeakKeyDictionary.__init__.<locals>.remove", "Destroyed.__del__"} <= freeing
    assert found["plainly_called"] is False


def plainly_called() -> None:
    """No destructor."""

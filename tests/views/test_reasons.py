"""Every reason has words, and no two reasons have the same where they say different things."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import pkgutil
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import orcdbg
from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reasons import Reason
from orcdbg.unwind import reasons as unwind
from orcdbg.views.reasons import message_of, words, words_or_none


def leaves(root: type[Reason] = Reason) -> Iterator[type[Reason]]:
    """All reasons of the product, whichever module they are in."""
    for leaf in root.__subclasses__():
        yield leaf
        yield from leaves(leaf)


for _module in pkgutil.walk_packages(orcdbg.__path__, "orcdbg."):
    if _module.name.endswith("reasons"):
        importlib.import_module(_module.name)

LEAVES = sorted(
    (leaf for leaf in leaves() if leaf.__module__.startswith("orcdbg.")),
    key=lambda leaf: f"{leaf.__module__}.{leaf.__name__}",
)


def values_of(hint: object) -> list[object]:
    """Values of a field's type: all members of an enum, each alternative of a union, one of anything else."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return list(hint)
    if hint is bool:
        return [False, True]
    if hint is int:
        return [0xABC0]
    if hint is str:
        return ["a word"]
    if hint is type(None):
        return []
    if hint is Reason:
        return [unwind.RecordsWithoutSlots()]
    if isinstance(hint, type) and (issubclass(hint, Reason) or dataclasses.is_dataclass(hint)):
        return made(hint)
    if typing.get_origin(hint) is tuple and typing.get_args(hint)[0] is int:
        return [(0xABC0, 0xABC8)]
    if typing.get_origin(hint) is tuple:
        return [((0xABC0, True), (0xABC8, False))]
    return [value for part in typing.get_args(hint) for value in values_of(part)]


def made(kind: Any) -> list[object]:
    """Instances of a reason or dataclass, in which each field takes every value that matters once."""
    hints = typing.get_type_hints(kind)
    names = kind.field_names if issubclass(kind, Reason) else [field.name for field in dataclasses.fields(kind)]
    fields = {name: values_of(hints[name]) for name in names}
    count = max((len(values) for values in fields.values()), default=1)
    return [kind(**{name: values[i % len(values)] for name, values in fields.items()}) for i in range(count)]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_reason_has_words(leaf: type[Reason]) -> None:
    """One sentence without a full stop, with all that its fields say."""
    for reason in made(leaf):
        assert isinstance(reason, Reason)
        said = words(reason)
        assert said
        assert said == said.strip().rstrip(".")
        assert not any(mark in said for mark in ("{", "}", "<", "object at", "None", "\n"))


def test_different_reasons_are_said_differently() -> None:
    """Whoever reads the words can tell which reason it was."""
    instances = {reason for leaf in LEAVES for reason in made(leaf) if isinstance(reason, Reason)}
    assert len(instances) > len(LEAVES)
    said = [words(reason) for reason in instances]
    assert sorted(text for text in said if said.count(text) > 1) == []


def test_equal_facts_make_equal_reasons() -> None:
    """So that stacks which stopped for the same reason are grouped, and a doubt can be looked for."""
    assert unwind.NoCallBefore(1) == unwind.NoCallBefore(1)
    assert unwind.NoCallBefore(1) != unwind.NoCallBefore(2)
    reasons: list[Reason] = [unwind.NoCallBefore(1), unwind.NoCallEndsAt(1)]
    assert reasons[0] != reasons[1]


def test_an_error_goes_on_with_its_reason() -> None:
    """Behind a colon; one without says what it says."""
    assert message_of(OrcdbgError("no frames", reason=unwind.StackGone())) == (
        "no frames: the task has no stack any more (it has exited)"
    )
    assert message_of(OrcdbgError("no frames")) == "no frames"
    assert words_or_none(None) is None

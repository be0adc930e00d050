"""Reasons are values: frozen, told by type and fields, made by position or by name."""

from __future__ import annotations

import pytest

from orcdbg.base.reasons import Reason


class Late(Reason):
    """A reason of two fields."""

    hour: int
    guest: str


class Early(Reason):
    """Another one with the same fields."""

    hour: int
    guest: str


class Absent(Reason):
    """One without fields."""


def test_fields_come_by_position_or_by_name() -> None:
    """In the order of the class."""
    assert Late.field_names == ("hour", "guest")
    assert (Late(1, "a").hour, Late(1, guest="a").guest) == (1, "a")
    assert Late(1, "a") == Late(guest="a", hour=1)
    assert repr(Late(1, "a")) == "Late(hour=1, guest='a')"


def test_type_and_fields_tell_reasons_apart() -> None:
    """As keys of dictionaries too."""
    assert Late(1, "a") != Late(2, "a")
    assert Late(1, "a") != Early(1, "a")
    assert Late(1, "a") != (1, "a")
    assert len({Late(1, "a"), Late(1, "a"), Early(1, "a"), Absent(), Absent()}) == 3


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ((1,), {}), ((1, "a", 2), {}), ((1, "a"), {"hour": 2}), ((1,), {"host": "a"})]
)
def test_missing_and_further_fields_are_refused(values: tuple[object, ...], named: dict[str, object]) -> None:
    """As a function refuses them."""
    kind: type = Late
    with pytest.raises(TypeError, match="Late takes hour, guest"):
        kind(*values, **named)


def test_a_reason_does_not_change() -> None:
    """Frames share them."""
    reason: object = Late(1, "a")
    with pytest.raises(AttributeError, match="frozen"):
        setattr(reason, "hour", 2)  # noqa: B010
    with pytest.raises(AttributeError, match="frozen"):
        delattr(reason, "hour")

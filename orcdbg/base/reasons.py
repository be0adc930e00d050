"""What can be a reason: why something is believed, doubted, or at an end?

A reason is a small frozen value with the facts as fields. Code decides by its type and fields; the words are chosen where
it is shown (`views/reasons.py`), so that a sentence can be said better without changing what any walk does.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, NoReturn, dataclass_transform


@dataclass_transform(frozen_default=True)
class Reason:
    """Root of all reasons. A leaf declares its fields as a dataclass does; equal fields make equal reasons of one type.

    `dataclass(frozen=True, slots=True)` compiles code for each class, 0.4 ms of it: for the 80 reasons that there are, a
    tenth of the time that `bt` of one stack takes. Type checkers see the same.

    Attributes:
        field_names: the fields, in order.
    """

    field_names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        own = (name for name, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar"))
        cls.field_names = (*cls.field_names, *own)

    def __init__(self, *values: object, **named: object) -> None:
        """Takes the fields, by position or by name; TypeError where one is missing or is none."""
        names = self.field_names
        given = dict(zip(names, values, strict=False)) | named
        if len(values) + len(named) != len(names) or given.keys() != set(names):
            raise TypeError(f"{type(self).__name__} takes {', '.join(names) or 'nothing'}")
        self.__dict__.update(given)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self.field_names)))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.field_names)
        return f"{type(self).__name__}({fields})"


class WhyNoValue(enum.Enum):
    """The kinds of reasons; their values are those of the JSON contract."""

    OPTIMISED_OUT = "optimised-out"
    """The build has no place for it, or not for all of it."""
    NOT_KEPT_HERE = "not-kept-here"
    """The build has places for it, and none at this instruction."""
    NOT_SAVED = "not-saved"
    """It was in a register that nothing saved."""
    NOT_AT_START = "not-at-start"
    """A register that is not among those that the walk began with."""
    PATCHED = "patched"
    """Instructions that were patched in may have changed it."""
    NO_CALLER = "no-caller"
    """It was what the caller passed, and the caller does not tell."""
    DOUBT = "doubt"
    """The frame, or the step to it, is in doubt."""
    CONTRADICTION = "contradiction"
    """Two accounts of it differ."""
    NOT_KNOWN = "not-known"
    """What its place counts from is not known."""
    NO_MEMORY = "no-memory"
    """Memory that is needed is not in the snapshot."""
    PER_CPU = "per-cpu"
    """It is one for each CPU."""
    TOO_LARGE = "too-large"
    NOT_UNDERSTOOD = "not-understood"
    """The build's account of it is damaged, or of a kind that orcdbg does not know."""
    NOT_ASKED = "not-asked"
    """Its type alone was asked for, or it has no value."""


@dataclass(frozen=True, slots=True)
class UnknownRegister:
    """Why a register's value is not known: in words, and by its kind."""

    why: str
    code: WhyNoValue

    def __str__(self) -> str:
        return self.why

"""Why is the value of a variable or register not there? In one word, for code; the words beside it are for people."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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

"""What does every command answer with, before it becomes text or JSON?

A command's own result stands in the command's file, and its view in the file of the same name in `orcdbg.views`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orcdbg.base.exit_status import ExitStatus


class Result:
    """What is known, without words and columns: the base of all answers."""

    __slots__ = ()

    @property
    def exit_status(self) -> ExitStatus:
        """The status that a script ends with after this answer, which is printed in any case."""
        return ExitStatus.DONE


class PluginResult(Result):
    """An answer that brings its own views, as those of plug-ins do."""

    __slots__ = ()

    def to_text(self) -> Iterable[str]:
        """Its lines for people."""
        raise NotImplementedError

    def to_json(self) -> Any:
        """Its JSON value for programs."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Nothing(Result):
    """The answer of a command that has nothing to say."""


@dataclass(frozen=True, slots=True)
class NoneFits(Result):
    """The answer where nothing fits what was asked for, and all that was named exists.

    Attributes:
        what: what there are none of, in the plural, such as "tasks".
        answer: the command's own result about none of them, which JSON shows.
        problems: what could not be read, so that there may be some after all.
    """

    what: str
    answer: Result
    problems: Sequence[str] = ()


def own_result(answer: Result) -> Result:
    """A command's own result, also where that is about none of them."""
    return answer.answer if isinstance(answer, NoneFits) else answer


@dataclass(frozen=True, slots=True)
class TextLines(Result):
    """Plain lines, such as help."""

    lines: Sequence[str]

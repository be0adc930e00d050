"""What a value says in the reader's words, and which of its parts are asked for that."""

from __future__ import annotations

from orcdbg.expressions.words import Part, Path, Words, parts_of
from orcdbg.target.session import Session


def test_arrays_of_plain_numbers_have_nothing_to_say(sample: Session) -> None:
    """A task's parts say the same whether or not elements of arrays are among them of which nothing can be said."""
    task = sample.object("task_struct", sample.tasks[0].address)
    value = task.value_()

    whole = list(parts_of(task, value))
    asked = list(parts_of(task, value, plain_numbers=False))
    assert len(asked) < len(whole) / 2

    def said(parts: list[Part]) -> dict[Path, str]:
        words = Words(sample.program)
        return {part.path: text for part in parts if (text := words.of(part)) is not None}

    assert said(asked) == said(whole)
    assert "TASK_RUNNING" in said(whole).values()
    assert ("comm",) in {part.path for part in asked}

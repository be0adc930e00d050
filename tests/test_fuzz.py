"""A little of `python -m tests.fuzz` in every run: a new seed each time, named when it fails."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import make_formats, run


@pytest.mark.parametrize("name", list(make_formats()))
def test_damaged_files_end_in_answers_or_named_errors(name: str) -> None:
    """Nothing but an OrcdbgError comes out, whatever the bytes."""
    endings, wrong = run(name, 150, random.SystemRandom().randrange(1 << 32))
    assert wrong == []
    assert endings["answers"] > 0
    assert len(endings) > 1

"""A few cases of `python -m tests.fuzz_images` in every run, with a new seed each time."""

from __future__ import annotations

import random

import pytest

from tests.fuzz_images import FORMATS, run


@pytest.mark.parametrize("name", FORMATS)
def test_damage_gives_an_answer_or_an_error(name: str) -> None:
    """Both happen; anything else names its case."""
    endings, wrong = run(name, 80, random.SystemRandom().randrange(1 << 32))
    assert wrong == []
    assert endings["answers"] > 0
    assert len(endings) > 1

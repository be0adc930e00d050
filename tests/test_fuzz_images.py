"""A few cases of `python -m tests.fuzz_images` in every run, with a new seed each time."""

from __future__ import annotations

import random

import pytest

from tests.fuzz_images import FORMATS, run


@pytest.mark.parametrize("name", FORMATS)
def test_damage_gives_an_answer_or_an_error(name: str) -> None:
    """Both happen; anything else names its case."""
    seed = random.SystemRandom().randrange(1 << 32)
    seen = run(name, 80, seed)
    assert seen["answers"] and seen["errors"], seed

"""A few cases of `python -m tests.fuzz_images` in every run, with a new seed each time, and a few that hypothesis makes.

`ORCDBG_FUZZ_EXAMPLES=100000 pytest tests/test_fuzz_images.py -k hypothesis` has more of the latter.
"""

from __future__ import annotations

import functools
import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError
from tests.fuzz_case import Format, clock
from tests.fuzz_images import FORMATS, run

EXAMPLES = int(os.environ.get("ORCDBG_FUZZ_EXAMPLES", "25"))
# Where, how many bytes go, and what comes in their place.
EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 16), st.binary(max_size=16)), min_size=1, max_size=4)

form = functools.cache(lambda name: FORMATS[name]())


@pytest.mark.parametrize("name", FORMATS)
def test_damage_gives_an_answer_or_an_error(name: str) -> None:
    """Both happen; anything else names its case."""
    # One copy of a journal in twenty has an answer: of 80 copies none had in one run of forty.
    endings, wrong = run(name, 400, random.SystemRandom().randrange(1 << 32))
    assert wrong == []
    assert endings["answers"] > 0
    assert len(endings) > 1


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EDITS)
def test_edits_by_hypothesis_do_too(name: str, edits: list[tuple[int, int, bytes]]) -> None:
    """With the least of them that goes wrong."""
    made: Format = form(name)
    data = bytearray(made.whole)
    for place, gone, new in edits:
        at = place % (len(data) + 1)
        data[at : at + gone] = new
    try:
        with clock():
            made.attempt(bytes(data))
    except OrcdbgError:
        return

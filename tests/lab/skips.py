"""What is skipped where a kernel or the emulator cannot be had, and with which words?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.apt import Unavailable


@contextmanager
def skipped_if_unavailable(what: str) -> Iterator[None]:
    """The test ends as skipped, with the reason, where something in the block is not to be had."""
    try:
        yield
    except Unavailable as error:
        pytest.skip(f"{what}: {error}")

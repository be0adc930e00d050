"""Damaged lists and trees of real kernels: red-black trees, xarrays, maple trees and hash chains too."""

from __future__ import annotations

import random

import pytest

from tests.damaged_links import run
from tests.lab.conftest import OpenScene
from tests.lab.draw import SEED, kernels_of

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("words of crash"))]

KINDS = {"list", "list command", "hlist", "rbtree", "xarray"}


def test_a_damaged_link_is_told(kernel: str, open_scene: OpenScene) -> None:
    """Wherever other nodes are reached than before, there is a problem, or nothing could tell."""
    session = open_scene(kernel, "words")[1]
    tally = run(session, 3000, random.Random(SEED))
    print(f"{kernel}: {sum(tally.told.values())} told, {dict(tally.excused)}")
    assert tally.silent == []
    assert {what.partition(":")[0] for what in tally.told} >= KINDS

"""Which scenes do the lab's tests look at: one of each kind and kernel, made anew for a seed that changes with every run."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

import orcdbg
from orcdbg.session import Session
from tests.lab.apt import Unavailable
from tests.lab.fetch import RELEASES
from tests.lab.scenes import SCENES, Scene

SEED_VARIABLE = "ORCDBG_LAB_SEED"
KERNELS = tuple(RELEASES)
_SEED = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(1_000_000))

FindScene = Callable[[str, str], Scene]
OpenScene = Callable[[str, str], tuple[Scene, Session]]


def pytest_report_header() -> str:
    """The seed, so that a run can be repeated."""
    return f"lab seed: {_SEED} (repeat with {SEED_VARIABLE}={_SEED})"


@pytest.fixture(scope="session")
def seed() -> int:
    """This run's seed."""
    return _SEED


@pytest.fixture(scope="session")
def find_scene(seed: int) -> FindScene:
    """A scene by kernel and name; a skip with its reason where kernel or emulator cannot be had."""
    made: dict[tuple[str, str], Scene] = {}

    def find(kernel: str, name: str) -> Scene:
        if (kernel, name) not in made:
            try:
                made[kernel, name] = SCENES[name](kernel, seed)
            except Unavailable as error:
                pytest.skip(f"{kernel} {name}: {error}")
        return made[kernel, name]

    return find


@pytest.fixture(scope="session")
def open_scene(find_scene: FindScene) -> OpenScene:
    """A scene and the session over it."""
    opened: dict[tuple[str, str], Session] = {}

    def find(kernel: str, name: str) -> tuple[Scene, Session]:
        scene = find_scene(kernel, name)
        if (kernel, name) not in opened:
            opened[kernel, name] = orcdbg.open(scene.vmlinux, scene.snapshot)
        return scene, opened[kernel, name]

    return find

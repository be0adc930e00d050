"""Which scenes do the lab's tests look at: one of each kind and kernel, made anew for a seed that changes with every run.

A test that fails says how it is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

import orcdbg
from orcdbg.target.session import Session
from tests.lab.boots import BOOTS, DEADLY
from tests.lab.campaign_loads import account_of_drawn_loads
from tests.lab.deaths import account_of_deaths, note_death
from tests.lab.draw import BOOTS_VARIABLE, SEED, account_of_draws, draw
from tests.lab.draw import KERNELS as KERNELS
from tests.lab.driven import driver
from tests.lab.failures import ASKED, SEED_VARIABLE, AskedScene, account
from tests.lab.guest import GuestError
from tests.lab.memory_accounts import memory_accounts
from tests.lab.recorded import recorded
from tests.lab.scenes import SCENES, Scene
from tests.lab.shares import packed, unpack
from tests.lab.skips import skipped_if_unavailable
from tests.lab.tallies import account_of_campaign
from tests.lab.words import words

_SEED = SEED

BOOTS_PER_KERNEL = 3


def _choose_boots() -> list[tuple[str, str]]:
    """Kernel and kind of the boots that this run audits: all when asked to, else some that the seed chooses.

    None that is known to kill its guest.
    """
    living = {kernel: [how for how in BOOTS if (kernel, how) not in DEADLY] for kernel in KERNELS}
    return [(kernel, how) for kernel in KERNELS for how in draw(f"boots {kernel}", living[kernel], BOOTS_PER_KERNEL)]


CHOSEN_BOOTS = _choose_boots()
HAS_GUESTS = pytest.StashKey[bool]()
_COUNTED = "orcdbg lab"

MakeScene = Callable[[str, int], Scene]
FindScene = Callable[[str, str], Scene]
OpenScene = Callable[[str, str], tuple[Scene, Session]]


def pytest_report_header() -> list[str]:
    """The seed, so that a run can be repeated, and which boots it chose."""
    boots = ", ".join(f"{kernel} {how}" for kernel, how in CHOSEN_BOOTS)
    return [
        f"lab seed: {_SEED} (repeat with {SEED_VARIABLE}={_SEED})",
        f"lab boots: {boots} (all {len(KERNELS) * len(BOOTS) - len(DEADLY)} with {BOOTS_VARIABLE}=all)",
        *account_of_draws(),
        *account_of_drawn_loads(),
        *(f"lab boots left out: {kernel} {how}: {why}" for (kernel, how), why in DEADLY.items()),
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How many guests died in this run, and of what: also where every test passed."""
    if config.stash.get(HAS_GUESTS, False):
        terminalreporter.section("guests of the lab")
        for line in account_of_deaths():
            terminalreporter.write_line(line)
    campaign = list(account_of_campaign())
    if campaign:
        terminalreporter.section("campaign")
        for line in campaign:
            terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """What a process that has a share of the tests counted goes to the one that ends the run."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_COUNTED] = packed(session.config.stash.get(HAS_GUESTS, False))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Counts what a process with a share of the tests has counted; one that died has nothing to say."""
    counted = getattr(node, "workeroutput", {}).get(_COUNTED)
    if counted is not None:
        has_guests = unpack(counted)
        node.config.stash[HAS_GUESTS] = has_guests or node.config.stash.get(HAS_GUESTS, False)


@pytest.fixture(scope="session")
def seed() -> int:
    """This run's seed."""
    return _SEED


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """No scene has been asked for yet; a test of the lab will have guests."""
    item.config.stash[ASKED] = []
    if item.get_closest_marker("lab"):
        item.config.stash[HAS_GUESTS] = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test on a guest that fails says on which, and how it is repeated."""
    report = yield
    if report.failed and item.get_closest_marker("lab"):
        error = call.excinfo.value if call.excinfo else None
        report.sections.append(("How to repeat this", account(item, _SEED, error)))
    return report


@pytest.fixture(scope="session")
def scene_makers() -> Mapping[str, MakeScene]:
    """What makes the scene of a name, from kernel and seed; of all tests, which share the scenes that one run has made."""
    return {**SCENES, "memory": memory_accounts, "words": words, "recorded": recorded, "driver": driver}


def _make(maker: MakeScene, kernel: str, name: str, seed: int) -> Scene:
    """A scene of this seed, or of the next where the guest died in the emulator."""
    try:
        return maker(kernel, seed)
    except GuestError as error:
        note_death(f"{kernel} {name}, now with seed {seed + 1}", str(error))
        return maker(kernel, seed + 1)


@pytest.fixture(scope="session")
def find_scene(seed: int, scene_makers: Mapping[str, MakeScene], pytestconfig: pytest.Config) -> FindScene:
    """A scene by kernel and name; a skip with its reason where kernel or emulator cannot be had."""
    made: dict[tuple[str, str], Scene] = {}

    def find(kernel: str, name: str) -> Scene:
        asked = pytestconfig.stash[ASKED]
        if (kernel, name) not in made:
            asked.append(AskedScene(kernel, name, None))
            with skipped_if_unavailable(f"{kernel} {name}"):
                made[kernel, name] = _make(scene_makers[name], kernel, name, seed)
            asked.pop()
        scene = AskedScene(kernel, name, made[kernel, name])
        if scene not in asked:
            asked.append(scene)
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

"""Stops at random of busy guests, and single words of damage: no frame that is shown as sure is wrong, and none is left out.

`make lab` runs a part that its seed draws. `make campaign` runs all of it, for long, and prints the counts.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from tests.lab import scripts
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.campaign_loads import DRAWN_LOADS, LOADS, write_init
from tests.lab.conftest import OpenScene
from tests.lab.damage import Damager, damage_words
from tests.lab.draw import CAMPAIGN_SECONDS, KERNELS
from tests.lab.fetch import ensure
from tests.lab.live import open_live
from tests.lab.skips import skipped_if_unavailable
from tests.lab.stops import StoppedGuest, Stops
from tests.lab.tallies import DAMAGE, TALLIES, Tally

pytestmark = pytest.mark.lab

SECONDS = CAMPAIGN_SECONDS or 12.0  # with each guest
WORDS = 2000 if CAMPAIGN_SECONDS else 150  # of each scene


@pytest.mark.parametrize(("kernel", "name"), DRAWN_LOADS)
@on_a_living_guest
def test_at_any_stop_of_a_busy_guest_no_sure_frame_is_wrong(kernel: str, name: str, seed: int, tmp_path: Path) -> None:
    """Stepped from there each call and return changes one frame; predicted returns come; single words of damage are marked."""
    load, random, tally = LOADS[name], Random(f"{kernel} {name} {seed}"), Tally()
    with skipped_if_unavailable(kernel):
        files = load.files(ensure(kernel))
    guest = busy_guest(
        kernel,
        random,
        tmp_path,
        load.append,
        smp=load.smp,
        init=write_init(load, random),
        files=files,
        cpu=load.cpu,
    )
    with guest as (running, found, console), running.stub() as stub:
        opened = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        live = StoppedGuest(opened.stub, opened.session, load.smp)
        try:
            Stops(live, random, tally, load, running).run(time.monotonic() + SECONDS)
        finally:
            TALLIES.setdefault(f"{kernel} {name}", Tally()).add(tally)
            print("\n".join([f"{kernel} {name}", *tally.lines(), *tally.damage.lines(), *tally.damage.wrong]))
    assert tally.damage.wrong == []
    assert tally.stops


@pytest.mark.parametrize("scene", ["idle", "nmi"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_one_damaged_word_leaves_no_wrong_frame_without_a_mark(
    kernel: str, scene: str, seed: int, open_scene: OpenScene
) -> None:
    """Nor a caller that is missing in silence, but for what is of a named class: it cannot be told from the truth."""
    _, session = open_scene(kernel, scene)
    damager = Damager(session.kernel, session.kernel.cpus, Random(f"{kernel} {scene} {seed}"))
    walks = [walk for task in session.tasks if (walk := damager.undamaged(task.address)) is not None]
    account = damage_words(damager, walks, WORDS)
    DAMAGE[f"{kernel} {scene}"] = account
    print("\n".join([f"{kernel} {scene}", *account.lines(), *account.wrong]))
    assert account.wrong == []

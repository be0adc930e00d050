"""Kernels that died of something known: `analyze` says what the module said that it would do, and of which object.

A run has two kinds of death, drawn by its seed, each on a kernel drawn; ORCDBG_LAB_KERNELS=all has all kinds on all kernels.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

import orcdbg
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.views.as_json import encode
from tests.lab.conftest import KERNELS, FindScene
from tests.lab.draw import KERNELS_VARIABLE, SEED
from tests.lab.fatal_scenes import KINDS, UNNOTICED, fatal, told
from tests.lab.skips import skipped_if_unavailable

pytestmark = pytest.mark.lab

CAUSES = {
    "null": "null-pointer",
    "wild": "wild-pointer",
    "gp": "non-canonical-address",
    "callnull": "call-through-bad-pointer",
    "callwild": "call-through-bad-pointer",
    "uaf": "use-after-free",
    "poisoned": "use-after-free",
    "doublefree": "double-free",
    "overrun": "non-canonical-address",
    "listdel": "list-corruption",
    "listadd": "list-corruption",
    "bug": "bug",
    "warn": "warning",
    "refcount": "refcount",
    "overflow": "stack-overflow",
    "smash": "stack-smashed",
    "divide": "divide-error",
    "softlockup": "soft-lockup",
    "stall": "rcu-stall",
    "hung": "hung-task",
    "panic": "panic-called",
    "oom": "out-of-memory",
    "timer": "null-pointer",
    "text": "changed-text",
    "sysrq": "sysrq",
    "survived": "oops-in-log",
}
# What the module names that the analysis must name as well, at whatever certainty.
OBJECTS = {
    **dict.fromkeys(("wild", "gp", "callwild"), "pointer"),
    **dict.fromkeys(("uaf", "poisoned", "doublefree", "overrun", "listdel", "listadd"), "object"),
    "text": "text",
}
FUNCTIONS = {
    "null": "orcfatal_fill",
    "timer": "orcfatal_fill",
    "callnull": "orcfatal_kick",
    "smash": "orcfatal_smash",
    "overflow": "orcfatal_recurse",
    "softlockup": "orcfatal_spin",
    "stall": "orcfatal_stall",
    "divide": "orcfatal_share",
    "hung": "orcfatal_hang",
}


def _drawn() -> list[tuple[str, str]]:
    everything = [(kernel, how) for kernel in KERNELS for how in KINDS if (kernel, how) not in UNNOTICED]
    if os.environ.get(KERNELS_VARIABLE) == "all":
        return everything
    chosen = random.Random(f"{SEED} deaths")
    kinds = chosen.sample(list(KINDS), 2)
    return [chosen.choice([pair for pair in everything if pair[1] == how]) for how in kinds]


def analysis_of(vmlinux: Path, snapshot: Path) -> dict[str, Any]:
    """The answer's JSON."""
    found: dict[str, Any] = encode(standard_commands().run(Debugger(orcdbg.open(vmlinux, snapshot)), "analyze"))
    return found


def test_every_kind_has_a_cause() -> None:
    """No death is made that this file does not hold the analysis to."""
    assert set(CAUSES) == set(KINDS)


@pytest.mark.parametrize(("kernel", "how"), _drawn())
def test_the_cause_is_what_the_module_did(kernel: str, how: str, seed: int, tmp_path: Path) -> None:
    """Its kind, the object or address that the module named, and its function in the signature."""
    with skipped_if_unavailable(f"{kernel} {how}"):
        scene = fatal(kernel, how, seed, tmp_path)
    words, found = told(scene), analysis_of(scene.vmlinux, scene.snapshot)
    assert found["cause"] is not None, found
    assert found["cause"]["kind"] == CAUSES[how], found

    stated = [*found["findings"], *(one for point in found["head"].values() for one in point)]
    if how in OBJECTS:
        address = int(words[OBJECTS[how]], 16)
        assert any(hex(address) in (*one["addresses"], *one["text"].split()) for one in stated), (words, stated)
    if how in FUNCTIONS:
        assert f"{FUNCTIONS[how]} [orcfatal]" in found["signature"]
    (tmp_path / "core").unlink()


@pytest.mark.parametrize("kernel", KERNELS)
def test_of_a_kernel_that_lives_nothing_is_found(kernel: str, find_scene: FindScene) -> None:
    """It says so, and has no cause and no signature."""
    scene = find_scene(kernel, "idle")
    found = analysis_of(scene.vmlinux, scene.snapshot)
    assert (found["title"], found["cause"], found["signature"]) == ("no panic or oops is recorded", None, None)
    assert (found["findings"], found["unknown"]) == ([], [])

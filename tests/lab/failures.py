"""What does a failed test of the lab say, so that somebody else can repeat it: which guest, which seed, which command?"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.lab.guest import GuestError
from tests.lab.scenes import Scene

SEED_VARIABLE = "ORCDBG_LAB_SEED"
VARIABLES = "ORCDBG_LAB_"
CONSOLE_LINES = 20

# The cache's place decides nothing of what a test does, and is another on another machine.
_OF_THIS_MACHINE = ("ORCDBG_LAB_CACHE",)


class Difference(AssertionError):
    """Two accounts of one machine differ, an emulated CPU and the guest's say. Never a reason to begin anew."""


@dataclass(frozen=True, slots=True)
class AskedScene:
    """A scene that a test asked for; `made` is None where no guest came so far."""

    kernel: str
    name: str
    made: Scene | None


ASKED = pytest.StashKey[list[AskedScene]]()


def repeat_with(node: str, seed: int, environment: Mapping[str, str]) -> tuple[str, str]:
    """The shell commands that run a test again, and the whole lab, with the seed and the lab's other settings."""
    settings = {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(VARIABLES) and name not in (SEED_VARIABLE, *_OF_THIS_MACHINE)
    }
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in {SEED_VARIABLE: str(seed), **settings}.items())
    return f"{words} .venv/bin/pytest -m lab {shlex.quote(node)}", f"{words} make lab"


def scenes_of(item: pytest.Item) -> list[AskedScene]:
    """The scenes that the test asked for, and those that its fixtures brought from an earlier test."""
    asked = item.config.stash[ASKED].copy()
    known = [scene.made for scene in asked]
    for value in getattr(item, "funcargs", {}).values():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Scene) and part not in known:
                asked.append(AskedScene(part.kernel, part.name, part))
    return asked


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and the errors that it came from; the newest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def last_words(error: BaseException | None) -> list[str]:
    """The last lines of the guest whose failure caused the error; none where no guest's did."""
    console = next((cause.console for cause in causes(error) if isinstance(cause, GuestError) and cause.console), "")
    lines = console.splitlines()[-CONSOLE_LINES:]
    return ["".join(char if char.isprintable() else "?" for char in line) for line in lines]


def account(item: pytest.Item, seed: int, error: BaseException | None) -> str:
    """The lines below a failed test: its parameters, its scenes, the seed, the commands, and the guest's last words."""
    callspec = getattr(item, "callspec", None)
    lines = [f"{name}: {value}" for name, value in (callspec.params if callspec else {}).items()]
    for scene in scenes_of(item):
        lines.append(f"scene: {_described(scene)}")
    one, whole = repeat_with(item.nodeid, seed, os.environ)
    lines += [f"seed: {seed}", f"this test again: {one}", f"the whole lab again: {whole}"]
    words = last_words(error)
    if words:
        lines += ["the guest's last lines:", *(f"    {line}" for line in words)]
    return "\n".join(lines)


def _described(scene: AskedScene) -> str:
    if scene.made is None:
        return f"{scene.kernel} {scene.name}, which was not made"
    files = f"orcdbg {shlex.quote(str(scene.made.vmlinux))} {shlex.quote(str(scene.made.snapshot))}"
    return f"{scene.kernel} {scene.name} of seed {scene.made.seed}: {files}"

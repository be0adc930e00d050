"""A test of the lab that fails says which guest, which seed and which command: a failing file, run by another pytest.

No guest runs here.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.failures import repeat_with
from tests.lab.guest import Guest, GuestError, Machine

ROOT = Path(__file__).parents[2]
FAILING = """
from pathlib import Path

import pytest

from tests.lab.guest import GuestError
from tests.lab.scenes import Scene

pytestmark = pytest.mark.lab


def make(kernel, seed):
    return Scene(kernel, "nmi", seed, Path("its vmlinux"), Path("its core"), Path("log"), {}, False)


def make_in_vain(kernel, seed):
    error = GuestError(f"seed {seed} died")
    error.console = "\\n".join(f"line {number} of seed {seed}" for number in range(100)) + "\\nthe\\x1bend"
    raise error


@pytest.fixture(scope="session")
def scene_makers():
    return {"nmi": make, "dead": make_in_vain}


@pytest.mark.parametrize("kernel", ["6.1"])
def test_wrong(kernel, find_scene):
    find_scene(kernel, "nmi")
    find_scene(kernel, "nmi")
    assert kernel == "7.2"


@pytest.mark.parametrize("kernel", ["5.10"])
def test_dead(kernel, find_scene):
    find_scene(kernel, "dead")


@pytest.fixture
def broken():
    raise GuestError("before the test")


def test_not_begun(broken):
    pass


@pytest.fixture(scope="module")
def lent():
    return make("7.2", 5), "its session"


def test_lent(lent):
    assert False


def test_right(find_scene):
    find_scene("6.12", "nmi")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the failing file is."""
    path = tmp_path_factory.mktemp("failing")
    (path / "test_made.py").write_text(FAILING, encoding="utf-8")
    return path


def run(folder: Path, *words: str, **settings: str) -> str:
    """What pytest prints of the failing file, with the lab's conftest."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORCDBG_LAB_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "setup.cfg"), f"--rootdir={folder}"]
    command += ["-p", "tests.lab.conftest", "-p", "no:cacheprovider", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | settings, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sections(folder: Path) -> dict[str, list[str]]:
    """The lines about the guest, by the name of the failed test."""
    found: dict[str, list[str]] = {}
    for part in run(folder, str(folder), ORCDBG_LAB_SEED="77", ORCDBG_LAB_BOOTS="all", ORCDBG_LAB_CACHE="here").split(
        "\n____"
    ):
        _, mark, section = part.partition("How to repeat this")
        if mark:
            name = next(word for word in part.replace("[", " ").split() if word.startswith("test_"))
            found[name] = section.splitlines()[1:]
    return found


def test_only_what_failed_is_accounted_for(sections: dict[str, list[str]]) -> None:
    """Not the test that passed; and a test that a fixture kept from its beginning is."""
    assert set(sections) == {"test_wrong", "test_dead", "test_not_begun", "test_lent"}


def test_guest_seed_and_command_are_named(sections: dict[str, list[str]]) -> None:
    """The scene once, with its files; every setting that decides what is run, but not where this machine keeps its scenes."""
    assert sections["test_wrong"][:5] == [
        "kernel: 6.1",
        "scene: 6.1 nmi of seed 77: orcdbg 'its vmlinux' 'its core'",
        "seed: 77",
        "this test again: ORCDBG_LAB_SEED=77 ORCDBG_LAB_BOOTS=all .venv/bin/pytest -m lab 'test_made.py::test_wrong[6.1]'",
        "the whole lab again: ORCDBG_LAB_SEED=77 ORCDBG_LAB_BOOTS=all make lab",
    ]
    assert not any("last lines" in line for line in sections["test_wrong"])


def test_a_scene_that_a_fixture_made_for_all_is_named_too(sections: dict[str, list[str]]) -> None:
    """Also where it stands beside its session."""
    assert sections["test_lent"][0] == "scene: 7.2 nmi of seed 5: orcdbg 'its vmlinux' 'its core'"


def test_a_dead_guest_has_the_last_word(sections: dict[str, list[str]]) -> None:
    """Of the last one that was tried, twenty lines of it, without control characters."""
    lines = sections["test_dead"]
    assert "scene: 5.10 dead, which was not made" in lines
    at = lines.index("the guest's last lines:")
    expected = [*(f"    line {number} of seed 78" for number in range(81, 100)), "    the?end"]
    assert lines[at + 1 : at + 21] == expected


def test_a_test_without_a_scene_has_seed_and_command_alone(sections: dict[str, list[str]]) -> None:
    """A guest that printed nothing has no last lines."""
    assert [line.partition(":")[0] for line in sections["test_not_begun"][:3]] == [
        "seed",
        "this test again",
        "the whole lab again",
    ]


def test_the_command_repeats_the_failure(folder: Path) -> None:
    """The seed that a run chose by itself, given to the next: the same lines."""
    first = run(folder, f"{folder}/test_made.py::test_wrong")
    (line,) = [line for line in first.splitlines() if line.startswith("this test again: ")]
    setting, _, *words = shlex.split(line.partition(": ")[2])
    name, _, value = setting.partition("=")
    again = run(folder, *words[:-1], f"{folder}/{words[-1]}", **{name: value})
    assert line in again.splitlines()


def test_settings_are_quoted() -> None:
    """Whatever a name or a value holds, a shell reads one word."""
    one, _ = repeat_with("test_x.py::test_y[a b]", 3, {"ORCDBG_LAB_BOOTS": "a b", "HOME": "/root"})
    assert shlex.split(one) == [
        "ORCDBG_LAB_SEED=3",
        "ORCDBG_LAB_BOOTS=a b",
        ".venv/bin/pytest",
        "-m",
        "lab",
        "test_x.py::test_y[a b]",
    ]


def test_a_guests_error_takes_its_console_along(tmp_path: Path) -> None:
    """Before the folder of the scene is removed; other errors, and a console that is known already, are left alone."""
    serial = tmp_path / "serial"
    serial.write_text("Kernel panic", encoding="ascii")
    guest = Guest(Machine(tmp_path, tmp_path), serial)
    error, known = GuestError("silent"), GuestError("silent too")
    known.console = "of another guest"
    for each in (error, known, ValueError()):
        guest.__exit__(type(each), each, None)
    serial.unlink()
    assert (error.console, known.console) == ("Kernel panic", "of another guest")

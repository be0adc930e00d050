"""mod and the files of modules. The sample has no modules; files that are taken for real ones are seen in the lab."""

from __future__ import annotations

from pathlib import Path

import pytest

import orcdbg
from orcdbg.base.errors import NotFound, UsageError
from orcdbg.cli.main import sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.mod import Modules, usual_folders
from orcdbg.commands.registry import Registry
from orcdbg.kernel.modules import Module, ModuleState
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain


@pytest.fixture
def own() -> Debugger:
    """A session that files may be added to."""
    return Debugger(orcdbg.open(*sample_files()))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("mod -s nonesuch", NotFound),
        ("mod -s a b c", UsageError),
        ("mod -S /nonesuch", UsageError),
        ("mod -s a -S", UsageError),
        ("mod -t -S", UsageError),
        ("mod -s", UsageError),
    ],
)
def test_what_cannot_be_loaded_says_so(registry: Registry, own: Debugger, line: str, error: type[Exception]) -> None:
    """A module that is not there, words too many, a folder that is none."""
    with pytest.raises(error):
        registry.run(own, line)


@pytest.mark.parametrize("release", ["", ".", "..", "../../etc", "/etc", "6.1/..", "6.1\n", "x" * 100])
def test_a_release_from_memory_leads_nowhere_else(release: str) -> None:
    """It names a folder below those of distributions, or none."""
    assert usual_folders(release) == []
    assert usual_folders("6.1.0-50-amd64")[0] == "/usr/lib/debug/lib/modules/6.1.0-50-amd64"


def test_a_folder_that_is_named_is_searched(registry: Registry, own: Debugger, tmp_path: Path) -> None:
    """The answer says which modules have files; from then on the session has debugging information to ask for."""
    assert not own.session.has_debug
    found = registry.run(own, f"mod -S {tmp_path}")
    assert isinstance(found, Modules)
    assert found.files == {}
    assert own.session.has_debug
    assert registry.run(own, "mod -S") == found, "folders that were named before are searched"


def test_files_stand_beside_their_modules() -> None:
    """And `-` where there is none."""
    modules = [Module(at, name, ((at, 8),), (at, 8), None) for at, name in ((0xFFFF_FFFF_C000_0000, "a"), (16, "b"))]
    answer = Modules(modules, (), None, {modules[0].address: "files/a.ko"})
    assert [line.split()[-1] for line in plain(lines_of(answer, None)).splitlines()] == ["FILE", "files/a.ko", "-"]
    assert [module["file"] for module in encode(answer)["modules"]] == ["files/a.ko", None]


@pytest.mark.parametrize(
    ("state", "end", "word"),
    [
        (ModuleState.LIVE, "8", "live"),
        (ModuleState.COMING, "(loading)", "coming"),
        (ModuleState.GOING, "(unloading)", "going"),
        (ModuleState.UNFORMED, "more)", "unformed"),
        (None, "8", None),
    ],
)
def test_a_module_that_comes_or_goes_says_so(state: ModuleState | None, end: str, word: str | None) -> None:
    """What it has in memory may not be whole."""
    answer = Modules([Module(16, "m", ((16, 8),), (16, 8), state)], ())
    assert plain(lines_of(answer, None)).split()[-1] == end
    assert [module["state"] for module in encode(answer)["modules"]] == [word]

"""What do many tests share: the bundled sample, opened once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings

import orcdbg
from orcdbg.cli.main import main, sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.standard import standard_commands
from orcdbg.target.session import Session

Outcome = tuple[int, str, str]
RunProgram = Callable[..., Outcome]

# Tests never judge wall time: the cores are shared, with other tests too. What is bounded is bounded in CPU time, by name.
settings.register_profile("orcdbg", deadline=None)
settings.load_profile("orcdbg")


@pytest.fixture(scope="session")
def sample() -> Session:
    """The bundled sample's session; tests must not change it."""
    return orcdbg.open(*sample_files())


@pytest.fixture
def debugger(sample: Session) -> Debugger:
    """A fresh selection over the sample."""
    return Debugger(sample)


@pytest.fixture
def registry() -> Registry:
    """orcdbg's own commands."""
    return standard_commands()


@pytest.fixture
def orcdbg_run(capfd: pytest.CaptureFixture[str]) -> RunProgram:
    """Runs orcdbg's command line in this process: exit status, standard output, standard error."""

    def program(*words: str) -> Outcome:
        status = main(list(words))
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return program

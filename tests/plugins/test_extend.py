"""extend: a plug-in's commands at run time."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import RunProgram

PLUGIN = """
from orcdbg.plugin import command

class Hello:
    def to_text(self):
        return ["hello"]
    def to_json(self):
        return {}

@command("hello", summary="greet", group="session")
def hello(debugger, arguments):
    return Hello()

def register(api):
    api.add_command(hello)
"""


def test_a_plug_in_is_loaded_at_run_time(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Its words are known from then on, and not before; a file that is none says so."""
    file = tmp_path / "greeting.py"
    file.write_text(PLUGIN)
    status, output, _ = orcdbg_run("demo", "-e", f"extend {file}", "-e", "hello")
    assert (status, output) == (0, "new words: hello\nhello\n")
    assert orcdbg_run("demo", "-e", "hello")[0] == 2
    file.write_text("x = 1\n")
    status, _, errors = orcdbg_run("demo", "-e", f"extend {file}")
    assert status == 2
    assert "it has no function register(api)" in errors

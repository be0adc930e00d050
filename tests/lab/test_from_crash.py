"""What docs/from-crash.md says was typed on real kernels is typed here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.views.as_json import json_pieces
from orcdbg.views.as_text import text_pieces
from tests.lab.conftest import OpenScene
from tests.lab.draw import kernels_of

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("words of crash"))]

PAGE = Path(__file__).parents[2] / "docs/from-crash.md"
# Those that only say so where nothing panicked.
OF_A_PANIC = ("bt -p", "set -p")


def typed() -> list[str]:
    """The lines of the page's last table."""
    table = PAGE.read_text(encoding="utf-8").partition("## Tried")[2]
    rows = [row.split("|") for row in table.splitlines() if row.startswith("| ") and not row.startswith("| form")]
    return [line for row in rows for line in re.findall(r"`([^`]+)`", row[2])]


@pytest.mark.parametrize("scene", ["idle", "nmi"])
def test_what_was_typed_answers(kernel: str, scene: str, open_scene: OpenScene) -> None:
    """Each line, in text and in JSON, without a word of something that could not be read."""
    debugger, registry = Debugger(open_scene(kernel, scene)[1]), standard_commands()
    lines = typed()
    assert len(lines) > 100
    for line in lines:
        if line in OF_A_PANIC and scene == "idle":
            with pytest.raises(UsageError, match="no CPU panicked"):
                registry.run(debugger, line)
            continue
        answer = registry.run(debugger, line)
        text = "".join(text_pieces(answer, None))
        assert not [problem for problem in text.splitlines() if problem.startswith("! ")], line
        assert json.loads("".join(json_pieces(line, answer)))["ok"]

"""docs/mcp.md says what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orcdbg.cli.mcp import PAGE, SECONDS, parser

TEXT = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text(encoding="utf-8")


def test_the_page_has_exactly_the_options() -> None:
    """With their defaults."""
    options = {option for action in parser()._actions for option in action.option_strings}
    assert set(re.findall(r"(?m)^\| `(--[\w-]+)", TEXT)) == options - {"-h", "--help"}
    assert f"(default: {SECONDS:g}," in TEXT
    assert f"(default: {PAGE})" in TEXT


@pytest.mark.parametrize("block", re.findall(r"(?ms)^```json\n(.*?)^```$", TEXT))
def test_the_configurations_start_it(block: str) -> None:
    """Their words are its own."""
    (servers,) = json.loads(block).values()
    words: list[str] = servers["orcdbg"]["args"]
    assert (servers["orcdbg"]["command"], words[0]) == ("orcdbg", "mcp")
    assert parser().parse_args(words[1:]).root


def test_the_page_has_exactly_the_tools() -> None:
    """Those that an assistant is told of."""
    pytest.importorskip("mcp", reason="the extra `mcp` is not installed: pip install 'orcdbg[mcp]'")
    from orcdbg.mcp.server import Tools

    tools = {name for name, value in vars(Tools).items() if callable(value) and not name.startswith("_")}
    section = TEXT.partition("## Tools")[2].partition("\n## ")[0]
    assert set(re.findall(r"(?m)^\| `(\w+)`", section)) == tools

"""The process that has one of the snapshots of `orcdbg mcp`: `python -P -m orcdbg.cli.mcp_worker`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from orcdbg.cli.main import sample_files
from orcdbg.cli.plugins import load_plugins
from orcdbg.commands.standard import standard_commands
from orcdbg.mcp.messages import Opening
from orcdbg.mcp.worker import Commands, serve


def _load(opening: Opening) -> Commands:
    """orcdbg's own commands, and those of plug-ins that the user named: no installed one takes part by itself."""
    registry = standard_commands()
    brought = load_plugins(registry, opening.plugins, installed=False)
    return Commands(registry, brought.readers, brought.passes)


def _files_of(names: Sequence[str]) -> Sequence[str]:
    return sample_files() if list(names) == ["demo"] else names


def main() -> None:
    """Answers over the standard streams, which nothing else gets: what a plug-in prints goes nowhere."""
    questions, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    serve(questions, replies, _load, _files_of)


if __name__ == "__main__":
    main()

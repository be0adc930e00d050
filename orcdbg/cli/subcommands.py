"""Which first words of the command line are programs of their own, with options of their own?"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

# A word, and the module whose `run(arguments)` answers it with an exit status; imported when asked for only.
_MODULES = {
    "checkup": "orcdbg.cli.checkup",
    "decode": "orcdbg.cli.decode",
    "mcp": "orcdbg.cli.mcp",
    "report": "orcdbg.cli.report",
    "triage": "orcdbg.cli.triage",
    "trim": "orcdbg.cli.trim",
}


def find_subcommand(words: Sequence[str]) -> Callable[[Sequence[str]], int] | None:
    """What runs the words after the first, None where the first is no subcommand."""
    name = _MODULES.get(words[0]) if words else None
    if name is None:
        return None
    run: Callable[[Sequence[str]], int] = importlib.import_module(name).run
    return run

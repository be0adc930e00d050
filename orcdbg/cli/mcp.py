"""orcdbg mcp: which folders may an assistant open snapshots in, and for how long may a command run?"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence

from orcdbg.base.errors import UsageError
from orcdbg.cli.options import OptionParser, add_debug_folders
from orcdbg.commands.standard import standard_commands

SECONDS = 60.0
MAX_SECONDS = 3600.0
PAGE = 20_000
MAX_PAGE = 1_000_000


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"not a time from 0 to {MAX_SECONDS:g} seconds: {text}")
    return value


def _page(text: str) -> int:
    value = int(text)
    if not 1000 <= value <= MAX_PAGE:
        raise argparse.ArgumentTypeError(f"not a number of characters from 1000 to {MAX_PAGE}: {text}")
    return value


def parser() -> OptionParser:
    """The parser of its options."""
    made = OptionParser(
        prog="orcdbg mcp",
        description="Let an assistant open snapshots and run commands that only read, over the Model Context Protocol on "
        "the standard streams. A client starts it.",
        allow_abbrev=False,
    )
    made.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="DIR",
        help="open files below this folder, and nowhere else; repeatable",
    )
    made.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        metavar="N",
        help=f"end a command after this time (default: {SECONDS:g})",
    )
    made.add_argument(
        "--page",
        type=_page,
        default=PAGE,
        metavar="CHARACTERS",
        help=f"the size of a page of an answer (default: {PAGE})",
    )
    add_debug_folders(made)
    made.add_argument("--plugin", action="append", default=[], metavar="FILE", help="load a plug-in; repeatable")
    return made


def run(arguments: Sequence[str]) -> int:
    """Runs `orcdbg mcp`; the exit status."""
    options = parser().parse_args(arguments)
    if importlib.util.find_spec("mcp") is None:
        raise UsageError("orcdbg mcp needs the extra `mcp`, which is not installed", "pip install 'orcdbg[mcp]'")

    from orcdbg.mcp.folders import Folders
    from orcdbg.mcp.server import run_server
    from orcdbg.mcp.snapshots import CallLimits

    debug_folders, plugins = (list(map(os.path.realpath, names)) for names in (options.debug_dir, options.plugin))
    limits = CallLimits(options.seconds, options.page, plugins, debug_folders)
    run_server(Folders(options.root), limits, standard_commands())
    return 0

"""orcdbg checkup: what is in each of these files, and do they go together?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orcdbg.cli.options import OptionParser, add_type_options, type_options
from orcdbg.cli.output import Output, terminal_width, wants_color
from orcdbg.cli.patches import apply_patches
from orcdbg.commands.checkup import checkup
from orcdbg.target.session import Session


def _parser() -> OptionParser:
    made = OptionParser(
        prog="orcdbg checkup",
        description="Say what was found in a snapshot, an image, or both; what is missing, what that costs, how to get it.",
        allow_abbrev=False,
    )
    made.add_argument("files", nargs="+", metavar="FILE", help="a snapshot, an image, or both, in any order")
    made.add_argument(
        "--debug-dir", action="append", default=[], metavar="DIR", help="a folder of split-off debug files; repeatable"
    )
    add_type_options(made)
    made.add_argument(
        "--patches", metavar="FILE", help="a journal from `patch export`, for a snapshot without its image"
    )
    made.add_argument("--format", choices=("text", "json"), default="text", help="format of the answer (default: text)")
    return made


def run(arguments: Sequence[str]) -> int:
    """Runs `orcdbg checkup`; the exit status."""
    options = _parser().parse_args(arguments)

    def take_patches(session: Session) -> None:
        if options.patches is not None:
            apply_patches(session, options.patches)

    result = checkup(options.files, options.debug_dir, take_patches, type_options(options))
    output = Output(options.format, wants_color("auto", sys.stdout), terminal_width(sys.stdout))
    output.answer("checkup", result, sys.stdout)
    return result.exit_status

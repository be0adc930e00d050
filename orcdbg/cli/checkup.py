"""orcdbg checkup: what is in each of these files, and do they go together?"""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.cli.options import OptionParser, add_answer_format, add_debug_folders, add_type_options, type_options
from orcdbg.cli.output import answer_alone
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
    add_debug_folders(made)
    add_type_options(made)
    made.add_argument(
        "--patches", metavar="FILE", help="a journal from `patch export`, for a snapshot without its image"
    )
    add_answer_format(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """Runs `orcdbg checkup`; the exit status."""
    options = _parser().parse_args(arguments)

    def take_patches(session: Session) -> None:
        if options.patches is not None:
            apply_patches(session, options.patches)

    result = checkup(options.files, options.debug_dir, take_patches, type_options(options))
    answer_alone(options.format, "checkup", result)
    return result.exit_status

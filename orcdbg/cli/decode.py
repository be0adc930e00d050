"""orcdbg decode: which text is decoded, and by which vmlinux?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from orcdbg.base.errors import UsageError
from orcdbg.cli.options import OptionParser, add_answer_format, add_debug_folders, add_module_folders
from orcdbg.cli.output import answer_alone
from orcdbg.commands.decode import decode_report
from orcdbg.kernel.pasted_log import MAX_BYTES


def _parser() -> OptionParser:
    made = OptionParser(
        prog="orcdbg decode",
        description="Decode an oops, panic, lockup, hung task or warning from its text on standard input, without a dump.",
        allow_abbrev=False,
    )
    made.add_argument("vmlinux", nargs="?", metavar="VMLINUX", help="the kernel's image; without one less can be said")
    add_module_folders(made)
    add_debug_folders(made)
    add_answer_format(made)
    return made


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise UsageError("there is no standard input", "orcdbg decode VMLINUX < oops.txt")
    if sys.stdin.isatty():
        print("orcdbg: paste the report, then press Ctrl-D", file=sys.stderr)
    return sys.stdin.buffer


def run(arguments: Sequence[str], text: IO[bytes] | None = None) -> int:
    """Runs `orcdbg decode`; the exit status.

    Args:
        arguments: the words behind `decode`.
        text: the report; None for standard input.
    """
    options = _parser().parse_args(arguments)
    # One byte more than is looked at tells that there is more.
    data = (_standard_input() if text is None else text).read(MAX_BYTES + 1)
    result = decode_report(data, options.vmlinux, options.modules, options.debug_dir)
    answer_alone(options.format, "decode", result)
    return 0

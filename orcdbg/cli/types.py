"""Where does the user say that types are, for a kernel whose image has none?"""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager

from orcdbg.target.kernel_types import TypeOptions


def add_type_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `type_options` reads."""
    parser.add_argument(
        "--btf", metavar="FILE|DIR", help="types for an image without .BTF: detached BTF, or a folder of it by release"
    )
    parser.add_argument(
        "--make-btf", action="store_true", help="have pahole make BTF of the image's DWARF if there is no other"
    )


def type_options(options: argparse.Namespace) -> TypeOptions:
    """What the options say; on a terminal, work that takes its time is shown."""
    return TypeOptions(options.btf, options.make_btf, _shown)


def _shown(what: str) -> AbstractContextManager[object]:
    from orcdbg.views.waiting import Waiting

    return Waiting(what, sys.stderr)

"""whatis: the type of an expression, a type's definition, or what an address is."""

from __future__ import annotations

import argparse
import re

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.types import described

# A number as people write addresses: `0x...`, or all 16 digits of a kernel's. Another number has a type, as in C.
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]+|ff[0-9a-fA-F]{14}")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "expression", nargs="?", metavar="TYPE|EXPRESSION|ADDR", help="a C type, a C expression, or an address"
    )


@command(
    "whatis",
    summary="show the type of an expression, a type's definition, or what an address is",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("structure", "symbol"),
    takes_expression=True,
    examples=(
        ("whatis init_task.mm", "the type of a member; no memory is read"),
        ("whatis list_head", "what a type is"),
        ("whatis pid_t", "also a typedef"),
        ("whatis 0xffff888004a2c1c0", "what is at an address, as `kmem ADDR` tells"),
    ),
)
def whatis(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with a type, or with what memory shows of an address."""
    written = (arguments.expression or "").strip()
    if _ADDRESS.fullmatch(written):
        from orcdbg.commands import kmem  # a type needs none of it

        return kmem.AddressFindings([kmem.described(debugger, written)])
    return described(debugger, arguments.expression, False)
